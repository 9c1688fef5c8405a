from __future__ import annotations

import sys
import time

import pytest

from beanstalk_dispatch.consumers.poller.metrics import metrics, prometheus_text
from beanstalk_dispatch.contrib.outbox.relay import Relay
from beanstalk_dispatch.exceptions import ConfigurationError
from tests.workers import Recording, make_worker


def test_the_figures_are_those_of_the_worker() -> None:
    worker = make_worker(Recording(), "one", "two")
    worker.counters.done, worker.counters.failed = 7, 2
    worker.counters.running, worker.counters.waiting = 3, 4
    worker.queues[1].answered_at = time.monotonic() - 50
    assert {each.name: each.value for each in metrics(worker)} == {
        "tasks_done": 7,
        "tasks_failed": 2,
        "tasks_running": 3,
        "tasks_waiting": 4,
        "tasks_stuck": 0,
        "last_poll_age_seconds": pytest.approx(50, abs=1),
    }


def test_a_worker_that_sends_from_the_outbox_shows_that() -> None:
    worker = make_worker(Recording())
    relay = worker.relay = Relay()
    relay.sent, relay.waiting, relay.oldest_seconds = 5, 2, 1.5
    figures = {each.name: each.value for each in metrics(worker)}
    assert figures["outbox_sent"] == 5
    assert figures["outbox_waiting"] == 2
    assert figures["outbox_oldest_seconds"] == 1.5


def test_prometheus_has_each_figure_with_its_meaning() -> None:
    worker = make_worker(Recording())
    lines = prometheus_text(metrics(worker)).decode().splitlines()
    for each in metrics(worker):
        name = f"beanstalk_dispatch_{each.name}" + "_total" * (each.kind == "counter")
        assert f"# HELP {name} {each.meaning}" in lines
        assert f"# TYPE {name} {each.kind}" in lines


def test_without_the_library_the_error_is_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError) as raised:
        prometheus_text(metrics(make_worker(Recording())))
    assert str(raised.value) == (
        "/metrics needs prometheus_client: pip install 'django-beanstalk-dispatch[metrics]'"
    )
