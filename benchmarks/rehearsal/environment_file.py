r"""What a process gets of the environment properties, on the Python platform.

Elastic Beanstalk writes a line ``KEY=value`` for each property, without quotes of its own, and
systemd reads the file: https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html

- A backslash is removed, and the character behind it stays. At the end of a line, the next line is
  a part of the value.
- A value that begins with a quote ends at the next one, even in another line; the quotes are
  removed. Inside of a value, quotes stay.
"""

from __future__ import annotations

from collections.abc import Mapping

_QUOTES = frozenset("'\"")
_ESCAPED_IN_QUOTES = frozenset('"\\`$')


def environment_file(properties: Mapping[str, str]) -> str:
    """The file that Elastic Beanstalk writes."""
    return "".join(f"{name}={value}\n" for name, value in properties.items())


def delivered(content: str) -> dict[str, str]:
    """The variables that systemd reads from such a file."""
    found: dict[str, str] = {}
    position = 0
    while position < len(content):
        end = content.find("\n", position)
        name, equals, _ = content[position:end].partition("=")
        if not equals or name.lstrip()[:1] in {"#", ";"}:
            position = end + 1
            continue
        found[name.strip()], position = _value(content, position + len(name) + 1)
    return found


def _value(content: str, position: int) -> tuple[str, int]:
    """The value that begins there, and where the next line begins."""
    value, blanks, quote, begins = "", "", "", True
    while position < len(content):
        character = content[position]
        position += 1
        if quote:
            if character == quote:
                quote, begins = "", True
            elif character == "\\" and quote == '"':
                following = content[position : position + 1]
                position += 1
                value += following if following in _ESCAPED_IN_QUOTES else f"\\{following}"
            else:
                value += character
        elif character == "\n":
            break
        elif character == "\\":
            following = content[position : position + 1]
            position += 1
            value, blanks, begins = value + blanks + following.strip("\n"), "", False
        elif character in _QUOTES and begins:
            quote = character
        elif character.isspace():
            blanks += "" if begins else character
        else:
            value, blanks, begins = value + blanks + character, "", False
    return value, position
