"""Several worker environments of one bundle."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.deploying.eb_commands import commands
from beanstalk_dispatch.deploying.eb_files import HOOKS, bundle_files
from beanstalk_dispatch.deploying.existing import CRON, Existing, find_existing
from beanstalk_dispatch.deploying.plan import Plan, make_plan
from tests.bundles import SHOP, WEB_POLICY, problems_in, write_bundle
from tests.conftest import Environment

MAIL, WORK = (
    f"https://sqs.eu-west-1.amazonaws.com/123456789012/shop-{n}" for n in ("mail", "work")
)
SECOND = {"queue": "work", "worker": "shop-work"}


@pytest.fixture(autouse=True)
def configuration(env: Environment) -> None:
    env(DISPATCH_QUEUES=f"mail={MAIL} work={WORK}", DISPATCH_CRASH_LEDGER=None,
        DISPATCH_TABLE="night=tests.unit.deploying.test_plan.night")  # fmt: skip


def make(root: Path, **given: Any) -> Plan:
    return make_plan(get_config(), name="shop", application=SHOP, root=root, **given)


def script(plan: Plan) -> str:
    return "\n".join(commands(plan, get_config(), key=None))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The files of an environment that reads the first queue."""
    return write_bundle(make(tmp_path), tmp_path)


def test_an_empty_folder_has_no_environment(tmp_path: Path) -> None:
    assert find_existing(tmp_path, "shop-web") == Existing()
    assert make(tmp_path).is_first


def test_the_files_name_their_environments(bundle: Path) -> None:
    found = find_existing(bundle, "shop-web")
    assert found.workers == {"shop-worker": MAIL}
    assert found.cron_owner == "shop-worker"
    assert {arn.rpartition(":")[2] for arn in found.queue_arns} == {"shop-mail", "shop-work"}


def test_a_second_environment_changes_no_file_of_the_first(bundle: Path) -> None:
    first = {path: path.read_text() for path in bundle.rglob("*") if path.is_file()}
    write_bundle(make(bundle, **SECOND), bundle)
    found = {path: path.read_text() for path in bundle.rglob("*") if path.is_file()}
    assert {path.name for path in found.keys() - first.keys()} == {
        "shop-work-options.json", "shop-work-policy.json",
    }  # fmt: skip
    assert first.items() <= found.items()
    assert problems_in(make(bundle), bundle) == []
    assert problems_in(make(bundle, **SECOND), bundle) == []


def test_only_the_parts_of_the_second_environment_are_printed(bundle: Path) -> None:
    text = script(make(bundle, **SECOND))
    assert [line for line in text.splitlines() if re.match("# [a-z0-9]", line)] == [
        "# shop-web and shop-worker exist, so this is what shop-work needs besides.",
        "# 1. A role and an instance profile for each environment",
        "# 2. The environments, with a sample until they have their properties",
        "# 3. The properties, on the web environment first",
        "# 4. The deployment",
    ]
    for part in ("eb init", "eb create shop-web", "-e shop-web", "create-queue", "shop-worker "):
        assert part not in text.partition("# 1.")[2]
    assert "eb create shop-work --instance_profile shop-work --tier worker --sample" in text
    assert "file://beanstalk/shop-work-options.json" in text
    assert "BEANSTALK_DISPATCH_PERIODIC_TASKS=off" in text
    assert "BEANSTALK_DISPATCH_SIGNING_KEYS has to be that of shop-web: eb printenv" in text


def test_a_queue_that_is_new_is_created_and_the_web_environment_learns_of_it(
    tmp_path: Path, env: Environment
) -> None:
    env(DISPATCH_QUEUES=f"mail={MAIL}")
    write_bundle(make(tmp_path), tmp_path)
    env(DISPATCH_QUEUES=f"mail={MAIL} work={WORK}", DISPATCH_SIGNING_KEYS="k" * 32)
    plan = make(tmp_path, **SECOND)
    assert [queue.alias for queue in plan.new_queues] == ["work"]
    text = script(plan)
    assert "--queue-name shop-work " in text
    assert "--queue-name shop-mail " not in text
    assert "put-role-policy --role-name shop-web --policy-name beanstalk-dispatch" in text
    assert f"  --policy-document file://{WEB_POLICY}" in text
    assert "create-role --role-name shop-web" not in text
    assert "eb setenv -e shop-web" in text
    assert "eb deploy shop-web" in text
    assert "SIGNING_KEYS has to be" not in text


def test_the_periodic_tasks_belong_to_the_environment_that_cron_yaml_names(bundle: Path) -> None:
    second = make(bundle, **SECOND)
    assert (second.schedules, second.periodic_elsewhere) == ({}, ("night",))
    assert CRON not in bundle_files(second)
    assert make(bundle).schedules == {"night": "0 4 * * *"}
    (bundle / CRON).unlink()
    assert make(bundle, **SECOND).schedules == {"night": "0 4 * * *"}


def test_the_environment_of_a_fifo_queue_leaves_them_to_another(
    tmp_path: Path, env: Environment
) -> None:
    env(DISPATCH_QUEUES=f"orders={MAIL}.fifo work={WORK}")
    first = make(tmp_path)
    write_bundle(first, tmp_path)
    assert first.periodic_elsewhere == ("night",)
    assert make(tmp_path, **SECOND).schedules == {"night": "0 4 * * *"}


def test_a_queue_that_another_environment_reads_is_no_warning(bundle: Path) -> None:
    assert "does not read 'work'" in "".join(make(bundle).warnings())
    assert list(make(bundle, **SECOND).warnings()) == []
    write_bundle(make(bundle, **SECOND), bundle)
    assert list(make(bundle).warnings()) == []


@pytest.mark.parametrize(("value", "is_kept"), [("off", False), ("OFF", False), ("night", True)])
def test_the_hook_removes_cron_yaml_where_another_environment_runs_it(
    bundle: Path, value: str, is_kept: bool
) -> None:
    variables = {"PATH": "/usr/bin:/bin", "BEANSTALK_DISPATCH_PERIODIC_TASKS": value}
    subprocess.run([bundle / HOOKS[0]], cwd=bundle, env=variables, check=True)
    assert (bundle / CRON).exists() is is_kept
