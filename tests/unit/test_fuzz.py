"""Whatever is sent to a worker or written into its environment, it keeps its word.

FUZZ_EXAMPLES is how many inputs each test draws; ``make fuzz`` draws many.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest
from botocore.utils import is_valid_endpoint_url
from django.test import Client, override_settings
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st

from beanstalk_dispatch import conf
from beanstalk_dispatch.client import Call, schedule
from beanstalk_dispatch.conf import SETTINGS, Config, get_config
from beanstalk_dispatch.consumers.endpoint.dispatcher import make_response
from beanstalk_dispatch.consumers.endpoint.sqsd import printable
from beanstalk_dispatch.exceptions import ConfigurationError, SchedulingError
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message, wrap
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.messages.signatures import signer
from beanstalk_dispatch.problems import checks, start_log
from beanstalk_dispatch.running.consumer import DelayedCopies
from tests import fuzzing
from tests.fuzzing import DECOYS, KEYS, SECRET, Worker
from tests.jobs import calls
from tests.runs import deliver

# A thread that another test has left behind may use it for its pauses.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the .random. module")

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))

_Test = TypeVar("_Test", bound=Callable[..., None])


def fuzz(*strategies: Any) -> Callable[[_Test], _Test]:
    """Random examples, another seed in each run; a failure prints how to repeat it."""
    limits = settings(
        max_examples=EXAMPLES,
        deadline=None,
        print_blob=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )

    def decorate(test: _Test) -> _Test:
        drawn: Any = given(*strategies)
        limited: Any = limits(drawn(test))
        return limited  # type: ignore[no-any-return]

    return decorate


@pytest.fixture(scope="module", autouse=True)
def _count() -> Iterator[None]:
    """Shown with ``pytest -s``."""
    yield
    print(f"\ninputs tried: {fuzzing.tried:,}")


# --- messages --------------------------------------------------------------------------------


def dumps(value: object) -> str:
    try:
        return json.dumps(value)
    except RecursionError:  # pragma: no cover - what is deep several times over
        reject()


def deep(inner: list[Any]) -> list[Any]:
    for _ in range(500):
        inner = [inner]
    return inner


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["\ud800", "\x00", "a\nb", "x" * 2000, 10**400, -(2**63), 2**31 - 1, 2**40])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters()), inner, max_size=4)
        | st.lists(inner, min_size=1, max_size=1).map(deep)
    ),
    max_leaves=10,
)


names = st.sampled_from([*fuzzing.TABLE, "nowhere", "os.system", "tests.jobs.record"]) | (
    st.sampled_from(DECOYS)
)
members = st.fixed_dictionaries(
    {"function": names, "args": st.just([]), "kwargs": st.just({})},
    optional={
        "v": st.just(1),
        "id": st.sampled_from(["an-id", "another"]),
        "sent_at": st.floats(0, 2e9),
        "attempt": st.integers(1, 12),
        "not_before": st.just(0) | st.floats(0, 1e12),
        "options": st.fixed_dictionaries(
            {}, optional={"timeout": st.just(5) | values, "max_retries": values, "verbose": values}
        ),
        "headers": st.dictionaries(st.text(), st.text(), max_size=2),
    },
)
MEMBERS = [
    "v", "id", "function", "args", "kwargs", "sent_at", "attempt", "not_before", "options",
    "headers", "dead_letter", "body",
]  # fmt: skip


@st.composite
def near_valid(draw: st.DrawFn) -> str:
    """A message's JSON with up to two members replaced, taken away or doubled."""
    content = draw(members)
    for name in draw(st.lists(st.sampled_from(MEMBERS), max_size=2)):
        if draw(st.booleans()):
            content[name] = draw(values)
        else:
            content.pop(name, None)
    text = dumps(content)
    if draw(st.booleans()):
        doubled = json.dumps({draw(st.sampled_from(MEMBERS)): draw(scalars)})
        text = f"{text[:-1]},{doubled[1:]}" if content else doubled
    return text


