"""A clean environment for every test, and the real servers the tests talk to."""

from __future__ import annotations

import functools
import gc
import itertools
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from pkgutil import resolve_name
from socketserver import BaseRequestHandler
from types import SimpleNamespace
from typing import Any
from unittest import mock

import hypothesis
import pytest
from botocore.hooks import EventAliaser
from botocore.loaders import create_loader
from django.core.cache import caches
from moto.backends import list_of_moto_modules
from moto.server import ThreadedMotoServer
from moto.sqs.models import sqs_backends
from werkzeug.serving import WSGIRequestHandler
from xdist.scheduler import LoadScopeScheduling

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf.queue_address import dead_letter_name
from beanstalk_dispatch.dead_letters import move_task, receiving, sweep
from beanstalk_dispatch.isolation import server_process
from beanstalk_dispatch.logging import loggers
from beanstalk_dispatch.process import state
from beanstalk_dispatch.sqs.clients import Clients
from beanstalk_dispatch.sqs.timeouts import Timeouts
from tests import jobs, prepared
from tests.dead_letters import Dead
from tests.prepared import PreparedPopen
from tests.proxy import URLS, Proxy
from tests.recording_sqs import Sqs
from tests.services import NO_COVERAGE

TABLE = (
    "record=tests.jobs.record fail=tests.jobs.fail loop=tests.jobs.loop block=tests.jobs.block "
    "retry=tests.jobs.AlwaysRetry recorder=tests.jobs.Recorder flaky=tests.jobs.Flaky "
    "coroutine=tests.jobs.coroutine nap=tests.jobs.nap"
)

# integration/test_compatibility.py and test_admin.py run them
collect_ignore = ["admin", "compatibility_0_1"]

hypothesis.settings.register_profile("fast", max_examples=20)  # `make test` has 100

