"""Deployment files as beanstalk_eb writes them, and what it says of them."""

from __future__ import annotations

from pathlib import Path

from beanstalk_dispatch.deploying.application import Application
from beanstalk_dispatch.deploying.eb_files import bundle_files
from beanstalk_dispatch.deploying.plan import Plan
from beanstalk_dispatch.deploying.sqsd_options import options_file, policy_file
from beanstalk_dispatch.problems.eb_check import check

SHOP = Application(module="shop.wsgi")
"""A project as startproject makes it."""
WORKER_OPTIONS = options_file("shop-worker")
WEB_POLICY, WORKER_POLICY = policy_file("shop-web"), policy_file("shop-worker")
SCALING = "beanstalk/shop-worker-scaling.json"


def write_bundle(plan: Plan, root: Path) -> Path:
    for path, file in bundle_files(plan).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(file.content)
        (root / path).chmod(0o755 if file.is_executable else 0o644)
    return root


def problems_in(plan: Plan, root: Path) -> list[str]:
    return [f"{each.obj}: {each.msg}" for each in check(plan, root)]
