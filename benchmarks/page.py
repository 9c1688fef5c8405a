"""Writes the figures of a run into docs/benchmarks.md, and draws its pictures.

``python -m benchmarks --docs`` calls it at the end of a run. ``python -m benchmarks.page`` writes
the page again from the last report.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from .compare import ROOT, duration

PAGE: Final = ROOT / "docs" / "benchmarks.md"
IMAGES: Final = ROOT / "docs" / "images"
BEGIN: Final = "<!-- `python -m benchmarks --docs` writes what follows. -->"
END: Final = "<!-- End of what it writes. -->"

Line = Mapping[str, Any]
"""A ``compare.Line`` as the report has it."""


class Picture(NamedTuple):
    """One picture: the ratios of one row."""

    file: str
    row: str
    title: str
    ratio: str
    """``wall_ratio`` or ``cpu_ratio``."""


PICTURES: Final = (
    Picture("benchmark-send.svg", "one send", "CPU time of one send, over boto3 by hand",
            "cpu_ratio"),
    Picture("benchmark-view.svg", "fifty in a view, SQS 5 ms away",
            "Time of a view that schedules fifty tasks, over fifty calls of boto3", "wall_ratio"),
    Picture("benchmark-drain.svg", "drain, no-op",
            "CPU time of a task that does nothing, over a loop by hand in one thread", "cpu_ratio"),
    Picture("benchmark-drain-rate.svg", "drain, 50 ms of sleep",
            "Time of 200 tasks that wait for 50 ms, over a loop by hand in one thread",
            "wall_ratio"),
)  # fmt: skip


# --- the tables ------------------------------------------------------------------------------


def tables(report: Mapping[str, Any]) -> str:
    """The machine, the versions, what falls short, and a table for each row, as Markdown."""
    lines: list[Line] = report["lines"]
    parts = [_machine(report), _summary(lines)]
    rows = list(dict.fromkeys(line["row"] for line in lines))
    for row in rows:
        own = [line for line in lines if line["row"] == row]
        parts.append(f"### {row[0].upper()}{row[1:]}")
        parts += [
            f"![{_alt(picture, own)}](images/{picture.file})"
            for picture in PICTURES
            if picture.row == row and _points(picture, own)
        ]
        parts.append(_table(own))
    return "\n\n".join(parts)


def _machine(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    libraries: dict[str, set[str]] = {}
    for versions in report["versions"].values():
        for name, version in versions.items():
            libraries.setdefault(name, set()).add(version)
    listed = ", ".join(f"{name} {' and '.join(sorted(found))}"
                       for name, found in sorted(libraries.items()))  # fmt: skip
    return (
        f"Run on {report['when']} with `{report['command']}`, in {report['seconds']} seconds: "
        f"{machine['cores']} cores of {machine['cpu']}, Python {machine['python']}. The load "
        f"(1, 5 and 15 minutes) was {machine['load']} before the run and {machine['load after']} "
        f"after it; it counts what other programs did on the same cores.\n\nVersions: {listed}."
    )


def _summary(lines: Sequence[Line]) -> str:
    judged = [line for line in lines if line["is_met"] is not None]
    short = [line for line in judged if not line["is_met"]]
    text = f"{len(judged) - len(short)} of {len(judged)} targets were met in this run."
    if short:
        text += " These were not:\n\n" + "\n".join(
            f"- {line['row']}, {line['side']}: "
            f"{_ratio(line[line['target']['of'] + '_ratio'])}, target {_target(line)}"
            for line in short
        )
    return text


def _target(line: Line) -> str:
    target = line["target"]
    return f"{'≥' if target['at_least'] else '≤'} {target['bound']:g}"


def _ratio(ratio: Mapping[str, float] | None) -> str:
    if ratio is None:
        return ""
    low, median, high = (ratio[name] for name in ("low", "median", "high"))
    return f"{median:.2f} ({low:.2f}–{high:.2f})"


def _table(lines: Sequence[Line]) -> str:
    unit = lines[0]["unit"]
    columns: dict[str, Callable[[Line], str]] = {
        "": lambda line: line["side"],
        f"Time for one {unit}": lambda line: _duration(line["wall"]),
        "× baseline": lambda line: _ratio(line["wall_ratio"]),
        f"CPU for one {unit}": lambda line: _duration(line["cpu"]),
        "× baseline ": lambda line: _ratio(line["cpu_ratio"]),
        "CPU − baseline": lambda line: _difference(line, lines[0]),
        f"Requests for one {unit}": lambda line: _number(line["requests"]),
        "Connections": lambda line: _number(line["connections"]),
        "Memory": lambda line: f"{line['memory'] / 2**20:.0f} MB" if line["memory"] else "",
        "Target": _verdict,
        "Note": lambda line: line["note"].replace("|", "\\|"),
    }
    cells = [[column(line) for column in columns.values()] for line in lines]
    used = [n for n, _ in enumerate(columns) if n == 0 or any(row[n] for row in cells)]
    names = [name.strip() for name in columns]
    table = [[names[n] for n in used], ["---"] * len(used)]
    table += [[row[n] for n in used] for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def _verdict(line: Line) -> str:
    if line["is_met"] is None:
        return ""
    of = "CPU" if line["target"]["of"] == "cpu" else "time"
    return f"{of} {_target(line)}: {'met' if line['is_met'] else 'falls short'}"


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


def _difference(line: Line, baseline: Line) -> str:
    if line is baseline or line["cpu_ratio"] is None or baseline["cpu"] is None:
        return ""
    more = line["cpu"] - baseline["cpu"]
    return f"{'−' if more < 0 else '+'}{duration(abs(more))}"


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:.3g}"


# --- the pictures ----------------------------------------------------------------------------

STYLE: Final = """
    text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; font-size: 14px; fill: #1f2328; }
    .title { font-size: 15px; font-weight: 600; }
    .note { fill: #59636e; font-size: 13px; }
    .end { text-anchor: end; }
    .middle { text-anchor: middle; }
    .paper { fill: #ffffff; stroke: #d1d9e0; }
    .grid { stroke: #d1d9e0; }
    .baseline { stroke: #59636e; stroke-dasharray: 5 4; }
    .ours { fill: #2da44e; stroke: #2da44e; }
    .peer { fill: #218bff; stroke: #218bff; }
    .hand { fill: #8c959f; stroke: #8c959f; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .note { fill: #9da7b3; }
      .paper { fill: #0d1117; stroke: #30363d; }
      .grid { stroke: #30363d; }
      .baseline { stroke: #9da7b3; }
      .ours { fill: #3fb950; stroke: #3fb950; }
      .peer { fill: #58a6ff; stroke: #58a6ff; }
      .hand { fill: #6e7681; stroke: #6e7681; }
    }
"""  # noqa: E501
WIDTH: Final = 860
LEFT: Final = 300
RIGHT: Final = 90
TOP: Final = 62
STEP: Final = 30


class Point(NamedTuple):
    """One side of a picture: its name, its class of the style, and its quartiles."""

    name: str
    kind: str
    low: float
    median: float
    high: float


_BY_HAND: Final = ("boto3", "the floor", "by hand")
_PEERS: Final = ("beanstalk-dispatch", "Celery", "dramatiq", "django-", "taskiq")


def _points(picture: Picture, lines: Sequence[Line]) -> list[Point]:
    points = []
    for line in lines:
        ratio = line[picture.ratio]
        if ratio is None or ratio["median"] <= 0:
            continue
        side = line["side"]
        kind = "hand" if side.startswith(_BY_HAND) else "ours"
        kind = "peer" if side.startswith(_PEERS) else kind
        points.append(Point(side, kind, ratio["low"], ratio["median"], ratio["high"]))
    return sorted(points, key=lambda point: point.median)


def _alt(picture: Picture, lines: Sequence[Line]) -> str:
    points = _points(picture, lines)
    return f"{picture.title}: " + ", ".join(f"{each.name} {each.median:.2f}" for each in points)


def _ticks(low: float, high: float) -> Iterator[float]:
    """The numbers 1, 2 and 5 of each power of ten within a range."""
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        for digit in (1, 2, 5):
            if low <= (tick := digit * 10.0**power) <= high:
                yield tick


def _fit(name: str) -> str:
    """The attribute that keeps a long label within the picture."""
    return f' textLength="{LEFT - 24}" lengthAdjust="spacingAndGlyphs"' if len(name) > 34 else ""


def draw(picture: Picture, lines: Sequence[Line]) -> str:
    """The picture as SVG: a dot for each median and a line between its quartiles, on a log scale.

    It has the colours of a light and of a dark page.
    """
    points = _points(picture, lines)
    low = min(0.9, *(each.low for each in points if each.low > 0)) / 1.15
    high = max(1.1, *(each.high for each in points)) * 1.15

    def x(ratio: float) -> float:
        share = math.log(max(ratio, low) / low) / math.log(high / low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    bottom = TOP + STEP * len(points)
    size = f'width="{WIDTH - 1}" height="{bottom + 39}"'
    view = f'viewBox="0 0 {WIDTH} {bottom + 40}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {view} role="img" aria-labelledby="title desc">',
        f'  <title id="title">{html.escape(picture.title)}</title>',
        f'  <desc id="desc">{html.escape(_alt(picture, lines))}</desc>',
        f"  <style>{STYLE}  </style>",
        f'  <rect class="paper" x="0.5" y="0.5" {size}/>',
        f'  <text class="title" x="20" y="30">{html.escape(picture.title)}</text>',
        '  <text class="note" x="20" y="50">less is better; medians and quartiles</text>',
    ]
    for tick in _ticks(low, high):
        kind = "baseline" if tick == 1 else "grid"
        parts += [
            (
                f'  <line class="{kind}" x1="{x(tick):.1f}" y1="{TOP}" x2="{x(tick):.1f}" '
                f'y2="{bottom}"/>'
            ),
            f'  <text class="note middle" x="{x(tick):.1f}" y="{bottom + 20}">{tick:g}</text>',
        ]
    for number, each in enumerate(points):
        y, name = TOP + STEP * (number + 0.5), html.escape(each.name)
        parts += [
            f'  <text class="end" x="{LEFT - 16}" y="{y + 5}"{_fit(each.name)}>{name}</text>',
            (
                f'  <line class="{each.kind}" stroke-width="3" x1="{x(each.low):.1f}" y1="{y}" '
                f'x2="{x(each.high):.1f}" y2="{y}"/>'
            ),
            f'  <circle class="{each.kind}" cx="{x(each.median):.1f}" cy="{y}" r="5"/>',
            f'  <text class="note" x="{WIDTH - RIGHT + 20}" y="{y + 5}">{each.median:.2f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def write(report: Mapping[str, Any], *, page: Path = PAGE, images: Path = IMAGES) -> None:
    """Write the figures into the page, between its two marks, and the pictures beside it."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{tables(report)}\n\n{END}{after}")
    for picture in PICTURES:
        own = [line for line in report["lines"] if line["row"] == picture.row]
        if _points(picture, own):
            (images / picture.file).write_text(draw(picture, own))


if __name__ == "__main__":
    write(json.loads((ROOT / "dist" / "benchmarks.json").read_text()))
