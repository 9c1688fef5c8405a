"""Draw docs/images/demo.svg: what ``make demo`` prints, in the colours of a light and a dark page.

    python -m docs.demo_picture

``make pictures`` runs it.
"""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PICTURE: Final = ROOT / "docs" / "images" / "demo.svg"

STYLE: Final = """
    text { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; font-size: 13px; fill: #1f2328; }
    .title { font-weight: 600; }
    .note { fill: #59636e; }
    .good { fill: #1a7f37; }
    .bad { fill: #cf222e; }
    .later { fill: #9a6700; }
    .paper { fill: #ffffff; stroke: #d1d9e0; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .note { fill: #9da7b3; }
      .good { fill: #3fb950; }
      .bad { fill: #f85149; }
      .later { fill: #d29922; }
      .paper { fill: #0d1117; stroke: #30363d; }
    }
"""  # noqa: E501
_CLASSES: Final = {
    "done": "good", "yes": "good",
    "failed": "bad", "timed-out": "bad", "dead-lettered": "bad", "NO": "bad",
    "retry": "later",
}  # fmt: skip
_WORD: Final = re.compile(rf"(?<![\w-])({'|'.join(_CLASSES)})(?![\w-])")
_TIME: Final = re.compile(r"\s*\d+\.\ds")
_COLUMN: Final = "\u00a0\u00a0"  # SVG shows a row of ordinary spaces as one
_MARGIN: Final = 20
_STEP: Final = 18
_CHARACTER: Final = 7.83  # the width of one, in this size


def run_demo() -> list[str]:
    """The lines of one run."""
    demo = [sys.executable, "-m", "example_settings.demo"]
    return subprocess.run(
        demo, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()


def draw(lines: Sequence[str]) -> str:
    """The lines below the command that prints them, as SVG."""
    width = round(2 * _MARGIN + max(map(len, lines)) * _CHARACTER)
    height = 2 * _MARGIN + (len(lines) + 1) * _STEP
    size = f'viewBox="0 0 {width} {height}" width="{width}"'
    paper = f'width="{width - 1}" height="{height - 1}" rx="6"'
    texts = "\n".join(_texts(["$ make demo", *lines]))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">
  <title id="title">make demo</title>
  <desc id="desc">What make demo prints: what became of each delivery, and the story of each
    task.</desc>
  <style>{STYLE}  </style>
  <rect class="paper" x="0.5" y="0.5" {paper}/>
{texts}
</svg>
"""


def _texts(lines: Sequence[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        kind = ' class="title"' if line.startswith(("$", "task ")) else ""
        baseline = _MARGIN + number * _STEP - 5
        if line:
            yield f'  <text{kind} x="{_MARGIN}" y="{baseline}">{_spans(line)}</text>'


def _spans(line: str) -> str:
    """The line with its time in grey, and each outcome in its colour."""
    line = line.replace("  ", _COLUMN)
    time = _TIME.match(line)
    start = time.end() if time else 0
    grey = f'<tspan class="note">{line[:start]}</tspan>' if time else ""
    rest = _WORD.sub(
        lambda word: f'<tspan class="{_CLASSES[word[1]]}">{word[1]}</tspan>',
        html.escape(line[start:], quote=False),
    )
    return grey + rest


if __name__ == "__main__":
    PICTURE.write_text(draw(run_demo()))
    print(f"written: {PICTURE.relative_to(ROOT)}")