@st.composite
def dead_letters(draw: st.DrawFn) -> str:
    """A dead letter, or something like one, in others."""
    text = draw(near_valid())
    for _ in range(draw(st.integers(1, 3))):
        reason = {"attempts": draw(st.integers(1, 3) | scalars), "id": draw(st.text() | scalars)}
        text = dumps({"v": 1, "dead_letter": draw(st.just(reason) | values), "body": text})
    return text


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


plain = near_valid() | dead_letters()
texts = plain | plain.map(in_base64) | values.map(dumps) | st.text(st.characters())
bodies = texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary()


@st.composite
def altered(draw: st.DrawFn, whole: str) -> bytes:
    """``whole`` cut, changed at a place, put together with something else, or as it is."""
    body = whole.encode()
    start, end = sorted((draw(st.integers(0, len(body))), draw(st.integers(0, len(body)))))
    return draw(
        st.sampled_from(
            [body, body[:start], body[start:], body[:start] + b"x" + body[end:], body + b"}",
             body[:start] + body[end:], body + b":" + body[-43:], b" \n" + body]
        )
    )  # fmt: skip


@pytest.fixture(params=["plain", "signed", "dead-letters", "signed-dead-letters", "lease"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    kind = request.param
    more = {"DISPATCH_LEASE_CACHE": "default"} if kind == "lease" else {}
    with fuzzing.worker(
        keys="signed" in kind, dead_letter_queue="dead-letters" in kind, **more
    ) as made:
        yield made


@fuzz(bodies)
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"A" + b" " * 100_000 + b"!")
@example(b"9" * 5000)
@example(b'{"function":"record","args":[NaN,1e999],"kwargs":{}}')
@example(b'{"dead_letter":{"attempts":1},"body":"\\ud800:x"}')
def test_any_body(worker: Worker, body: bytes) -> None:
    response = worker.post(body)
    is_signing = bool(get_config().signing_keys)
    assert not (is_signing and calls)
    assert is_signing or response.status_code != 403
    dead_letters = [dead_letter.encode() for dead_letter in worker.client.bodies]
    assert response.status_code == 200 or not dead_letters
    for dead_letter in dead_letters:  # put back, signed by this worker
        worker.post(dead_letter)
        assert not (is_signing and calls)


class Poller(DelayedCopies):
    can_hide = True


@fuzz(texts, st.none() | names | st.text(st.characters()))
@example('{"function":"retry","args":[],"kwargs":{}}', None)
@example('{"function":"nowhere","args":[],"kwargs":{}}', None)
def test_any_received_text(worker: Worker, text: str, task_name: str | None) -> None:
    """By a poller, from a server whose JSON may say anything."""
    delivery = Delivery(queue="q", message_id="from-sqs", task_name=printable(task_name))
    worker.start()
    result = deliver(text, delivery, Poller())
    if result.outcome is not Outcome.RETRY:  # a poller hides it, and answers nobody
        worker.check(make_response(result))
    assert not (get_config().signing_keys and calls) or task_name == "recorder"


@fuzz(st.data())
def test_any_signed_body(worker: Worker, data: st.DataObject) -> None:
    """Whoever has a key is believed, and can still break nothing; what is altered never runs."""
    keys = data.draw(st.sampled_from([KEYS, KEYS[1:], ("another-key",)]))
    queue = data.draw(st.sampled_from(["q", "q", "another"]))
    text = data.draw(plain)
    whole = sign(text, queue=queue, keys=keys)
    if data.draw(st.booleans()):
        reason = {"attempts": data.draw(st.integers(1, 3)), "id": "an-id"}
        whole = wrap(whole, reason, queue=queue, keys=keys)
    body = data.draw(altered(whole))
    worker.post(body)
    ours = queue == "q" and set(keys) <= set(KEYS)
    if get_config().signing_keys and not (ours and body.strip() == whole.encode()):
        assert calls == []


def sign(text: str, *, queue: str, keys: Sequence[str]) -> str:
    return signer(queue, tuple(keys)).sign(text)


def test_a_signed_message_runs() -> None:
    """The properties above would hold for a worker that runs nothing."""
    with fuzzing.worker(keys=True, dead_letter_queue=True) as made:
        body = Message(function="record", args=[1]).encode(queue="q", keys=KEYS)
        assert made.post(body.encode()).status_code == 200
        assert calls == [((1,), {})]
        assert made.post(body.encode() + b"x").status_code == 403
        assert (calls, made.client.bodies) == ([], [])


def test_the_check_sees_what_it_is_for() -> None:
    with fuzzing.worker() as made, pytest.raises(fuzzing.Broken, match="secret in"):
        made.post(Message(function=SECRET).encode(queue="q").encode())


# --- what is scheduled -----------------------------------------------------------------------


class Hostile(int):
    """Cannot be compared with what JSON makes of it."""

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = None  # type: ignore[assignment]


huge = st.integers(4000, 5000).map(lambda digits: 10**digits)
objects = st.recursive(
    values
    | st.binary()
    | st.complex_numbers()
    | st.decimals()
    | st.datetimes()
    | st.uuids()
    | huge,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.builds(lambda key, item: {key: item}, st.text() | st.integers() | huge, inner)
    ),
    max_leaves=8,
)
hostile = st.integers().map(Hostile)
arguments = objects | hostile | st.lists(hostile, max_size=1)


