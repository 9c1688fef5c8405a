"""The words that this project does not use, because a reader has to stop at them.

A tired engineer, reading in a second language, should not have to guess that "its kin" are two
other variables. Each word below has a plain one beside it.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENTS: Final = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "beanstalk_dispatch" / "problems" / "findings.toml",
]
CODE: Final = [
    path
    for folder in ("beanstalk_dispatch", "example_settings", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]

# A pattern, and what to write instead. A space in a pattern stands for any white space.
AVOID: Final = {
    r"whoever|whomever": "anyone who, a sender who, a person who",
    r"kin": "name the others, or write 'and the related …'",
    r"ow(?:e|es|ed)": "'messages to delete', 'pending', 'must'",
    r"told": "'by default', 'notified', 'the log says'",
    r"tells? (?:it|that|of)": "says, reports, warns, shows",
    r"bur(?:y|ies|ied)": "send to the dead-letter queue",
    r"g(?:ive|ives|iven|ave|iving)(?: [^\s.;:,]+){0,3} back": "requeue, make visible again, return",
    r"typing errors?": "typo",
    r"do(?:es)? as well": "'you can also use …', '… also works'",
    r"will do(?=[.,;:])": "works, is enough",
    r"for want of": "because … is missing",
    r"(?:an?|random|error|log) texts?(?! (?:file|editor|field))": "string, message, value",
    r"texts": "strings, messages, values",
    r"text (?:keys?|is accepted)": "'string keys', 'expected a string'",
    r"(?:is|are|was|were) no (?!longer|more|less|one)\w+": "is not a …",
    r"(?:go(?:es|ne|ing)?|went) on(?! (?:the|a|an|top))": "continues",
    r"so (?:many|long|often)": "the number: 'up to N', 'for N seconds', 'as long as'",
    r"in vain": "without success, without an answer",
    r"thrice": "three times",
    r"of late": "recently",
    r"anew": "again",
    r"lest": "so that … does not …",
    r"for good": "permanently",
    r"all the same": "still, anyway",
    r"nobody thought of": "unexpected",
    r"is away": "does not answer, cannot be reached",
    r"(?:is|while|not) well(?=[.,;:)]| and )": "healthy",
    r"let(?:s|ting)? (?:go of|it go|them go)": "release, give up",
    r"not observed to its end": "the observer failed when it was left",
}
# Uses of the same words that anybody understands; they are passed over.
HONEST: Final = re.compile(
    r"\bthere\s+(?:is|are|was|were)\s+no\b"
    r"|\b(?:is|are|was|were)\s+there\s+no\b"
    r"|\bso\s+(?:many|long|often)\s+(?:\w+\s+)?that\b",
    re.IGNORECASE,
)
_PATTERNS: Final = {
    re.compile(rf"\b(?:{words})(?!\w)".replace(" ", r"\s+"), re.IGNORECASE): plain
    for words, plain in AVOID.items()
}

_LOG: Final = re.compile(r"^```log\n.*?^```$", re.MULTILINE | re.DOTALL)


def faults(text: str) -> Iterator[tuple[int, str]]:
    """The line in ``text`` and the description of each word that is to be avoided."""
    text = HONEST.sub(lambda match: re.sub(r"\S", "_", match[0]), text)
    for pattern, plain in _PATTERNS.items():
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start())
            yield line, f"{' '.join(match[0].split())!r}; write: {plain}"


def pieces_of_document(source: str) -> Iterator[tuple[int, str]]:
    """The page without its log lines, which are strings of the code."""
    yield 1, _LOG.sub(lambda match: "\n" * match[0].count("\n"), source)


def pieces_of_code(source: str) -> Iterator[tuple[int, str]]:
    """Each comment, docstring and other string of a module, with its first line."""
    comments: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, text = token.start[0], token.string.lstrip("#: ")
            if comments and comments[-1][0] + comments[-1][1].count("\n") + 1 == line:
                first, before = comments.pop()
                comments.append((first, f"{before}\n{text}"))
            else:
                comments.append((line, text))
    yield from comments
    yield from _strings(ast.parse(source))


def _strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    match node:
        case ast.Constant(value=str(text), lineno=line):
            yield line, text
        case ast.JoinedStr(values=values, lineno=line):
            parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in values]
            yield line, "".join(map(str, parts))
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _strings(child)


def faults_of(path: Path) -> list[str]:
    pieces = pieces_of_code if path.suffix == ".py" else pieces_of_document
    return [
        f"{relative(path)}:{first + line}: {fault}"
        for first, text in pieces(path.read_text())
        for line, fault in faults(text)
    ]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("folder", sorted({path.parent for path in DOCUMENTS + CODE}), ids=relative)
def test_only_plain_words(folder: Path) -> None:
    paths = [path for path in DOCUMENTS + CODE if path.parent == folder]
    found = [fault for path in paths for fault in faults_of(path)]
    assert not found, "\n" + "\n".join(found)


# --- the words themselves --------------------------------------------------------------------


@pytest.mark.parametrize(
    "sentence",
    [
        "Whoever may send to the queue",
        "AWS_REGION, AWS_PROFILE and their kin",
        "and what each is owed",
        "300 entries unless told otherwise",
        "a failure is logged, and the checks tell it too",
        "to the dead-letter queue: bury it",
        "give back what has waited for too long",
        "ends what runs and gives the rest back",
        "is a typing error",
        "the function itself does as well as its name",
        "Redis, Memcached and the database cache will do.",
        "may fail, for want of memory",
        "this is not a text; a list of texts is accepted",
        "JSON has text keys only",
        "There is white space in it, or what is no ASCII",
        "a duplicate is no failure",
        "thread failed; it\ngoes on",
        "must not be gone on with",
        "stop after so many tasks",
        "has been asked in vain",
        "it would take thrice as long",
        "seconds a task takes, of late",
        "credentials are looked up anew",
        "set for good on Python 3.11",
        "answered 500 all the same",
        "an error nobody thought of",
        "a lease's cache that is away",
        "why the worker is not well; None if it is",
        "the messages not let go of",
        "not observed to its end",
    ],
)
def test_the_words_are_found(sentence: str) -> None:
    assert list(faults(sentence))


@pytest.mark.parametrize(
    "sentence",
    [
        "If there is no such queue, create it.",
        "The message is no longer visible, and waits no more than a minute.",
        "Open a text file in a text editor; the page is plain text.",
        "So many messages that the queue is full.",
        "Tell the daemon where to POST.",
        "Messages that go on the queue give a worker something to do.",
        "Give the page a name. Then go back.",
        "The design is well known, and works as well as the other one.",
        "The kind of skin, tinkling; the owner borrowed; untold.",
    ],
)
def test_honest_words_are_passed_over(sentence: str) -> None:
    assert not list(faults(sentence))


def test_a_fault_is_shown_with_its_file_its_line_and_the_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.docs.test_language.ROOT", tmp_path)
    (tmp_path / "page.md").write_text("# Title\n\nA task that\nis no\nfailure.\n")
    (tmp_path / "code.py").write_text(
        '"""What each is\nowed."""\n\n# A thread\n# goes on.\nraise ValueError(f"{1} is no {2}")\n'
    )
    assert faults_of(tmp_path / "page.md") == ["page.md:4: 'is no failure'; write: is not a …"]
    assert faults_of(tmp_path / "code.py") == [
        "code.py:5: 'goes on'; write: continues",
        "code.py:2: 'owed'; write: 'messages to delete', 'pending', 'must'",
    ]


def test_log_lines_of_a_page_are_left_to_the_code() -> None:
    page = "One.\n```log\nERROR thread failed; it goes on\n```\n"
    ((first, text),) = pieces_of_document(page)
    assert (first, text.count("\n")) == (1, page.count("\n"))
    assert not list(faults(text))
