"""No secret is in what Sentry, or Django's page or mail of an error, keeps of a failed call."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pprint import pformat
from secrets import token_hex
from typing import Any

import pytest
import sentry_sdk
from django.core.management import call_command
from django.core.management.base import CommandError
from django.core.signing import Signer
from django.test import RequestFactory, override_settings
from django.views.debug import ExceptionReporter
from sentry_sdk.transport import Transport
from sentry_sdk.utils import event_from_exception

from beanstalk_dispatch import conf, views
from beanstalk_dispatch.client import Call, schedule, schedule_function, schedule_many
from beanstalk_dispatch.conf.secret_casts import Secret
from beanstalk_dispatch.exceptions import ConfigurationError, SchedulingError, UnknownFunction
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message, wrap
from beanstalk_dispatch.safe_task import SafeTask
from beanstalk_dispatch.sqs.opening import open_queue
from tests import jobs
from tests.conftest import TABLE, Environment
from tests.proxy import Proxy, error
from tests.runs import deliver

KEY, OLD_KEY, SECRET, TOKEN = (token_hex(16) for _ in range(4))
"""Not in this file, whose lines are kept, too."""
NOBODY = "http://127.0.0.1:9"
"""An address where nothing listens."""


class Memory(Transport):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(None)
        self.sent: list[str] = []

    def capture_envelope(self, envelope: Any) -> None:
        self.sent += [item.get_bytes().decode() for item in envelope.items]


def kept(exc: BaseException) -> str:
    """What is kept of an exception by a Sentry without our settings, and by Django.

    Without the frame of the test, which has the secrets as locals.
    """
    assert exc.__traceback__ is not None
    exc = exc.with_traceback(exc.__traceback__.tb_next)
    transport = Memory()
    client = sentry_sdk.Client(
        "http://public@127.0.0.1:9/1",
        transport=transport,
        default_integrations=False,
        auto_enabling_integrations=False,
    )
    event, hint = event_from_exception(exc, client_options=client.options)
    client.capture_event(event, hint)
    client.close()
    (sent,) = transport.sent
    assert '"vars"' in sent
    pages = [sent]
    for debug in (True, False):
        with override_settings(DEBUG=debug):
            reporter = ExceptionReporter(None, type(exc), exc, exc.__traceback__)
            pages += [reporter.get_traceback_text(), reporter.get_traceback_html()]
    return "\n".join(pages)


def is_shown(page: str) -> bool:
    return any(secret in page for secret in (KEY, OLD_KEY, SECRET, TOKEN))


def schedule_a_set() -> None:
    schedule_function("jobs", "record", {1, 2})


def schedule_too_much() -> None:
    schedule_function("jobs", "record", "x" * 2**20)


def schedule_to_no_queue() -> None:
    schedule_function("nowhere", "record")


def schedule_no_function() -> None:
    schedule_function("jobs", "nothing")


def schedule_wrong_options() -> None:
    schedule_function("jobs", SafeTask(jobs.record, max_retries="3"))


def schedule_wrong_delay() -> None:
    schedule("jobs", Call("record", delay="soon"))  # type: ignore[arg-type]


def schedule_wrong_deduplication() -> None:
    schedule("jobs", Call("record", deduplication_id="once"))


def schedule_wrong_arguments() -> None:
    schedule("jobs", Call("record", "one"))


def schedule_one() -> None:
    schedule_function("jobs", "record", 1)


def schedule_many_with_a_set() -> None:
    schedule_many("jobs", [Call("record", [1]), Call("record", [{2}])])


def schedule_several() -> None:
    schedule_many("jobs", [Call("record", [number]) for number in range(3)])


def receive() -> None:
    open_queue("jobs").receive(count=1, wait=0, visibility=30)


UNREACHABLE = {
    "DISPATCH_SQS_ENDPOINT_URL": NOBODY,
    "DISPATCH_QUEUES": "jobs=https://sqs.eu-west-1.amazonaws.com/123456789012/q",
}
MISTAKES: list[tuple[Callable[[], None], Mapping[str, str]]] = [
    (schedule_a_set, {}),
    (schedule_many_with_a_set, {}),
    (schedule_too_much, {}),
    (schedule_to_no_queue, {}),
    (schedule_no_function, {}),
    (schedule_wrong_options, {}),
    (schedule_wrong_delay, {}),
    (schedule_wrong_deduplication, {}),
    (schedule_wrong_arguments, {}),
    (schedule_one, UNREACHABLE),
    (schedule_several, UNREACHABLE),
    (receive, UNREACHABLE),
    (schedule_one, UNREACHABLE | {"DISPATCH_QUEUES": "jobs=q"}),
    (schedule_one, {"AWS_PROFILE": "nobody"}),
    (schedule_one, {"AWS_ENDPOINT_URL": "no address", "DISPATCH_SQS_ENDPOINT_URL": ""}),
    (schedule_one, {"DISPATCH_SIGNING_KEYS": f'["{KEY}", 5]'}),
    (schedule_one, {"DISPATCH_SQS_TOKEN": f"{TOKEN}\n{TOKEN}"}),
    (schedule_one, {"DISPATCH_TASK_TIMEOUT": "soon"}),
]


@pytest.fixture
def secrets(sqs_env: Environment, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    sqs_env(DISPATCH_SIGNING_KEYS=f"{KEY} {OLD_KEY}", DISPATCH_SQS_SECRET=SECRET,
            DISPATCH_SQS_TOKEN=TOKEN, DISPATCH_TABLE=TABLE,
            DISPATCH_BACKLOG_TOKEN=TOKEN)  # fmt: skip
    return sqs_env


@pytest.fixture
def secrets_of_aws(secrets: Environment) -> Environment:
    """The credentials are boto3's own, which are plain strings."""
    secrets(DISPATCH_SQS_KEY=None, DISPATCH_SQS_SECRET=None, DISPATCH_SQS_TOKEN=None,
            AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY=SECRET,
            AWS_SESSION_TOKEN=TOKEN)  # fmt: skip
    return secrets