Environment = Callable[..., None]
_PREFIXES = ("AWS_", "BEANSTALK_", "SENTRY_")
_numbers = itertools.count()
_SHARES = re.compile(
    r"(tests/integration/test_(?:containment|gunicorn|outbox|pools|results|sentry)\.py)"
    r"::\w+(?:\[(static|stream))?"
    r"|(tests/integration/test_sentry_worker\.py::test_)(?!with_sentry_in_trouble)"
    r"|(tests/docs/test_docs\.py::test_)(?:log\b|every_log_line)"
)
"""By file, in Sentry's by the lifecycle of its spans too; the last read all modules."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def pytest_make_parametrize_id(val: object) -> str | None:
    """A message's random id must not make a test's name: pytest-xdist compares the names."""
    text = val.decode("latin-1") if isinstance(val, bytes) else val
    return "message" if isinstance(text, str) and _UUID.search(text) else None


@pytest.fixture(scope="session", autouse=True)
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for the crash ledger of each test, and of servers that serve several.

    The variables of this machine are kept from both.
    """
    directory = tmp_path_factory.mktemp("ledgers")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIXES)}
    ours = {
        "AWS_EC2_METADATA_DISABLED": "true",
        "BEANSTALK_DISPATCH_CRASH_LEDGER": str(directory / "servers"),
    }
    with mock.patch.dict(os.environ, kept | ours, clear=True):
        yield directory


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, ledgers: Path) -> Iterator[None]:
    # A test that kills a process must not be seen by the next one, or by this machine's worker.
    monkeypatch.setenv("BEANSTALK_DISPATCH_CRASH_LEDGER", str(ledgers / str(next(_numbers))))
    state.reset()
    jobs.calls.clear()
    monkeypatch.setattr(loggers, "report_unwritten", pytest.fail)
    yield
    state.reset()


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes that a test starts are not measured: a quarter of a second of CPU for each."""
    for name, value in NO_COVERAGE.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def prepared_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of isolation need not import Django and boto3."""
    shown = SimpleNamespace(Popen=PreparedPopen, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(server_process, "subprocess", shown)


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Set variables: ``env(WORKER=True)`` sets BEANSTALK_WORKER; None unsets.

    Names that start with AWS_, BEANSTALK_ or SENTRY_ are taken as they are.
    """

    def set_variables(**variables: Any) -> None:
        for name, value in variables.items():
            full = name if name.startswith(_PREFIXES) else f"BEANSTALK_{name}"
            if value is None:
                monkeypatch.delenv(full, raising=False)
            else:
                monkeypatch.setenv(full, str(value))
        conf.clear_caches()

    return set_variables


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Gives the tests to pytest-xdist's processes one by one, but for those that share a fixture.

    They stay in one process, so that their servers are started once. (pytest-xdist 3.8 has a mark
    for this, which pytest 9.2 leaves without effect.)
    """

    def _split_scope(self, nodeid: str) -> str:
        shares = _SHARES.match(nodeid)
        return str(shares.groups()) if shares else nodeid

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        """Forget what is complete; the base class would count all of it after each test."""
        super().mark_test_complete(node, item_index, duration)
        work = self.assigned_work[node]
        scope = self._split_scope(self.registered_collections[node][item_index])
        if all(work[scope].values()):
            del work[scope]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler:
    return Scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what is imported and collected, which stays until the end.

    It would visit all of that again and again.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000)
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Collect what is left once. pytest does it five times, through all that the tests imported."""
    prepared.stop()
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Integration tests are slow. Slow tests come first, in random order.

    A test of twenty seconds that starts last would keep one process busy and the others idle.
    """
    for item in items:
        if item.nodeid.startswith("tests/integration/"):
            item.add_marker("slow")
    items.sort(key=lambda item: "slow" not in item.keywords)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A fast test may ask ``sh`` or ``git`` something; a Python process takes a second of CPU."""
    start = subprocess.Popen.__init__

    def checked(self: Any, args: Any, *more: Any, **options: Any) -> None:
        if sys.executable in args:
            pytest.fail("mark a test that starts a Python process with @pytest.mark.slow")
        start(self, args, *more, **options)

    if "slow" in item.keywords:
        return (yield)
    subprocess.Popen.__init__ = checked  # type: ignore[method-assign]
    try:
        return (yield)
    finally:
        subprocess.Popen.__init__ = start  # type: ignore[method-assign]


@pytest.fixture(scope="session", autouse=True)
def _quick_botocore() -> Iterator[None]:
    """Spare each session of botocore what it would find out as the one before did.

    That is its data files (70 ms), and how its events are named (5 ms of each client).
    """
    names: dict[str, str] = {}

    class Aliaser(EventAliaser):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._alias_name_cache = names

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", functools.cache(create_loader))
        patch.setattr("botocore.session.EventAliaser", Aliaser)
        yield


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of an SQS server."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # It writes an answer's headers and body apart; the second would wait 40 ms for the first's ACK.
    WSGIRequestHandler.disable_nagle_algorithm = True
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        make_moto_quick(patch)
        leave_untraced(patch, WSGIRequestHandler)
        # A client that many tests use makes more retries than botocore allows one.
        patch.setattr("botocore.retries.quota.RetryQuota.acquire", lambda quota, amount: True)
        patch.setattr(Clients, "_make_client", shares_clients(Clients._make_client, url))
        yield url
    server.stop()


def make_moto_quick(patch: pytest.MonkeyPatch) -> None:
    """Spare it half of what it does for a request: to find again what does not change."""
    modules = list(list_of_moto_modules())
    patch.setattr("moto.backends.list_of_moto_modules", lambda: modules)
    for name in (
        "moto.core.responses.camelcase_to_underscores",
        "moto.core.responses.method_names_from_class",
        "moto.sqs.models.camelcase_to_underscores",
    ):
        patch.setattr(name, functools.cache(resolve_name(name)))


def leave_untraced(patch: pytest.MonkeyPatch, handler: type[BaseRequestHandler]) -> None:
    """Spare the threads of a server coverage, which would double what a request costs."""
    set_up = handler.setup

    def set_up_untraced(request: BaseRequestHandler) -> None:
        set_up(request)
        sys.settrace(None)

    patch.setattr(handler, "setup", set_up_untraced)


def shares_clients(make_client: Callable[..., Any], url: str) -> Callable[..., Any]:
    """Make the clients of the server at ``url`` and of proxies once: 40 ms for each of a test."""
    made: dict[object, Any] = {}

    def make(clients: Clients, region: str, endpoint_url: str | None, timeouts: Timeouts) -> Any:
        config = clients.config
        if endpoint_url not in {url, *URLS} or not config.sqs_key:
            return make_client(clients, region, endpoint_url, timeouts)
        credentials = (config.sqs_key, config.sqs_secret, config.sqs_token)
        aws = tuple(sorted(each for each in os.environ.items() if each[0].startswith("AWS_")))
        key = (os.getpid(), endpoint_url, credentials, region, timeouts, aws)
        if key not in made:
            made[key] = make_client(clients, region, endpoint_url, timeouts)
        return made[key]

    return make


@pytest.fixture
def proxy(moto: str) -> Iterator[Proxy]:
    """A server in front of moto whose answers a test can spoil."""
    with Proxy(moto) as server:
        yield server


@pytest.fixture
def queue_name() -> str:
    return f"tests-{os.getpid()}-{next(_numbers)}"


def create_queue(name: str) -> None:
    """Create a queue as ``open_queue`` does, in moto's memory. It would make four requests."""
    backend = sqs_backends["123456789012"]["eu-west-1"]
    dead_letters = backend.create_queue(dead_letter_name(name))
    redrive = {"deadLetterTargetArn": dead_letters.queue_arn, "maxReceiveCount": "10"}
    backend.create_queue(name, VisibilityTimeout="300", RedrivePolicy=json.dumps(redrive))


