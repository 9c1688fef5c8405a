"""Write the bill of materials of an environment, as CycloneDX JSON.

    python .ci/sbom.py FOLDER FILE

It lists this package, with its version, and all that it depends on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

OURS = "django-beanstalk-dispatch"


def main() -> None:
    folder, file = map(Path, sys.argv[1:])
    (packages,) = folder.glob("lib/python*/site-packages")
    (ours,) = Distribution.discover(name=OURS, path=[str(packages)])
    run = subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject=pyproject.toml",
         "--mc-type=library", "--output-reproducible", folder / "bin" / "python"],
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    bill = json.loads(run.stdout)
    bill["metadata"]["component"]["version"] = ours.version  # dynamic, and so not in pyproject.toml
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(bill, indent=2) + "\n")
    print(f"{file}: {OURS} {ours.version} and {len(bill['components'])} packages")


if __name__ == "__main__":
    main()
