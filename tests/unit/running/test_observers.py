"""What observers may do, and what none of them can do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from django.core import checks

from beanstalk_dispatch.client import Call, schedule_function, schedule_many
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import BatchError, SendError
from beanstalk_dispatch.messages.delivery import Delivery, RunView
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.observers import Observer, Publication, observed
from beanstalk_dispatch.problems import start_log
from beanstalk_dispatch.running.definitions import dispatch_table
from beanstalk_dispatch.safe_task import SafeTask
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.testing import capture_tasks
from tests.conftest import TABLE, Environment
from tests.jobs import calls
from tests.runs import deliver, run_of

HERE = "tests.unit.running.test_observers"


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


class Watcher(Observer):
    """Writes down what it surrounds."""

    @contextmanager
    def publishing(self, publications: Sequence[Publication], queue: str) -> Iterator[None]:
        for each in publications:
            each.headers["tenant"] = queue
        error: BaseException | None = None
        try:
            yield
        except BaseException as exc:
            error = exc
            raise
        finally:
            sizes = [len(each.body) for each in publications]
            calls.append(("published", sizes, type(error).__name__))

    @contextmanager
    def attempting(self, task: SafeTask, delivery: RunView) -> Iterator[None]:
        assert delivery.message
        calls.append(("before", dict(delivery.message.headers)))
        yield
        calls.append(("after", delivery.outcome))


class Watched(SafeTask):
    observers = (Watcher(),)


class Broken(Observer):
    """Fails in each of its methods, at the start or at the end."""

    def __init__(self, *, at_end: bool) -> None:
        self.at_end = at_end

    def publishing(
        self, publications: Sequence[Publication], queue: str
    ) -> AbstractContextManager[object]:
        return self._broken()

    def delivering(self, delivery: RunView) -> AbstractContextManager[object]:
        return self._broken()

    def attempting(self, task: SafeTask, delivery: RunView) -> AbstractContextManager[object]:
        return self._broken()

    @contextmanager
    def _broken(self) -> Iterator[None]:
        if not self.at_end:
            raise OSError("no telemetry")
        yield
        raise OSError("no telemetry")


class BrokenAtStart(SafeTask):
    observers = (Broken(at_end=False), Watcher())


class BrokenAtEnd(SafeTask):
    observers = (Broken(at_end=True), Watcher())


@pytest.fixture
def watched(sqs_env: Environment) -> Environment:
    sqs_env(DISPATCH_SAFE_TASK=f"{HERE}.Watched")
    return sqs_env


def run(body: str) -> Outcome:
    return deliver(body, Delivery(queue="q")).outcome


def test_a_header_travels_from_the_one_that_publishes_to_the_one_that_attempts(
    watched: Environment, queue_name: str
) -> None:
    with capture_tasks() as tasks:
        schedule_function("jobs", "record")
    (task,) = tasks
    assert run(task.body) is Outcome.DONE
    assert calls == [
        ("published", [len(task.body)], "NoneType"),
        ("before", {"tenant": queue_name}),
        ((), {}),
        ("after", Outcome.DONE),
    ]


def test_a_batch_is_published_once(watched: Environment) -> None:
    schedule_many("jobs", [Call("record", [number]) for number in range(12)])
    ((_, sizes, error),) = calls
    assert (len(sizes), error) == (12, "NoneType")
    received = open_queue("jobs").receive(count=10, wait=0, visibility=30)
    assert {len(each.body) for each in received} <= set(sizes)


def test_a_send_that_fails_is_shown_and_raised(watched: Environment) -> None:
    watched(DISPATCH_SQS_ENDPOINT_URL="http://127.0.0.1:9", DISPATCH_CREATE_QUEUES=None,
            DISPATCH_QUEUES="jobs=arn:aws:sqs:eu-west-1:123456789012:q")  # fmt: skip
    with pytest.raises(SendError):
        schedule_function("jobs", "record")
    with pytest.raises(BatchError):
        schedule_many("jobs", [Call("record")])
    assert [error for _, _, error in calls] == ["SendError", "BatchError"]


@pytest.mark.parametrize(("name", "moment"), [("BrokenAtStart", "start"), ("BrokenAtEnd", "end")])
def test_an_observer_that_fails_changes_nothing_and_is_logged(
    sqs_env: Environment, name: str, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    sqs_env(DISPATCH_SAFE_TASK=f"{HERE}.{name}")
    with capture_tasks() as tasks:
        schedule_function("jobs", "record")
    assert run(tasks[0].body) is Outcome.DONE
    assert [call[0] for call in calls] == ["published", "before", (), "after"]
    for stage in ("publishing", "delivering", "attempting"):
        line = f"observer failed observer=Broken stage={stage} moment={moment} error=no telemetry"
        assert line in caplog.text


def test_the_default_observer_does_nothing(sqs_env: Environment) -> None:
    observer, delivery = Observer(), run_of(Message(function="f"))
    for manager in (
        observer.publishing([], "q"),
        observer.delivering(delivery),
        observer.attempting(SafeTask(), delivery),
        observer.cancelling(delivery),
    ):
        with manager as entered:
            assert entered is None


class Swallows:
    """A context manager that keeps an error from its caller, or raises it itself."""

    def __init__(self, *, reraises: bool = False) -> None:
        self.reraises = reraises

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> bool:
        if self.reraises and exc:
            raise exc
        return True


class Returns(Observer):
    """An observer that returns the same context manager for each retry."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def retrying(self, delivery: RunView) -> AbstractContextManager[object]:
        manager: AbstractContextManager[object] = self._manager
        return manager