@fuzz(
    st.lists(arguments, max_size=3) | arguments,
    st.dictionaries(st.text(), arguments, max_size=3) | arguments,
)
@example([Hostile(1)], {})
def test_any_argument_is_carried_or_refused(args: Any, kwargs: Any) -> None:
    fuzzing.tried += 1
    with fuzzing.worker(keys=True):
        task = Message(function="f", args=args, kwargs=kwargs)
        try:
            call = Call("record", args, kwargs)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("beanstalk_dispatch.client.capture", lambda *_: ["id"])
                schedule("q", call)
        except SchedulingError:
            return
        body = task.encode(queue="q", keys=KEYS)
        assert Message.decode(body, queue="q", keys=KEYS) == Message(
            function="f", args=list(args), kwargs=kwargs, id=task.id
        )


# --- headers ---------------------------------------------------------------------------------

# What gunicorn lets through in a header's value, as WSGI has it: latin-1 without controls.
header_texts = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=300)
addresses = header_texts | st.sampled_from(
    ["127.0.0.1", "::1", "::ffff:127.0.0.1", "::1%eth0", "203.0.113.9", "127.0.0.1, 203.0.113.9",
     "127.1", "0x7f000001", "2130706433", ",", "localhost", "127.0.0.1:80", "[::1]", "unix:"]
)  # fmt: skip
numbers = header_texts | st.integers().map(str) | st.sampled_from(["\xb2", "1e3", "0x1", "+1", "_"])
times = header_texts | st.sampled_from(
    ["2023-08-15T13:57:53Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "Z", "2023-W01-1Z",
     "2023-08-15T24:00:00Z", "20230815T135753Z", "2023-08-15Z", "2023-08-15T13:57:53+99:00Z"]
)  # fmt: skip
metas = st.fixed_dictionaries(
    {},
    optional={
        "REMOTE_ADDR": addresses,
        "HTTP_X_REAL_IP": addresses,
        "HTTP_X_FORWARDED_FOR": addresses,
        "HTTP_X_AWS_SQSD_MSGID": header_texts,
        "HTTP_X_AWS_SQSD_QUEUE": header_texts,
        "HTTP_X_AWS_SQSD_RECEIVE_COUNT": numbers,
        "HTTP_X_AWS_SQSD_FIRST_RECEIVED_AT": times,
        "HTTP_X_AWS_SQSD_SENT_AT": times,
        "HTTP_X_AWS_SQSD_SCHEDULED_AT": times,
        "HTTP_X_AWS_SQSD_TASKNAME": header_texts | names,
        "HTTP_X_AWS_SQSD_PATH": header_texts,
        "HTTP_X_AWS_SQSD_SENDER_ID": header_texts,
        "HTTP_X_AWS_SQSD_ATTR_NAME": header_texts,
        "CONTENT_TYPE": header_texts
        | st.sampled_from(["", "multipart/form-data", "application/x-www-form-urlencoded",
                           "text/plain; charset=nonsense", "application/json; charset=utf-16"]),
        "CONTENT_LENGTH": numbers,
        "HTTP_CONTENT_ENCODING": header_texts,
        "QUERY_STRING": header_texts,
    },
)  # fmt: skip
TRUSTED = {"127.0.0.1", "::1", "::ffff:127.0.0.1", "::1%eth0"}


