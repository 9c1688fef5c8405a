from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from django.core.cache import caches
from django.core.management import call_command
from django.test import override_settings
from redis.client import Monitor

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.contrib.results import Status, get_result
from beanstalk_dispatch.exceptions import (
    AlreadyDone,
    AlreadyRunning,
    ConfigurationError,
    LeaseUnavailable,
    SendError,
)
from beanstalk_dispatch.messages import unique_key
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.queues.running import what_runs
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.running.leases import held_leases, worker_entry
from beanstalk_dispatch.running.leases.lease import Lease
from beanstalk_dispatch.running.leases.slots import Slot
from beanstalk_dispatch.running.running_tasks import RUNNING
from tests import services
from tests.conftest import Environment
from tests.jobs import calls
from tests.runs import deliver
from tests.services import Service, until


@pytest.fixture(scope="module")
def valkey() -> Iterator[Service]:
    with (server := services.valkey()):
        yield server


@pytest.fixture(scope="module")
def memcached() -> Iterator[int]:
    with services.memcached() as port:
        yield port  # pragma: no cover - not on every machine


def valkey_settings(server: Service) -> dict[str, Any]:
    return {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{server.port}",
        "OPTIONS": {"socket_timeout": 0.5},
    }


@pytest.fixture
def in_valkey(valkey: Service) -> Iterator[None]:
    with override_settings(CACHES={"leases": valkey_settings(valkey)}):
        yield


@pytest.fixture(params=["valkey", "memcached", "database"])
def cache(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "valkey":
        settings = valkey_settings(request.getfixturevalue("valkey"))
    elif request.param == "memcached":
        backend = "django.core.cache.backends.memcached.PyMemcacheCache"
        port = request.getfixturevalue("memcached")
        settings = {"BACKEND": backend, "LOCATION": f"127.0.0.1:{port}"}  # pragma: no cover
    else:
        request.getfixturevalue("db")
        settings = {
            "BACKEND": "django.core.cache.backends.db.DatabaseCache",
            "LOCATION": "leases",
        }
    with override_settings(CACHES={"leases": settings}):
        if request.param == "database":
            call_command("createcachetable", verbosity=0)
        yield


def new(message: Message, *, time_limit: float = 60) -> Lease:
    return Lease("leases", message, queue="q", time_limit=time_limit)


def taken(message: Message, **options: Any) -> Lease:
    made = new(message, **options)
    made.take()
    return made


def test_only_one_holds_a_lease(cache: None) -> None:
    message = Message(function="f")
    began = time.monotonic()
    held = taken(message)
    with pytest.raises(AlreadyRunning) as caught:
        new(message).take()
    passed = time.monotonic() - began
    assert 59 - passed <= float(caught.value.retry_after or 0) <= 60
    held.give_up()
    taken(message)


def test_what_is_done_is_never_taken_again(cache: None) -> None:
    message = Message(function="f")
    taken(message).done()
    for attempt in (1, 2, 99):
        with pytest.raises(AlreadyDone):
            new(Message(function="f", id=message.id, attempt=attempt)).take()


def test_what_was_handed_on_is_for_later_attempts(cache: None) -> None:
    message = Message(function="f", attempt=2)
    taken(message).handed_on()
    for attempt in (1, 2):
        with pytest.raises(AlreadyDone):
            new(Message(function="f", id=message.id, attempt=attempt)).take()
    taken(Message(function="f", id=message.id, attempt=3)).done()


def test_a_lease_expires(in_valkey: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_leases, "LEASE_SECONDS", 1)
    message = Message(function="f")
    lost = taken(message)
    time.sleep(1.1)
    monkeypatch.undo()
    held = taken(message)
    lost.give_up()  # too late: it is somebody else's
    with pytest.raises(AlreadyRunning):
        new(message).take()
    held.give_up()
    taken(message)


def test_a_lease_that_is_renewed_does_not_expire(
    cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_leases, "LEASE_SECONDS", 3)  # a database cache counts in whole seconds
    monkeypatch.setattr(held_leases, "RENEW_AFTER", 0.9)
    message = Message(function="f")
    held = taken(message)
    for _ in range(4):
        time.sleep(1)
        assert held.renew()
    with pytest.raises(AlreadyRunning):
        new(message).take()


def test_a_thread_renews_what_this_process_holds(
    valkey: Service, in_valkey: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_leases, "RENEW_AFTER", 0.2)
    monkeypatch.setattr(held_leases, "CHECK_SECONDS", 0.1)
    message = Message(function="f")
    held = taken(message)
    first = held._expires
    caches["leases"].touch(held.key, 20)
    until(lambda: held._expires > first)
    assert redis.Redis(port=valkey.port).ttl(caches["leases"].make_key(held.key)) > 20
    with pytest.raises(AlreadyRunning):
        new(message).take()
    held.give_up()
    taken(message)


def test_only_the_owner_gives_it_up(in_valkey: None) -> None:
    message = Message(function="f")
    held, other = taken(message), new(message)
    other._expires = held._expires
    other.give_up()
    with pytest.raises(AlreadyRunning):
        new(message).take()


def test_one_of_many_threads_gets_it(in_valkey: None) -> None:
    message = Message(function="f")
    barrier = threading.Barrier(20)

    def take(number: int) -> bool:
        barrier.wait()
        try:
            new(message).take()
        except AlreadyRunning:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(take, range(20))) == 1


