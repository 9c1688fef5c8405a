"""The configuration as environment properties: strings, and the programs that would change them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import Setting
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.conf.secret_casts import Secret
from beanstalk_dispatch.conf.variables import WORKER

MAX_BYTES: Final = 4096
"""The maximum size of all properties of an environment together, counted as ``KEY=value``.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/environments-cfg-softwaresettings.html
"""

_DOCUMENTED: Final = re.compile(r"""[A-Za-z0-9\s_.:/=+\\@'"-]""")
"""The characters of a value, by the same page."""

_REMEDY: Final = "put the value into a file or a secret"
_REMOVED: Final = f"which systemd removes on the Python platform but Docker keeps; {_REMEDY}"
_SPLIT: Final = (
    "at which 'eb create --envvars', 'eb clone --envvars' and the AWS CLI's shorthand split it; "
    "use 'eb setenv' or the console"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """One environment property."""

    name: str
    """The variable, or the variable with ``_FILE``."""
    value: str = field(repr=False)
    """A string that the variable's cast reads as the value in effect."""
    is_secret: bool = False
    """True if the value must not be shown."""

    @property
    def size(self) -> int:
        """The bytes of the property, as Elastic Beanstalk counts them."""
        return len(f"{self.name}={self.value}".encode())


def properties_in_effect(*, worker: bool) -> list[Property]:
    """Return the properties that give a tier the configuration of this process.

    The variables that have their default are left out. BEANSTALK_WORKER is set on a worker, and
    only there.
    """
    found = [Property(name=WORKER.variable, value="True")] if worker else []
    for group in conf.registered_groups():
        values = conf.values_of(group)
        for setting in group.settings:
            source = values.sources[setting.variable]
            if setting is not WORKER and source != "default":
                found.append(_make_property(setting, values[setting], is_file=source == "file"))
    return found


def with_values(properties: Iterable[Property], values: Mapping[str, str]) -> Iterator[Property]:
    """Yield the properties with these values in place of theirs or of their files."""
    others = dict(values)
    for each in properties:
        name = each.name.removesuffix("_FILE")
        yield Property(name=name, value=others.pop(name)) if name in values else each
    yield from (Property(name=name, value=value) for name, value in others.items())


def _make_property(setting: Setting[Any], value: Any, *, is_file: bool) -> Property:
    if is_file:
        return Property(name=f"{setting.variable}_FILE", value=conf.file_of(setting))
    return Property(
        name=setting.variable, value=string_of(setting, value), is_secret=setting.secret
    )


def string_of(setting: Setting[Any], value: Any) -> str:
    """Return the value as a string that the setting's cast reads as the same value.

    It is made of the characters that AWS documents, if that is possible: a list is separated by
    spaces, and is JSON only if an item contains a space or a comma.
    """
    kind = Secret if setting.secret else str
    first, *others = map(kind, _strings_of(value))
    candidates = [first, *others]
    return next((each for each in candidates if _is_read_as(setting, each, value)), first)


def _is_read_as(setting: Setting[Any], string: str, value: Any) -> bool:
    try:
        return bool(setting.cast(string) == value)
    except ValueError:
        return False


def _strings_of(value: Any) -> list[str]:
    match value:
        case timedelta():
            return [_format_duration(value)]
        case float():
            return [f"{value:g}", repr(value)]
        case ():
            return ["off", "", "[]"]
        case tuple() | list():
            items = [str(item) for item in value]
            return [" ".join(items), json.dumps(items, ensure_ascii=False)]
        case Mapping():
            targets = {name: _queue_target(each) for name, each in value.items()}
            pairs = " ".join(f"{name}={target}" for name, target in targets.items())
            return [pairs, json.dumps(targets, ensure_ascii=False)]
        case _:
            return [str(value)]


def _queue_target(value: Any) -> str:
    if isinstance(value, QueueAddress):
        return value.url or value.name
    if isinstance(value, tuple):  # of unique_by
        return "+".join(value)
    return _strings_of(value)[0]


def _format_duration(value: timedelta) -> str:
    seconds = value.total_seconds()
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


# --- size ------------------------------------------------------------------------------------


def total_size(properties: Iterable[Property]) -> int:
    """Return the bytes of all properties together, as Elastic Beanstalk counts them."""
    return sum(each.size for each in properties)


def move_to_files(
    properties: Sequence[Property], directory: str, *, limit: int = MAX_BYTES
) -> tuple[list[Property], dict[str, str]]:
    """Put the largest values into files until the others fit into ``limit`` bytes.

    Return the properties, of which some are now ``NAME_FILE=directory/NAME``, and the content of
    each such file by its path. A secret is never put into a file: the files belong to the bundle.
    """
    kept = list(properties)
    files: dict[str, str] = {}
    while total_size(kept) > limit:
        movable = [each for each in kept if _move_to_file(each, directory).size < each.size]
        if not movable:
            break
        largest = max(movable, key=lambda each: each.size)
        files[_move_to_file(largest, directory).value] = f"{largest.value}\n"
        kept[kept.index(largest)] = _move_to_file(largest, directory)
    return kept, files


def _move_to_file(each: Property, directory: str) -> Property:
    if each.is_secret or each.name.endswith("_FILE"):
        return each
    return Property(name=f"{each.name}_FILE", value=f"{directory}/{each.name}")


# --- what would change a value ---------------------------------------------------------------


def problems_on_the_way(each: Property) -> Iterator[str]:
    """Yield the changes that Elastic Beanstalk, systemd, Docker or a command line would make.

    The value itself is not shown.
    """
    value = each.value
    if "\\" in value:
        yield f"{each.name} contains a backslash, {_REMOVED}"
    if value[:1] in {"'", '"'}:
        yield f"{each.name} starts with a quote, {_REMOVED}"
    if "\n" in value:
        yield f"{each.name} contains a newline, which 'eb setenv' refuses; {_REMEDY}"
    if "," in value:
        yield f"{each.name} contains a comma, {_SPLIT}"
    if others := set(_DOCUMENTED.sub("", value)) - {","}:
        shown = "" if each.is_secret else f": {' '.join(map(ascii, sorted(others)))}"
        yield f"{each.name} contains characters that AWS does not document for values{shown}"
