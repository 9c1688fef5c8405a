"""The environments that the files of a bundle have been written for, as the files say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .sqsd_options import OPTIONS_FILES, options, policy_file

CRON: Final = "cron.yaml"

_OWNER: Final = re.compile(r"^# Only (\S+) runs these tasks\.$", re.MULTILINE)
_QUEUE: Final = re.compile(r'"(arn:[\w-]+:sqs:[^"]+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """The environments and queues that the files of a bundle name already."""

    workers: Mapping[str, str] = field(default_factory=dict)
    """Worker environment → the URL of the queue that it reads."""
    queue_arns: frozenset[str] = frozenset()
    """The queues to which the web environment may send."""
    cron_owner: str | None = None
    """The worker environment that runs the periodic tasks; None if the file names none."""


def find_existing(root: Path, web: str) -> Existing:
    """Return those that the files in ``root`` name. ``web`` is the web environment."""
    suffix = OPTIONS_FILES.partition("*")[2]
    names = [file.name.removesuffix(suffix) for file in sorted(root.glob(OPTIONS_FILES))]
    owner = _OWNER.search(_read(root / CRON))
    return Existing(
        workers={name: options(root, name).get("WorkerQueueURL", "") for name in names},
        queue_arns=frozenset(_QUEUE.findall(_read(root / policy_file(web)))),
        cron_owner=owner[1] if owner else None,
    )


def cron_owner_line(environment: str) -> str:
    """Return the comment of cron.yaml that names the environment."""
    return f"# Only {environment} runs these tasks."


def _read(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""