@pytest.fixture
def without_queue(env: Environment, moto: str, queue_name: str) -> Environment:
    """An environment with one alias, ``jobs``, on a real server, and no queue yet."""
    env(
        DISPATCH_SQS_ENDPOINT_URL=moto,
        DISPATCH_SQS_KEY="key",
        DISPATCH_SQS_SECRET="a-secret-key",
        DISPATCH_SQS_REGION="eu-west-1",
        DISPATCH_QUEUES=f"jobs={queue_name}",
        DISPATCH_CREATE_QUEUES=True,
        DISPATCH_SEND_TIMEOUT="1m",  # a busy machine ends no request
        DISPATCH_TABLE=TABLE,
    )
    return env


@pytest.fixture
def sqs_env(without_queue: Environment, queue_name: str) -> Environment:
    """The same, and the queue exists."""
    create_queue(queue_name)
    return without_queue


@pytest.fixture
def worker_env(sqs_env: Environment) -> Environment:
    sqs_env(WORKER=True)
    return sqs_env


@pytest.fixture
def lease_env(sqs_env: Environment) -> Iterator[Environment]:
    """The same, with a lease in a cache that is empty."""
    sqs_env(DISPATCH_LEASE_CACHE="default")
    caches["default"].clear()
    yield sqs_env
    caches["default"].clear()


@pytest.fixture
def sqs(sqs_env: Environment, proxy: Proxy, queue_name: str) -> Sqs:
    """SQS; the aliases ``jobs`` and ``more`` are standard queues, ``fifo`` is a FIFO queue."""
    sqs_env(
        DISPATCH_SQS_ENDPOINT_URL=proxy.url,
        DISPATCH_QUEUES=f"jobs={queue_name} more={queue_name}-more fifo={queue_name}.fifo",
        DISPATCH_CREATE_QUEUES=False,
        AWS_MAX_ATTEMPTS=1,
    )
    proxy.spoil = found = Sqs()
    return found


# --- dead letters ---


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "_WAIT_SECONDS", 0)
    monkeypatch.setattr(receiving, "_MAX_REPEATS", 2)
    monkeypatch.setattr(sweep, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(sweep, "_SLICE_SECONDS", 0.01)
    monkeypatch.setattr(move_task, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(
        "botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0
    )


@pytest.fixture
def dead(sqs_env: Environment, short_waits: None, queue_name: str) -> Dead:
    """The dead-letter queue of ``jobs``, where nothing waits for long."""
    return Dead(queue_name)


@pytest.fixture
def spoilt(sqs_env: Environment, proxy: Proxy, dead: Dead) -> Proxy:
    """A proxy in front of the server, once the queues exist."""
    assert dead.source.name
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    return proxy