@fuzz(metas, st.just(b"") | st.just(b'{"function":"record","args":[],"kwargs":{}}'))
@example({"HTTP_X_AWS_SQSD_TASKNAME": "recorder"}, b"")
@example({"HTTP_X_AWS_SQSD_TASKNAME": "recorder", "CONTENT_LENGTH": "0"}, b"{}")
def test_any_headers(worker: Worker, meta: dict[str, str], body: bytes) -> None:
    response = worker.post(body, meta)
    peers = [meta.get("REMOTE_ADDR", "127.0.0.1"), meta.get("HTTP_X_REAL_IP", "")]
    peers += meta.get("HTTP_X_FORWARDED_FOR", "").split(",")
    given = {peer.strip() for peer in peers} - {""}
    if not given <= TRUSTED and not any(peer.startswith("127.") for peer in given - TRUSTED):
        assert (response.status_code, calls, worker.client.bodies) == (403, [], [])
    if calls and get_config().signing_keys:
        assert (meta["HTTP_X_AWS_SQSD_TASKNAME"], calls[0][:3]) == ("recorder", ("run", (), {}))


@fuzz(
    st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS", "TRACE", "CONNECT", "post", "X-Y"]),
    st.sampled_from(["", "dispatcher", "dispatcher/", "dispatcher//", "..", "dispatcher/x"])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    bodies,
    header_texts,
)
def test_any_request(
    worker: Worker, method: str, path: str, body: bytes, content_type: str
) -> None:
    """Through Django's middleware and URLs."""
    worker.start()
    client = Client(raise_request_exception=True)
    response: Any = client.generic(
        method, f"/beanstalk_dispatch/{path}", body, content_type=content_type,
        headers={"X-Aws-Sqsd-Queue": "q"},
    )  # fmt: skip
    assert SECRET not in response.content.decode(errors="replace")
    if response["Content-Type"] == "application/json" and method != "HEAD":
        worker.check(response)
    else:
        assert response.status_code in {400, 404, 405}
        assert calls == []
    if method.upper() != "POST":
        assert calls == []


# --- configuration ---------------------------------------------------------------------------

VALID = {
    "worker": ["True", "off"],
    "table": ["a=tests.jobs.record b=tests.jobs.fail", '{"a": "tests.jobs.record"}'],
    "queues": [
        "a=https://sqs.eu-west-1.amazonaws.com/1/q b=arn:aws:sqs:eu-west-1:123456789012:r",
        '{"a": "http://[::1]:9/1/q"}',
    ],
    "sqs_key": [SECRET],
    "sqs_secret": [SECRET],
    "sqs_token": [SECRET],
    "sqs_region": ["eu-west-1"],
    "sqs_endpoint_url": ["http://127.0.0.1:4566", "https://vpce-1.example.com/"],
    "create_queues": ["1"],
    "message_format": ["json", "base64"],
    "task_timeout": ["90", "5m", "1.5h"],
    "safe_task": ["beanstalk_dispatch.safe_task.SafeTask"],
    "on_failure": ["redeliver", "acknowledge"],
    "execute_synchronously": ["no"],
    "on_commit": ["yes"],
    "outbox": ["off", "always", "on-failure"],
    "outbox_databases": ["default", "default other"],
    "signing_keys": [SECRET * 2, f'["{SECRET}{SECRET}", "{SECRET} {SECRET}"]'],
    "max_age": ["4d", "1h"],
    "periodic_tasks": ["a b", '["a"]'],
    "lease_cache": ["default"],
    "dead_letter_queue": ["a"],
    "send_timeout": ["10", "1.5s"],
    "warm": ["yes"],
    "tasks": ["tests.jobs", "tests.jobs tests.nothing"],
    "celery_queues": ["a", "a b"],
    "embedded_metrics": ["stdout", "udp://127.0.0.1:25888"],
    "observers": ["tests.jobs.Nothing", "tests.nowhere.Observer"],
    "results": ["default", "db"],
    "result_ttl": ["1h", "30d"],
    "result_arguments": ["yes"],
    "backlog_token": [SECRET * 2],
    "backlog_per_thread": ["1"],
    "drain_file": ["/nowhere"],
    "crash_ledger": ["/nowhere", "off"],
    "isolation": ["thread", "process", "fresh"],
    "policies": ["a.max_attempts=3 b.unique_by=x+y", '{"a": {"timeout": "5m"}}'],
    "child_memory": ["300M", "1 G"],
    "child_tasks": ["1000"],
    "max_receives": ["10"],
    "trusted_peers": ["127.0.0.0/8 ::1", '["10.0.0.0/8"]'],
}
snippets = st.sampled_from(
    ["=", " ", ",", "{", "}", "[", "]", '"', "\\ud800", "\udcff", "\ud800", "9" * 400, "://", "@",
     "a:b@", "%", "/33", "\n", "\u0663", "1e999", "NaN", "null", "0", "-", ".", "[" * 2000,
     "_FILE", "é", "\u2100", "$HOME", "arn:aws:sqs:", "http://", "\x7f"]
)  # fmt: skip