@pytest.mark.filterwarnings("ignore:a test sends a message to SQS")
@pytest.mark.parametrize("source", ["secrets", "secrets_of_aws"])
@pytest.mark.parametrize(("mistake", "variables"), MISTAKES)
def test_a_mistake_shows_no_secret(
    request: pytest.FixtureRequest,
    source: str,
    mistake: Callable[[], None],
    variables: Mapping[str, str],
) -> None:
    env: Environment = request.getfixturevalue(source)
    env(**variables)
    with pytest.raises((SchedulingError, UnknownFunction, ConfigurationError)) as caught:
        mistake()
    shown = kept(caught.value)
    assert not is_shown(shown)
    assert mistake.__name__ in shown


def test_an_answer_that_repeats_the_request_shows_no_secret(
    secrets: Environment, proxy: Proxy
) -> None:
    """AWS's answer to a request whose signature is wrong contains the session token."""
    secrets(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    open_queue("jobs")
    answer = f"SignatureDoesNotMatch\nx-amz-security-token:{TOKEN}"
    proxy.spoil = lambda operation, request: error(403, "AccessDenied", answer)
    with pytest.raises(SchedulingError) as caught:
        schedule_one()
    shown = kept(caught.value)
    assert "AccessDenied" in shown
    assert not is_shown(shown)


def test_a_failed_send_does_not_show_the_message(secrets: Environment) -> None:
    secrets(**UNREACHABLE)
    argument = token_hex(16)
    call = Call("record", [argument])
    with pytest.raises(SchedulingError) as caught:
        schedule("jobs", call)
    assert argument not in kept(caught.value)
    with pytest.raises(SchedulingError) as caught:
        schedule_many("jobs", [call])
    assert argument not in kept(caught.value)


def test_the_error_of_a_caller_keeps_its_traceback(secrets: Environment) -> None:
    secrets(**UNREACHABLE)
    with pytest.raises(SchedulingError):
        try:
            raise KeyError("the caller's own")
        except KeyError as exc:
            own = exc
            schedule_one()
    assert own.__traceback__ is not None


WRONG_VALUES: list[Mapping[str, str | None]] = [
    {},
    {"DISPATCH_TASK_TIMEOUT": "soon"},
    {"DISPATCH_SIGNING_KEYS": f"{KEY},short"},
    {"DISPATCH_SIGNING_KEYS": f'["{KEY}", '},
    {"DISPATCH_SIGNING_KEYS": f'{{"a": "{KEY}"}}'},
    {"DISPATCH_SIGNING_KEYS": None, "DISPATCH_SIGNING_KEY": KEY},
    {"DISPATCH_SIGNING_KEYS": None, "DISPATCH_SIGNING_KEYS_FILE": KEY},
    {"DISPATCH_SQS_SECRET": f"'{SECRET}'"},
    {"DISPATCH_SQS_SECRET": f"{SECRET}\\"},
    {"DISPATCH_SQS_SECRET": None, "DISPATCH_SQS_SECERT": SECRET},
    {"DISPATCH_SQS_ENDPOINT_URL": f"http://user:{SECRET}@127.0.0.1:9"},
    {"DISPATCH_QUEUES": f"jobs=https://user:{SECRET}@sqs.eu-west-1.amazonaws.com/1/q"},
]
COMMANDS = [
    ["check"],
    *(["beanstalk_config", f"--format={form}"] for form in ("table", "json", "eb", "terraform")),
    ["beanstalk_doctor"],
    ["beanstalk_doctor", "--json", "--aws"],
    ["beanstalk_eb", "--check"],
    ["beanstalk_dead_letters", "list"],
    ["beanstalk_schedule", "jobs", "record"],
]


@pytest.mark.django_db(databases="__all__")
@pytest.mark.parametrize("variables", WRONG_VALUES, ids=range(len(WRONG_VALUES)))
def test_no_command_and_no_line_of_the_log_shows_a_secret(
    secrets: Environment,
    variables: Mapping[str, str | None],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    secrets(**UNREACHABLE)
    secrets(**variables)
    caplog.set_level("DEBUG", "beanstalk_dispatch")
    for name, *arguments in COMMANDS:
        try:
            call_command(name, *arguments)
        except (CommandError, ConfigurationError, SystemExit) as exc:  # checks run before
            print(exc)
    shown = "".join(capsys.readouterr()) + caplog.text
    assert len(shown) > 1000
    assert not is_shown(shown)


def show_the_configuration() -> None:
    config = conf.get_config()
    raise ValueError(f"{config!r} {config.signing_keys} {config.sqs_secret!r}")


def exit_with_the_keys() -> None:
    raise SystemExit(conf.get_config().signing_keys)


TASKS = [
    show_the_configuration,
    exit_with_the_keys,
    *(mistake for mistake, variables in MISTAKES if not variables),
]
WRONG_BODIES = [
    "not a message",
    Message(function="record").encode(queue="q"),
    Message(function="record").encode(queue="q", keys=[token_hex(16)]),
    Message(function="nothing").encode(queue="q", keys=[KEY]),
    wrap("{}", {"attempts": 1, "id": "i"}, queue="q", keys=[OLD_KEY]),
]


def test_a_mistake_of_a_task_or_a_sender_leaves_no_secret_behind(
    secrets: Environment,
    queue_name: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    rf: RequestFactory,
) -> None:
    """Neither in a dead letter nor in the log, the backlog or the table of queues."""
    table = " ".join(f"{task.__name__}={task.__module__}.{task.__name__}" for task in TASKS)
    secrets(WORKER=True, DISPATCH_TABLE=table, DISPATCH_DEAD_LETTER_QUEUE="dead",
            DISPATCH_QUEUES=f"jobs={queue_name} dead={queue_name}-dead")  # fmt: skip
    caplog.set_level("DEBUG", "beanstalk_dispatch")
    bodies = [
        Message(function=task.__name__, options={"max_retries": 0}).encode(queue="q", keys=[KEY])
        for task in TASKS
    ]
    with ThreadPoolExecutor(1) as tasks:  # in the main thread, SystemExit is the server's
        for body in (*bodies, *WRONG_BODIES):
            tasks.submit(deliver, body, Delivery(queue="q", message_id="from-sqs")).result()
    letters: list[str] = []
    while received := open_queue("dead").receive(count=10, wait=0, visibility=300):
        letters += [each.body for each in received]
    # What no key has signed is left to SQS's own redrive policy.
    assert len(letters) == len(TASKS) + 1
    found = [views.backlog(rf.get("/", HTTP_AUTHORIZATION=f"Bearer {shown}")).content.decode()
             for shown in (TOKEN, KEY, "")]  # fmt: skip
    assert '"queues"' in found[0]
    call_command("beanstalk_queues")
    shown = "\n".join([*letters, *found, caplog.text, *capsys.readouterr()])
    assert "********" in shown
    assert not is_shown(shown)


@dataclass
class Holder:
    keys: tuple[str, ...]


def test_a_secret_is_hidden_by_its_repr_only() -> None:
    secret = Secret("hush")
    shown = [repr(secret), pformat({"a": (secret,)}), pformat(Holder((secret,))), f"{secret!r}"]
    assert not any("hush" in each for each in shown)
    assert repr(secret) == "'********'"
    assert [str(secret), f"{secret}", secret.encode(), json.dumps(secret)] == [
        "hush", "hush", b"hush", '"hush"',
    ]  # fmt: skip
    assert Signer(key=secret).sign("x") == Signer(key="hush").sign("x")


def test_each_secret_of_the_configuration_is_hidden(secrets: Environment) -> None:
    config = conf.get_config()
    for name, setting in conf.SETTINGS.items():
        value = getattr(config, name)
        each = value if isinstance(value, tuple) else (value,)
        assert not setting.secret or all(isinstance(item, Secret) for item in each)
    assert config.task_timeout == timedelta(minutes=2)
