"""Look for known vulnerabilities in the packages of an environment, with pip-audit.

    python .ci/audit.py FOLDER

The exit code is 1 if there is one. Packages that could not be looked up, as without a network, are
reported loudly and fail nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

OURS = "django-beanstalk-dispatch"


def audit(folder: Path) -> list[dict[str, Any]]:
    """What pip-audit says of each package; empty if it could ask nobody."""
    (packages,) = folder.glob("lib/python*/site-packages")
    run = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off",
         f"--path={packages}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        found: list[dict[str, Any]] = json.loads(run.stdout)["dependencies"]
    except ValueError:
        print(run.stderr.strip(), file=sys.stderr)
        return []
    return [package for package in found if package["name"] != OURS]


def main() -> int:
    packages = audit(Path(sys.argv[1]))
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    vulnerable = [package for package in packages if package.get("vulns")]
    if not packages or len(unknown) == len(packages):
        print("!!! NOT AUDITED: the list of vulnerabilities could not be reached !!!")
        return 0
    if unknown:
        print(f"!!! NOT AUDITED: {', '.join(sorted(unknown))} !!!")
    for package in vulnerable:
        for vulnerability in package["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
            print(
                f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}"
            )
    print(f"{len(packages) - len(unknown)} packages audited, {len(vulnerable)} vulnerable")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
