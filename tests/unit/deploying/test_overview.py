from __future__ import annotations

import json
import re

from beanstalk_dispatch import conf
from beanstalk_dispatch.contrib.sentry.variables import SENTRY
from beanstalk_dispatch.deploying import overview
from tests.conftest import Environment

KEY = "0123456789abcdef"
URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/shop-mail"


def table() -> dict[str, str]:
    """The lines, by their first word."""
    lines = "\n".join(overview.as_table(worker=True)).splitlines()
    return {line.split()[0]: line for line in lines if line}


def test_the_table_shows_each_variable_with_its_source(env: Environment) -> None:
    env(DISPATCH_TABLE="a=tests.jobs.record", DISPATCH_QUEUES=f"mail={URL} work=shop-work",
        DISPATCH_TASK_TIMEOUT="4m", WORKER=True)  # fmt: skip
    lines = table()
    assert lines.keys() >= {s.variable for s in (*conf.CORE.settings, *SENTRY.settings)}
    assert lines["BEANSTALK_DISPATCH_TASK_TIMEOUT"].split()[1:] == ["environment", "4m"]
    assert lines["BEANSTALK_DISPATCH_MAX_AGE"].split()[1:] == ["default", "none"]
    assert lines["BEANSTALK_DISPATCH_TABLE"].split()[1:] == ["environment", "see", "below"]
    assert re.split(r"\s{2,}", lines["a"]) == [
        "a", "240 s (BEANSTALK_DISPATCH_TASK_TIMEOUT)", "left to SQS (default)",
        "tests.jobs.record",
    ]  # fmt: skip
    assert lines["mail"].split() == ["mail", "eu-west-1", URL]
    assert lines["work"].endswith("  boto3's own  shop-work (looked up by name)")
    env(AWS_DEFAULT_REGION="us-west-2")
    assert table()["work"].split()[1] == "us-west-2"
    env(DISPATCH_SQS_REGION="eu-north-1")
    queues = overview.as_dict(worker=True)["queues"]
    assert [each["region"] for each in queues] == ["eu-west-1", "eu-north-1"]


def test_a_task_that_cannot_run_is_shown_with_the_reason(env: Environment) -> None:
    env(DISPATCH_TABLE="a=tests.jobs.NotATask")
    assert table()["a"].endswith(
        "tests.jobs.NotATask: Requested task is not a SafeTask subclass: a"
    )


def test_a_time_limit_of_a_property_is_not_known(env: Environment) -> None:
    env(DISPATCH_TABLE="a=tests.unit.deploying.test_listed_tasks.Decided")
    assert "- (a property of the class" in table()["a"]


def test_no_secret_is_shown(env: Environment) -> None:
    env(DISPATCH_SIGNING_KEYS=KEY, DISPATCH_SQS_KEY="hushkey", DISPATCH_SQS_SECRET="hushsecret",
        SENTRY_DSN="https://hushdsn@o1.ingest.sentry.io/1")  # fmt: skip
    shown = "\n".join(overview.as_table(worker=True)) + json.dumps(overview.as_dict(worker=True))
    assert KEY not in shown
    assert "hush" not in shown
    assert shown.count(overview.MASK) == 8


def test_what_is_wrong_is_said_beside_its_variable(env: Environment) -> None:
    env(WORKER="Ture", DISPATCH_MAX_AGE="1h", DISPATCH_TABLE_FILE="/nowhere/table")
    found = overview.as_dict(worker=False)
    wrong = {each["name"]: each["problem"] for each in found["variables"] if each["problem"]}
    assert wrong == {
        "BEANSTALK_WORKER": "BEANSTALK_WORKER: 'Ture' is not a boolean; write True or False",
        "BEANSTALK_DISPATCH_TABLE": "BEANSTALK_DISPATCH_TABLE_FILE: cannot read '/nowhere/table': "
        "No such file or directory",
    }
    assert len(found["problems"]) == 3
    assert found["problems"][2].startswith("BEANSTALK_DISPATCH_MAX_AGE is set without")
    assert found["tasks"] == []
    assert sum(line.startswith("problem: ") for line in overview.as_table(worker=False)) == 3


def test_what_is_not_meant_for_elastic_beanstalk_is_a_warning(env: Environment) -> None:
    env(DISPATCH_TABEL="x", DISPATCH_XYZ="x", DISPATCH_ON_COMMIT="", DISPATCH_CREATE_QUEUES=True,
        DISPATCH_EXECUTE_SYNCHRONOUSLY=True,
        DISPATCH_SQS_ENDPOINT_URL="http://127.0.0.1:5000")  # fmt: skip
    assert list(overview.warnings()) == [
        (
            "BEANSTALK_DISPATCH_TABEL is set, but beanstalk_dispatch has no variable of that name; "
            "did you mean BEANSTALK_DISPATCH_TABLE?"
        ),
        "BEANSTALK_DISPATCH_XYZ is set, but beanstalk_dispatch has no variable of that name",
        (
            "BEANSTALK_DISPATCH_ON_COMMIT is empty, which counts as not set; "
            "'eb setenv BEANSTALK_DISPATCH_ON_COMMIT=' removes the property"
        ),
        "BEANSTALK_DISPATCH_CREATE_QUEUES is for local use; remove it on Elastic Beanstalk",
        "BEANSTALK_DISPATCH_EXECUTE_SYNCHRONOUSLY is for local use; remove it on Elastic Beanstalk",
        "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL is an address of this machine",
    ]


def test_properties_that_do_not_fit_are_a_warning(env: Environment) -> None:
    env(DISPATCH_CRASH_LEDGER=None)
    assert list(overview.size_warning(worker=True)) == []
    env(DISPATCH_PERIODIC_TASKS="a" * 5000)
    (warning,) = overview.size_warning(worker=False)
    assert warning.startswith(
        "the properties have 5,034 bytes, but Elastic Beanstalk accepts 4,096"
    )
    assert "warning: the properties have" in "\n".join(overview.as_table(worker=False))
