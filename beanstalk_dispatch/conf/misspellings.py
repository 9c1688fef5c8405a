"""Names in the environment and in Django's settings that are most likely misspelt."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches
from typing import Final

from .environment import is_given, names_in_use
from .registry import registered_groups
from .removed import replacement_of
from .variables import PREFIX, without_prefix

# Two letters in the wrong order differ by two characters: one is removed and added elsewhere.
_MAX_SLIP: Final = 2
_WHOLE_NAME_CUTOFF: Final = 0.9


def unknown_variables() -> dict[str, str | None]:
    """Return the variables and Django settings that resemble ours: most often a misspelling.

    Each name is a key. Its value is the known name closest to it, or None if no name is close or
    the name was removed.
    """
    groups = registered_groups()
    variables = {setting.variable for group in groups for setting in group.settings}
    known = variables | {f"{variable}_FILE" for variable in variables}
    present = names_in_use()
    unknown: dict[str, str | None] = {}
    for group in groups:
        candidates = sorted(name for name in known if name.startswith(group.prefix))
        for name in sorted(present - known):
            if replacement_of(name):
                unknown[name] = None
            elif name.startswith(group.prefix):
                closest = _closest_name(name, candidates)
                is_slip = closest is not None and _count_differences(name, closest) <= _MAX_SLIP
                if is_slip or not group.is_prefix_shared:
                    unknown[name] = closest
    for name in sorted(present):
        if name.startswith("DISPATCH_") and PREFIX + name in known:
            unknown[name] = PREFIX + name
        elif meant := _with_own_prefix(name, known):
            unknown[name] = meant
    return unknown


def _with_own_prefix(name: str, known: Iterable[str]) -> str | None:
    """Return the variable that a name is, after a prefix of the project's or a byte order mark."""
    meant = f"BEANSTALK_{name.partition('BEANSTALK_')[2]}"
    if name == meant or meant not in known or is_given(meant):
        return None  # a setting may read a variable of the project's own name
    return meant


def _closest_name(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that was most likely meant, or None if none is close.

    Whole names are compared first, and then names without the prefix, because a long prefix in
    common makes any two names look alike.
    """
    if whole := get_close_matches(name, candidates, n=1, cutoff=_WHOLE_NAME_CUTOFF):
        return whole[0]
    stems = {without_prefix(candidate): candidate for candidate in candidates}
    close = get_close_matches(without_prefix(name), stems, n=1)
    return stems[close[0]] if close else None


def _count_differences(one: str, other: str) -> int:
    """Return the number of characters to remove from ``one`` and to add to get ``other``."""
    blocks = SequenceMatcher(None, one, other).get_matching_blocks()
    return len(one) + len(other) - 2 * sum(block.size for block in blocks)