@st.composite
def settings_texts(draw: st.DrawFn, field: str) -> str:
    """A valid value with something put in, or anything."""
    text = draw(st.sampled_from(VALID[field]))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(snippets | st.text(max_size=3)) + text[place:]
    return draw(st.just(text) | st.just(text) | st.text(st.characters(exclude_characters="\0")))


def fits_environment(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def test_every_setting_is_drawn() -> None:
    assert VALID.keys() == SETTINGS.keys()


fields = st.sampled_from(list(SETTINGS))


@fuzz(fields.flatmap(lambda field: st.tuples(st.just(field), settings_texts(field))))
@example(("sqs_region", "\ud800"))
@example(("signing_keys", "a-key-of-the-tests another-of-the-tests"))
@example(("sqs_endpoint_url", "http://[::1]:9"))
def test_any_configuration(setting: tuple[str, str]) -> None:
    field, text = setting
    variable = SETTINGS[field].variable
    fuzzing.tried += 1
    with override_settings(**{variable: text}):
        resolve(field)
    if fits_environment(text):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(variable, text)
            resolve(field)


@fuzz(fields, objects)
def test_any_object_in_the_settings(field: str, value: Any) -> None:
    fuzzing.tried += 1
    with override_settings(**{SETTINGS[field].variable: value}):
        resolve(field)


@fuzz(fields, st.binary(max_size=60))
def test_any_file(field: str, content: bytes) -> None:
    fuzzing.tried += 1
    variable = f"{SETTINGS[field].variable}_FILE"
    with pytest.MonkeyPatch.context() as patch:
        read, write = os.pipe()
        os.write(write, content)
        os.close(write)
        patch.setenv(variable, f"/dev/fd/{read}")
        try:
            resolve(field)
        finally:
            os.close(read)


def resolve(field: str) -> None:
    """One Config or one ConfigurationError that names the variable; no secret anywhere."""
    log = fuzzing.Log()
    shown: list[str] = []
    conf.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start_log.logger, "handlers", [log])
        try:
            config = get_config()
        except ConfigurationError as exc:
            shown.append(str(exc))
            is_named = SETTINGS[field].variable in str(exc)
            is_alone = exc.__cause__ is exc.__context__ is None
            fuzzing.demand(is_named and is_alone, str(exc))
        else:
            shown.append(repr(config))
            assert_usable(field, config)
        start_log.log_start_line()
        shown += [str(found) for found in checks.check()]
    conf.clear_caches()
    text = "\n".join(shown + [line for line, _ in log.lines])
    assert not (SETTINGS[field].secret and SECRET in text)
    text.encode()


def assert_usable(field: str, config: Config) -> None:
    """What is accepted does not fail later."""
    for key in config.signing_keys:
        body = Message(function="f").encode(queue="q", keys=[key])
        assert Message.decode(body, queue="q", keys=config.signing_keys).function == "f"
    urls = [config.sqs_endpoint_url, *(queue.endpoint_url for queue in config.queues.values())]
    for url in filter(None, urls):
        assert "[" in url or is_valid_endpoint_url(url)