@pytest.mark.parametrize("reraises", [True, False])
def test_an_observer_cannot_keep_an_error_from_the_caller(
    reraises: bool, caplog: pytest.LogCaptureFixture
) -> None:
    swallows: Any = Returns(Swallows(reraises=reraises))
    with pytest.raises(ValueError, match="mine"), observed([swallows], "retrying", None):
        raise ValueError("mine")
    assert caplog.text == ""


def test_observers_surround_in_their_order() -> None:
    order: list[str] = []

    @contextmanager
    def named(name: str) -> Iterator[None]:
        order.append(f"{name} in")
        yield
        order.append(f"{name} out")

    managers = [Returns(named("first")), Observer(), Returns(named("second"))]
    with observed(managers, "retrying", None):
        pass
    assert order == ["first in", "second in", "second out", "first out"]


class WatchesRetries(Observer):
    @contextmanager
    def retrying(self, delivery: RunView) -> Iterator[None]:
        calls.append(("before the copy", delivery.outcome))
        yield
        calls.append(("after the copy",))


class Repeated(SafeTask):
    observers = (WatchesRetries(),)
    max_retries = 1
    verbose = False

    def run(self) -> None:
        raise ValueError("again")


def test_the_sending_of_a_retry_is_surrounded(env: Environment) -> None:
    env(DISPATCH_TABLE=f"again={HERE}.Repeated", DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    schedule_function("jobs", "again")
    assert calls == [("before the copy", Outcome.RETRY), ("after the copy",)]
    assert Observer().retrying(run_of()).__enter__() is None


made: list[Observer] = []


class Named(Watcher):
    """An observer that BEANSTALK_DISPATCH_OBSERVERS names."""

    def __init__(self) -> None:
        made.append(self)


class NeedsArgument(Watcher):
    def __init__(self, host: str) -> None: ...


class Exits(Watcher):
    def __init__(self) -> None:
        raise SystemExit(3)


instance = Watcher()


@pytest.mark.parametrize("named", ["Watcher", "instance"])
def test_a_named_observer_watches_each_send_and_each_attempt(env: Environment, named: str) -> None:
    env(
        DISPATCH_OBSERVERS=f"{HERE}.{named}",
        DISPATCH_EXECUTE_SYNCHRONOUSLY=True,
        DISPATCH_TABLE=TABLE,
    )
    schedule_function("mail", "record")
    before, _, after, (published, sizes, error) = calls
    assert [before, after] == [("before", {"tenant": "mail"}), ("after", Outcome.DONE)]
    assert (published, len(sizes), error) == ("published", 1, "NoneType")


def test_a_named_observer_is_made_once_and_watches_besides_those_of_the_class(
    env: Environment,
) -> None:
    made.clear()
    path = f"{HERE}.Named"
    env(
        DISPATCH_OBSERVERS=f"{path} {path}",
        DISPATCH_SAFE_TASK=f"{HERE}.Watched",
        DISPATCH_TABLE=TABLE,
    )
    config = get_config()
    for name in ("record", "fail"):
        observers = dispatch_table.entry(name, config).observers
        assert list(observers) == [*Watched.observers, *made]
    assert len(made) == 1


NO_OBSERVER = [
    ("shop.nowhere.Stopwatch", "ModuleNotFoundError: No module named 'shop'"),
    ("shop/observers.Stopwatch", "ModuleNotFoundError: No module named 'shop/observers'"),
    ("stopwatch", "ImportError: stopwatch doesn't look like a module path"),
    (
        f"{HERE}.nothing",
        f'ImportError: Module "{HERE}" does not define a "nothing" attribute/class',
    ),
    (f"{HERE}.run", "TypeError: it is a function, not an Observer"),
    (f"{HERE}.Watched", "TypeError: it is a class, not an Observer"),
    (
        f"{HERE}.NeedsArgument",
        "TypeError: NeedsArgument.__init__() missing 1 required positional argument: 'host'",
    ),
    (f"{HERE}.Exits", "SystemExit: 3"),
]


@pytest.mark.parametrize(("path", "reason"), NO_OBSERVER)
def test_a_path_without_an_observer_is_reported_and_harms_no_task(
    env: Environment, caplog: pytest.LogCaptureFixture, path: str, reason: str
) -> None:
    env(
        DISPATCH_OBSERVERS=f"{path} {HERE}.Watcher",
        DISPATCH_EXECUTE_SYNCHRONOUSLY=True,
        DISPATCH_TABLE=TABLE,
    )
    schedule_function("mail", "record")
    assert ("after", Outcome.DONE) in calls
    start_log.log_observers()
    assert caplog.messages[-1] == (
        f"observer not loaded variable=BEANSTALK_DISPATCH_OBSERVERS path={path} error={reason}"
    )
    (problem,) = checks.run_checks(tags=["beanstalk_dispatch"])
    assert problem.id == "beanstalk_dispatch.W021"
    assert problem.msg == (f"BEANSTALK_DISPATCH_OBSERVERS: {path!r} watches nothing. {reason}.")
    assert problem.hint == (
        "Write the dotted path of an Observer subclass or of an instance, such as "
        "shop.observers.Stopwatch, or remove it."
    )


def test_of_a_wrong_configuration_the_start_line_says_what_is_wrong(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    env(WORKER="Ture")
    start_log.log_observers()
    assert caplog.messages == []
