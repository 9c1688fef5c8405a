"""``manage.py beanstalk_config`` shows the resolved configuration, or writes it for a tier."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from django.core.management.base import CommandError

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf.variables import WORKER
from beanstalk_dispatch.deploying import overview
from beanstalk_dispatch.deploying.properties import (
    MAX_BYTES,
    Property,
    move_to_files,
    problems_on_the_way,
    properties_in_effect,
    total_size,
)
from beanstalk_dispatch.deploying.property_formats import FORMATS, Export
from beanstalk_dispatch.management.printing import PrintingCommand

_SHOWN: Final = ("table", "json")


def secret(argument: str) -> tuple[str, str]:
    """Read ``VARIABLE=ARN`` as an argparse type."""
    name, _, arn = argument.partition("=")
    if not arn.startswith("arn:"):
        raise argparse.ArgumentTypeError(f"expected VARIABLE=ARN, not {argument!r}")
    return name, arn


class Command(PrintingCommand):
    """The command that shows the configuration of this process. It needs no network."""

    help = "Show the resolved configuration, or write it in the form of another tool."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of docs/elastic-beanstalk.md."""
        # fmt: off
        add = parser.add_argument
        add("--format", choices=[*_SHOWN, *FORMATS], default="table",
            help="table and json show the configuration; the others write it for a tier "
                 "(default %(default)s)")
        add("--tier", choices=["web", "worker"],
            help="write the properties of this tier (default: the tier of this process)")
        add("--environment", default="ENVIRONMENT", metavar="NAME",
            help="the name of the Elastic Beanstalk environment, for --format eb")
        add("--show-secrets", action="store_true",
            help="write secrets as plain text; otherwise they are left out")
        add("--secret", type=secret, action="append", default=[], metavar="VARIABLE=ARN",
            help="deliver this secret from Secrets Manager or Parameter Store")
        add("--files", type=Path, metavar="DIRECTORY",
            help="write the largest values to files there until the others fit into "
                 f"{MAX_BYTES:,} bytes; the path is that in the bundle, such as config/beanstalk")
        # fmt: on

    def handle(self, *args: Any, **options: Any) -> None:
        """Write the configuration to stdout, and warnings to stderr."""
        worker = conf.values_of(conf.CORE)[WORKER]
        if options["tier"]:
            worker = options["tier"] == "worker"
        problems = overview.problems(overview.variables())
        if options["format"] == "json":
            self.stdout.write(json.dumps(overview.as_dict(worker=worker), indent=2))
        elif options["format"] == "table":
            self.stdout.write("\n".join(overview.as_table(worker=worker)))
        elif not problems:
            self._export_properties(properties_in_effect(worker=worker), options)
        if problems:
            lines = "".join(f"\n  - {problem}" for problem in problems)
            raise CommandError(f"the configuration is wrong:{lines}")

    def _export_properties(self, properties: list[Property], options: dict[str, Any]) -> None:
        by_arn = dict(options["secret"])
        if unknown := by_arn.keys() - {each.name for each in properties if each.is_secret}:
            raise CommandError(f"--secret: {min(unknown)} is not a secret that is set here")
        hidden = [] if options["show_secrets"] else [e for e in properties if e.is_secret]
        left_out = [each.name for each in hidden if each.name not in by_arn]
        sent = [e for e in properties if e.name not in by_arn and e not in hidden]
        sent = self._move_into_files(sent, by_arn, options["files"])
        export = Export(
            properties=sent, secrets=by_arn, left_out=left_out, environment=options["environment"]
        )
        self.stdout.write(FORMATS[options["format"]](export))
        for warning in _find_warnings(sent, left_out):
            self.stderr.write(f"warning: {warning}")

    def _move_into_files(
        self, properties: list[Property], by_arn: dict[str, str], directory: Path | None
    ) -> list[Property]:
        """Return the properties, of which ``--files`` has moved some into files."""
        limit = MAX_BYTES - total_size(Property(name=n, value=arn) for n, arn in by_arn.items())
        files: dict[str, str] = {}
        if directory:
            properties, files = move_to_files(properties, directory.as_posix(), limit=limit)
        if (size := total_size(properties)) > limit:
            raise CommandError(
                f"the properties have {size:,} bytes, but {limit:,} are left of the {MAX_BYTES:,} "
                "that Elastic Beanstalk accepts; add --files DIRECTORY for the largest values, and "
                "--secret VARIABLE=ARN for secrets"
            )
        try:
            for path, content in files.items():
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_text(content)
                self.stderr.write(f"written: {path}")
        except OSError as exc:
            raise CommandError(f"--files: {exc}; name a directory of the bundle") from exc
        return properties


def _find_warnings(sent: list[Property], left_out: list[str]) -> Iterator[str]:
    yield from (problem for each in sent for problem in problems_on_the_way(each))
    for name in left_out:
        yield f"{name} is a secret and left out; add --secret {name}=ARN, or --show-secrets"
    yield from overview.warnings()
