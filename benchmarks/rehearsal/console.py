"""``python console.py`` runs management commands one after the other, as one shell does.

Each line of stdin is JSON: the words of a command, and changes of the environment that stay. Each
line of stdout is JSON: the exit code, and what the command has written. One process for all of
them saves a second for each.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys

import django
from django.core.management import call_command
from django.core.management.base import CommandError


def main() -> None:
    """Serve until stdin ends."""
    sys.path.insert(0, os.getcwd())
    django.setup()
    from beanstalk_dispatch import conf

    for line in sys.stdin:
        words, changes = json.loads(line)
        for name, value in changes.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        conf.clear_caches()
        output, code = io.StringIO(), 0
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                call_command(*words, stdout=output, stderr=output)
            except CommandError as exc:
                code = exc.returncode
                output.write(f"CommandError: {exc}\n")
            except SystemExit as exc:
                code = int(exc.code or 0)
        print(json.dumps([code, output.getvalue()]), flush=True)


if __name__ == "__main__":
    main()
