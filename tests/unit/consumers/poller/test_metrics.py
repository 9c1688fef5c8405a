from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.consumers.poller.metrics import FIGURES, prometheus_text
from beanstalk_dispatch.contrib.outbox.relay import Relay
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import OUTCOMES, Outcome
from beanstalk_dispatch.running.definitions import dispatch_table
from beanstalk_dispatch.running.running_tasks import RUNNING
from tests.conftest import Environment
from tests.runs import deliver
from tests.workers import Recording, make_worker

Labels = frozenset[tuple[str, str]]
SELECTOR = re.compile(r"(beanstalk_dispatch_\w+)(?:\{(\w+)(=~?)\"([^\"]*)\"\})?")


def samples(text: bytes) -> dict[tuple[str, Labels], float]:
    """The values that Prometheus reads, without the prefix of their names."""
    return {
        (each.name.removeprefix("beanstalk_dispatch_"), frozenset(each.labels.items())): each.value
        for family in text_string_to_metric_families(text.decode())
        for each in family.samples
    }


def labelled(name: str, **labels: str) -> tuple[str, Labels]:
    return name, frozenset(labels.items())


@pytest.fixture
def counting(worker_env: Environment) -> Iterator[Environment]:
    """A worker with a probe server, whose tasks are counted."""
    worker_env(
        DISPATCH_TABLE="record=tests.jobs.record fail=tests.jobs.fail flaky=tests.jobs.Flaky"
    )
    FIGURES.start()
    yield worker_env
    FIGURES.forget()
    RUNNING.forget()


def run(function: str, receive_count: int = 1, **members: Any) -> None:
    body = Message(function=function, **members).encode(queue="q")
    deliver(body, Delivery(queue="q", receive_count=receive_count))


def test_the_figures_are_those_of_the_worker() -> None:
    worker = make_worker(Recording(), "one", "two")
    worker.counters.running, worker.counters.waiting = 3, 4
    worker.queues[1].unanswered_since = time.monotonic() - 50
    found = samples(prometheus_text(worker))
    assert found[labelled("tasks_running")] == 3
    assert found[labelled("tasks_waiting")] == 4
    assert found[labelled("tasks_stuck")] == 0
    assert found[labelled("unanswered_seconds")] == pytest.approx(50, abs=1)


def test_a_worker_that_sends_from_the_outbox_shows_that() -> None:
    worker = make_worker(Recording())
    relay = worker.relay = Relay()
    relay.sent, relay.waiting, relay.oldest_seconds = 5, 2, 1.5
    found = samples(prometheus_text(worker))
    assert found[labelled("outbox_sent_total")] == 5
    assert found[labelled("outbox_waiting")] == 2
    assert found[labelled("outbox_oldest_seconds")] == 1.5


def test_tasks_are_counted_by_function_and_outcome(counting: Environment) -> None:
    run("record", sent_at=time.time() - 20)
    run("record", receive_count=3, sent_at=time.time() - 20)
    run("fail")
    run("of a stranger")
    RUNNING.cuts["q", "fail"] += 2
    first = samples(prometheus_text(make_worker(Recording())))
    assert first[labelled("tasks_cut_total", function="fail")] == 0
    found = samples(prometheus_text(make_worker(Recording())))
    count = "deliveries_total"
    assert found[labelled(count, function="record", outcome="done")] == 2
    assert found[labelled(count, function="fail", outcome="failed")] == 1
    assert found[labelled(count, function="unlisted", outcome="unknown-function")] == 1
    # Also those that have not happened: an increase from nothing is none for Prometheus.
    assert found[labelled(count, function="flaky", outcome="timed-out")] == 0
    assert found[labelled("tasks_cut_total", function="fail")] == 2
    assert found[labelled("tasks_cut_total", function="record")] == 0
    assert found[labelled("task_duration_seconds_count", function="record")] == 2
    assert labelled("task_duration_seconds_count", function="unlisted") not in found
    delays = "task_delay_seconds"
    assert found[labelled(f"{delays}_sum", function="record")] == pytest.approx(20, abs=1)
    assert found[labelled(f"{delays}_bucket", function="record", le="10.0")] == 0
    assert found[labelled(f"{delays}_bucket", function="record", le="30.0")] == 1
    assert found[labelled("task_attempts_bucket", function="record", le="1.0")] == 1
    assert found[labelled("task_attempts_bucket", function="record", le="+Inf")] == 2


def test_each_selector_of_the_alert_rules_finds_a_metric(counting: Environment) -> None:
    run("record", sent_at=time.time())
    run("fail", sent_at=time.time())
    worker = make_worker(Recording())
    worker.relay = Relay()
    found = samples(prometheus_text(worker))
    package = resources.files("beanstalk_dispatch.deploying")
    rules = yaml.safe_load(package.joinpath("templates", "prometheus-rules.yaml").read_text())
    (group,) = rules["groups"]
    failures = {str(each) for each in Outcome if OUTCOMES[each].is_failure}
    assert set(SELECTOR.findall(group["rules"][0]["expr"])[0][3].split("|")) == failures - {"cut"}
    for rule in group["rules"]:
        assert rule.keys() == {"alert", "expr", "for", "annotations"}
        selectors = SELECTOR.findall(rule["expr"])
        assert selectors
        for metric, label, matches, value in selectors:
            name = metric.removeprefix("beanstalk_dispatch_")
            fits = re.compile(value if matches == "=~" else re.escape(value)).fullmatch
            assert [
                labels
                for each, labels in found
                if each == name and (not label or fits(dict(labels)[label]))
            ], rule["alert"]


def test_no_task_waits_for_the_imports_of_a_scrape(
    counting: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import may take a minute, and each task that ends needs the lock of the figures."""
    counting(DISPATCH_TASKS="tests.jobs")
    held, listed_names = [], dispatch_table.listed_names

    def note_lock(config: Config) -> Sequence[str]:
        held.append(FIGURES.lock.locked())
        return listed_names(config)

    monkeypatch.setattr(dispatch_table, "listed_names", note_lock)
    assert b"tests.jobs" in prometheus_text(make_worker(Recording()))
    assert held == [False]


def test_without_the_library_the_error_is_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError) as raised:
        prometheus_text(make_worker(Recording()))
    assert str(raised.value) == (
        "/metrics needs prometheus_client: pip install 'django-beanstalk-dispatch[metrics]'"
    )