def test_only_the_same_task_of_the_same_queue_is_over(cache: None) -> None:
    taken(Message(function="f", id="x")).done()
    with pytest.raises(AlreadyDone):
        new(Message(function="f", id="x")).take()
    taken(Message(function="other", id="x"))
    Lease("leases", Message(function="f", id="x"), queue="other", time_limit=60).take()


def test_any_id_makes_a_key(cache: None) -> None:
    taken(Message(function="f", id="ä b\ud800" * 60)).done()


def test_what_runs_is_read_from_any_shared_cache(
    cache: None, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(DISPATCH_LEASE_CACHE="leases")
    monkeypatch.setattr(worker_entry, "KEPT_SECONDS", 4)
    entries = [
        worker_entry._Entry(
            "leases", {"token": name, "machine": name, "process_id": 7, "started_at": 0.0}
        )
        for name in ("one", "two")
    ]
    task = RUNNING.task(Message(function="f", id="runs"), Delivery(queue="q"), get_config())
    with task:
        for entry in (*entries, *entries):
            entry.write(lambda: [("clean_up", 4e9)])
    found = what_runs()
    assert [each.machine for each in found.workers] == ["one", "two"]
    assert [each.id for each in found.tasks] == ["runs", "runs"]
    assert [each.name for each in found.next_runs] == ["clean_up"]
    entries[0].delete()
    assert [each.machine for each in what_runs().workers] == ["two"]
    until(lambda: what_runs().workers == [])  # as after a kill


@pytest.mark.parametrize("written", [b"no-pickle", 5])
def test_what_somebody_else_wrote_to_the_cache_runs_nothing(
    valkey: Service, in_valkey: None, written: object
) -> None:
    message = Message(function="f")
    held = taken(message)
    caches["leases"].set(held.key, written)
    with pytest.raises(LeaseUnavailable, match="Error of cache 'leases'"):
        new(message).take()


def test_without_its_cache_nothing_runs(valkey: Service, in_valkey: None) -> None:
    with (
        valkey.paused(),
        pytest.raises(LeaseUnavailable, match="TimeoutError of cache 'leases'"),
    ):
        new(Message(function="f")).take()


def test_a_cache_that_comes_back_learns_the_outcome(valkey: Service, in_valkey: None) -> None:
    message = Message(function="f")
    held = taken(message)
    with ThreadPoolExecutor(1) as pool:
        with valkey.paused():
            done = pool.submit(held.done)
            time.sleep(0.7)  # the first try has failed
        done.result()
    with pytest.raises(AlreadyDone):
        new(message).take()


def test_a_cache_that_stays_away_is_told_to_the_log(
    valkey: Service, in_valkey: None, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(held_leases, "_PAUSE", 0.01)
    held = taken(Message(function="f", id="the-id"))
    with valkey.paused():
        held.give_up()
    assert "lease not updated id=the-id cache=leases expires_in=5" in caplog.text


# --- in execution ---


@pytest.fixture
def table(env: Environment, in_valkey: None) -> Environment:
    calls.clear()
    env(
        DISPATCH_TABLE="record=tests.jobs.record fail=tests.jobs.fail flaky=tests.jobs.Flaky "
        "own=tests.jobs.OwnProcess interrupt=tests.jobs.interrupt hooked=tests.jobs.Hooked",
        DISPATCH_LEASE_CACHE="leases",
    )
    return env


def run(message: Message, **options: Any) -> Result:
    return deliver(message.encode(queue="q"), Delivery(queue="q"), **options)


def test_a_duplicate_of_a_finished_task_is_acknowledged_and_does_not_run(
    table: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    message = Message(function="record", args=[1])
    with caplog.at_level(logging.INFO):
        assert run(message).outcome is Outcome.DONE
        result = run(message)
    assert (result.outcome, result.is_acknowledged) == (Outcome.DUPLICATE, True)
    assert calls == [((1,), {})]
    assert "outcome=duplicate" in caplog.text


def test_a_failed_task_may_run_again(table: Environment) -> None:
    message = Message(function="fail")
    assert run(message).outcome is Outcome.FAILED
    assert run(message).outcome is Outcome.FAILED


def test_an_attempt_that_was_handed_on_does_not_run_again(table: Environment) -> None:
    copies: list[Message] = []

    class Keeper(DelayedCopies):
        def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
            copies.append(message)

    keeper = Keeper()
    message = Message(function="flaky")
    assert run(message, consumer=keeper).outcome is Outcome.RETRY
    assert run(message, consumer=keeper).outcome is Outcome.DUPLICATE
    assert len(copies) == 1
    assert run(copies[0], consumer=keeper).outcome is Outcome.RETRY
    assert run(copies[1], consumer=keeper).outcome is Outcome.DONE
    assert run(copies[0], consumer=keeper).outcome is Outcome.DUPLICATE
    assert calls == [("flaky", 1), ("flaky", 2), ("flaky", 3)]


def test_a_message_that_is_only_hidden_runs_again(table: Environment) -> None:
    body = Message(function="flaky").encode(queue="q.fifo")
    hider = DelayedCopies()
    hider.can_hide = True
    outcomes = [
        deliver(body, Delivery(queue="q.fifo", receive_count=count), hider).outcome
        for count in (1, 2, 3, 4)
    ]
    assert outcomes == [Outcome.RETRY, Outcome.RETRY, Outcome.DONE, Outcome.DUPLICATE]


def test_a_task_is_done_when_its_run_is_whatever_its_hooks_take(
    table: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = Message(function="hooked")
    monkeypatch.setattr("tests.jobs.Hooked.look", lambda: run(message).outcome)
    assert run(message).outcome is Outcome.DONE
    assert calls == [("run",), ("on_success", Outcome.DUPLICATE)]


def test_with_a_process_of_ones_own_a_task_is_done_when_that_is(
    table: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[Outcome] = []
    message = Message(function="own", args=["look"])
    monkeypatch.setattr(
        "tests.jobs.OwnProcess.after", lambda: outcomes.append(run(message).outcome)
    )
    assert run(message).outcome is Outcome.DONE
    assert outcomes == [Outcome.RUNNING]
    assert run(message).outcome is Outcome.DUPLICATE


def test_what_is_handed_on_after_all_is_not_done(in_valkey: None) -> None:
    held = taken(Message(function="f", id="after-all"))
    held.done()
    held.handed_on()
    taken(Message(function="f", id="after-all", attempt=2))
    with pytest.raises(AlreadyDone):
        taken(Message(function="f", id="after-all", attempt=1))


def test_a_task_without_a_limit_has_a_lease_that_ends(in_valkey: None) -> None:
    held = new(Message(function="f"), time_limit=float("inf"))
    assert held._seconds == pytest.approx(12 * 3600, abs=120)


def test_what_a_silent_cache_has_taken_runs_as_soon_as_it_answers(
    valkey: Service, table: Environment
) -> None:
    """Its answer was lost, and it did as it was asked when it continued."""
    assert run(Message(function="record")).outcome is Outcome.DONE  # which connects
    message = Message(function="record")
    with valkey.paused():
        assert run(message).outcome is Outcome.UNAVAILABLE
    assert run(message).outcome is Outcome.DONE
    assert run(message).outcome is Outcome.DUPLICATE


def test_a_cache_whose_library_is_missing_is_a_configuration_error(table: Environment) -> None:
    with (
        override_settings(CACHES={"leases": {"BACKEND": "tests.nowhere.Cache"}}),
        pytest.raises(ConfigurationError, match=r"LEASE_CACHE: cache 'leases': .*nowhere"),
    ):
        run(Message(function="record"))


def test_a_running_message_does_not_run_beside_itself(table: Environment) -> None:
    message = Message(function="record")
    taken(message)
    result = run(message)
    assert (result.outcome, result.is_acknowledged) == (Outcome.RUNNING, False)
    assert result.retry_after == pytest.approx(60, abs=2)
    assert calls == []


def test_an_interrupted_task_frees_its_lease(table: Environment) -> None:
    message = Message(function="interrupt")
    with pytest.raises(KeyboardInterrupt):
        run(message)
    with pytest.raises(KeyboardInterrupt):
        run(message)


def test_a_process_of_the_projects_own_that_fails_frees_its_lease(table: Environment) -> None:
    message = Message(function="own", args=["raise"])
    assert run(message).outcome is Outcome.FAILED
    assert run(message).outcome is Outcome.FAILED


def test_a_task_runs_without_a_lease_in_the_calling_process(table: Environment) -> None:
    table(DISPATCH_LEASE_CACHE="nowhere", DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    assert run(Message(function="record")).outcome is Outcome.DONE


def test_an_unknown_cache_runs_nothing(table: Environment) -> None:
    table(DISPATCH_LEASE_CACHE="nowhere")
    with pytest.raises(ConfigurationError, match=r"BEANSTALK_DISPATCH_LEASE_CACHE: .*nowhere"):
        run(Message(function="record"))
    assert calls == []


def test_without_an_answer_of_the_cache_the_message_is_kept(
    valkey: Service, table: Environment
) -> None:
    with valkey.paused():
        result = run(Message(function="record"))
    assert (result.outcome, result.is_acknowledged) == (Outcome.UNAVAILABLE, False)
    assert calls == []


def test_200_deliveries_of_20_messages_run_20_times(table: Environment) -> None:
    messages = [Message(function="record", args=[n]) for n in range(20)]
    with ThreadPoolExecutor(15) as pool:
        outcomes = [r.outcome for r in pool.map(run, messages * 10)]
    assert sorted(args for args, _ in calls) == [(n,) for n in range(20)]
    assert outcomes.count(Outcome.DONE) == 20
    assert set(outcomes) <= {Outcome.DONE, Outcome.DUPLICATE, Outcome.RUNNING}


# --- round trips -----------------------------------------------------------------------------


def requests_of(port: int, action: Callable[[], object]) -> list[str]:
    """The requests that Valkey gets while the action runs, without those of its own scripts."""
    with redis.Redis(port=port) as client, Monitor(client.connection_pool) as monitor:  # type: ignore[no-untyped-call]
        client.echo("begin")
        action()
        client.echo("end")
        commands = (each["command"] for each in monitor.listen() if each["client_type"] != "lua")
        until_end = itertools.takewhile(lambda each: each != "ECHO end", commands)
        seen = itertools.dropwhile(lambda each: each != "ECHO begin", until_end)
        return [each.split()[0] for each in seen][1:]


@pytest.mark.parametrize(
    ("policies", "unique", "requests"),
    [
        (None, {}, ["EVALSHA"] * 2),
        (None, {"key": "one", "for": 60}, ["EVALSHA"] * 3),  # its key is freed
        ("record.limit=2", {}, ["EVALSHA", "EVALSHA", "SET", "EVALSHA", "EVALSHA"]),
    ],
)
def test_a_task_with_its_result_makes_two_requests(
    valkey: Service,
    table: Environment,
    policies: str | None,
    unique: dict[str, Any],
    requests: list[str],
) -> None:
    table(DISPATCH_RESULTS="leases", DISPATCH_POLICIES=policies)
    warm, message = (Message(function="record", args=[n], unique=unique) for n in range(2))
    if unique:
        assert unique_key.claim(message, get_config()) is None
    assert caches["leases"].get("warm") is None  # which connects in this context
    run(warm)  # which loads the scripts
    assert requests_of(valkey.port, lambda: run(message)) == requests
    result = get_result(message.id)
    assert (result.status, result.attempts) == (Status.SUCCESSFUL, 1)
    again = requests_of(valkey.port, lambda: run(message))
    assert again == ["EVALSHA"] * (1 + bool(unique))
    assert calls == [((0,), {}), ((1,), {})]


# --- a cache that loses its entries ----------------------------------------------------------


def flush(server: Service) -> None:
    with redis.Redis(port=server.port) as client:
        client.flushall()


def restart(server: Service) -> None:
    """Without persistence, it has lost its scripts, too."""
    server.__exit__(None, None, None)
    server.__enter__()


def evict(server: Service) -> None:
    """Write newer entries until the server has evicted those that it had."""
    with redis.Redis(port=server.port) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 500_000)
        before = client.keys("*beanstalk*")
        numbers = itertools.count()
        while client.exists(*before):
            client.set(f"page-{next(numbers)}", "x" * 20_000)
        client.config_set("maxmemory", 0)


@pytest.mark.parametrize("lose", [flush, restart, evict])
def test_a_cache_that_loses_its_entries_forgets_who_runs_and_frees_nobodys(
    table: Environment, valkey: Service, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, lose: Callable[[Service], None],
) -> None:  # fmt: skip
    name = lose.__name__
    message = Message(function="record", unique={"key": name, "for": 60})
    other = Message(function="record", unique=message.unique)

    def all_taken(by: Message) -> tuple[Lease, Slot]:
        assert unique_key.claim(by, get_config()) is None
        slot = Slot("leases", name, limit=1, time_limit=60)
        assert slot.take()
        return taken(message), slot

    first = all_taken(by=message)
    assert unique_key.claim(other, get_config()) == message.id
    lose(valkey)
    second = all_taken(by=other)  # so two run at a time, and a second message is sent
    monkeypatch.setattr(held_leases, "RENEW_AFTER", 0)
    for each in first:
        assert each.renew()
        each.give_up()
    assert {line.partition(" cache=")[2] for line in caplog.messages if " lost " in line} == {
        "leases: the task may run twice", "leases: more than its limit may run",
    }  # fmt: skip
    unique_key.free(message, get_config())
    assert unique_key.claim(message, get_config()) == other.id
    with pytest.raises(AlreadyRunning):
        taken(message)
    assert not Slot("leases", name, limit=1, time_limit=60).take()
    for each in second:
        assert each.renew()
        each.give_up()
    assert all_taken(by=other)


def test_a_cache_that_is_full_runs_nothing(table: Environment, valkey: Service) -> None:
    """With ``noeviction``, which loses no entry."""
    with redis.Redis(port=valkey.port) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        result = run(Message(function="record"))
        client.config_set("maxmemory", 0)
    assert (result.outcome, result.reason) == (
        Outcome.UNAVAILABLE, "OutOfMemoryError of cache 'leases'",
    )  # fmt: skip
    assert run(Message(function="record")).outcome is Outcome.DONE


# --- messages that wait for a lease --------------------------------------------------------------


class Copies(DelayedCopies):
    """A consumer that keeps the copies that it is to send."""

    def __init__(self) -> None:
        self.sent: list[tuple[Message, float]] = []
        self.fails = False

    def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
        if self.fails:
            raise SendError("no queue")
        self.sent.append((message, delay))


def receive(message: Message, count: int, consumer: Copies, queue: str = "q") -> Result:
    delivery = Delivery(queue=queue, receive_count=count)
    return deliver(message.encode(queue=queue), delivery, consumer)


def test_from_the_third_receive_on_a_delayed_copy_waits_for_the_lease(table: Environment) -> None:
    """An orphan of another machine lasts for a minute, and ten receives for twenty seconds."""
    consumer, message = Copies(), Message(function="record")
    held = taken(message)
    outcomes = [receive(message, count, consumer).outcome for count in (1, 2)]
    assert outcomes == [Outcome.RUNNING] * 2
    result = receive(message, 3, consumer)
    assert (result.outcome, result.is_acknowledged) == (Outcome.DEFERRED, True)
    assert result.reason == "the same message is running; the message waits for 60 s"
    ((copy, delay),) = consumer.sent
    assert (copy.id, copy.attempt) == (message.id, 1)
    assert delay == pytest.approx(60, abs=2)
    held.give_up()
    assert receive(copy, 1, consumer).outcome is Outcome.DONE
    assert receive(message, 4, consumer).outcome is Outcome.DUPLICATE


def test_a_copy_waits_for_a_cache_that_does_not_answer(valkey: Service, table: Environment) -> None:
    consumer, message = Copies(), Message(function="record")
    with valkey.paused():
        result = receive(message, 3, consumer)
    assert (result.outcome, result.is_acknowledged) == (Outcome.DEFERRED, True)
    assert result.reason == "TimeoutError of cache 'leases'; the message waits for 30 s"
    assert [(copy.id, delay) for copy, delay in consumer.sent] == [(message.id, 30)]


def test_what_cannot_be_sent_again_is_only_delivered_again(table: Environment) -> None:
    consumer, message = Copies(), Message(function="record")
    consumer.fails = True
    taken(message)
    result = receive(message, 3, consumer)
    assert (result.outcome, result.is_acknowledged) == (Outcome.RUNNING, False)


@pytest.mark.parametrize(("queue", "can_hide"), [("q.fifo", False), ("q", True)])
def test_where_a_copy_cannot_or_need_not_wait_none_is_sent(
    table: Environment, queue: str, can_hide: bool
) -> None:
    consumer, message = Copies(), Message(function="record")
    consumer.can_hide = can_hide
    Lease("leases", message, queue=queue, time_limit=60).take()
    assert receive(message, 9, consumer, queue).outcome is Outcome.RUNNING
    assert consumer.sent == []
