from __future__ import annotations

import io
import json
import os
import signal
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from beanstalk_dispatch.dead_letters.queue import DeadLetterQueue
from beanstalk_dispatch.dead_letters.sweep import SweepReport
from beanstalk_dispatch.dead_letters.terminal import ProgressLine
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment
from tests.dead_letters import Dead, failing
from tests.proxy import Proxy


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def call(*arguments: str) -> str:
    out = io.StringIO()
    call_command("beanstalk_dead_letters", *arguments, stdout=out)
    return out.getvalue()


# --- list and show ---------------------------------------------------------------------------


def test_a_list_shows_every_dead_letter_queue(dead: Dead) -> None:
    dead.sent_many(3)
    assert f"{dead.name}: sample of 3 of about 3" in call("list")
    (found,) = json.loads(call("list", "--json", dead.name))
    assert found["groups"][0]["count"] == 3


def test_a_list_can_be_filtered_by_the_alias_of_a_queue(dead: Dead) -> None:
    dead.sent_many(2)
    dead.sent(number=5, queue="elsewhere")
    assert "2 match in a sample of 3" in call("list", "--queue", "jobs")
    assert "1 match in a sample of 3" in call("list", "--queue", "elsewhere", "--since", "1h")


def test_one_letter_is_shown(dead: Dead) -> None:
    dead.sent(number=7)
    assert "args       [7]" in call("show", "fail-7")
    assert json.loads(call("show", "fail-7", dead.name, "--json"))["args"] == [7]
    with pytest.raises(CommandError, match="no letter with the id 'other' was found"):
        call("show", "other")


def test_a_letter_that_sqs_has_moved_has_no_reason(dead: Dead) -> None:
    dead.moved(id="moved-1")
    dead.sent(number=7)
    moved, sent = call("show", "moved-1"), call("show", "fail-7")
    assert "outcome    unknown" in moved
    assert "Traceback" not in moved
    assert "outcome    failed" in sent
    assert "Traceback" in sent
    assert "receives   " in moved


def test_a_source_queue_is_not_looked_at(dead: Dead) -> None:
    dead.source.send("{}", {})
    with pytest.raises(CommandError, match=f"its dead-letter queue is {dead.name}"):
        call("list", "jobs")
    (received,) = dead.source.receive(count=1, wait=0, visibility=30)
    assert received.receive_count == 1


def test_a_missing_permission_is_one_sentence(dead: Dead, spoilt: Proxy) -> None:
    spoilt.spoil = failing("ReceiveMessage", status=403)
    with pytest.raises(CommandError, match="the permission sqs:ReceiveMessage is missing"):
        call("list")


def test_a_dead_letter_queue_that_cannot_be_found_out_is_an_error(
    dead: Dead, spoilt: Proxy
) -> None:
    spoilt.spoil = failing("GetQueueAttributes", status=403)
    with pytest.raises(CommandError, match="the permission sqs:GetQueueAttributes is missing"):
        call("list")


def test_a_queue_has_to_be_named_if_none_or_several_are_known(
    dead: Dead, sqs_env: Environment
) -> None:
    assert dead.source.name
    sqs_env(DISPATCH_QUEUES=f"jobs={dead.source_name} more={dead.source_name}-more")
    for action in ("discard", "purge"):
        with pytest.raises(CommandError) as caught:
            call(action)
        assert str(caught.value).startswith(
            f"there are several dead-letter queues; type: beanstalk_dead_letters {action} "
            f"QUEUE, where QUEUE is one of {dead.source_name}-dead-letter, "
        )
    sqs_env(DISPATCH_QUEUES=None)
    with pytest.raises(CommandError, match="no dead-letter queue is known.*; name a queue$"):
        call("list")


@pytest.fixture
def other(dead: Dead, sqs_env: Environment) -> Dead:
    """A second queue with a dead-letter queue, behind the alias ``more``."""
    name = f"{dead.source_name}-more"
    sqs_env(DISPATCH_QUEUES=f"jobs={dead.source_name} more={name}")
    open_queue("more")
    return Dead(name)


def test_a_letter_is_found_whichever_queue_it_is_on(dead: Dead, other: Dead) -> None:
    other.sent(number=7)
    assert f"queue      {other.source_name}" in call("show", "fail-7")
    assert call("discard", other.name, "--confirm", other.name).startswith("1 discarded")


def test_letters_of_every_queue_go_back_to_their_own(dead: Dead, other: Dead) -> None:
    dead.sent_many(2)
    other.sent_many(3)
    assert call("redrive", "--limit", "4") == "4 redriven, 4 looked at, 0 stay\n"
    assert call("redrive") == "1 redriven, 1 looked at, 0 stay\n"
    assert (len(dead.ids(dead.source)), len(other.ids(open_queue("more")))) == (2, 3)


def test_letters_with_an_id_are_looked_for_until_all_are_found(dead: Dead, other: Dead) -> None:
    dead.sent(number=1)
    other.sent(number=2)
    other.sent(number=3)
    assert call("redrive", "--id", "fail-1") == "1 redriven, 1 looked at, 0 stay\n"
    with pytest.raises(CommandError, match="not every letter"):
        call("redrive", "--id", "fail-2", "--id", "fail-9")
    report = json.loads(call("redrive", "--id", "fail-3", "--json"))
    assert (report["done"], report["not_found"], report["about"]) == (1, [], 1)


def test_a_queue_that_does_not_answer_ends_the_run(
    dead: Dead, other: Dead, sqs_env: Environment, proxy: Proxy
) -> None:
    dead.sent(number=1)
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    proxy.spoil = failing("DeleteMessageBatch", status=403)
    with pytest.raises(CommandError, match="fail-1 could not be deleted.*; run the command again"):
        call("redrive")


def test_a_filter_may_be_given_several_times(dead: Dead) -> None:
    for function in ("fail", "loop", "nap"):
        dead.sent(function)
    text = call("list", "--function", "fail", "--function", "nap")
    assert "2 match in a sample of 3" in text
    assert "1 of 3" in text


# --- redrive ---------------------------------------------------------------------------------


def test_letters_are_redriven(dead: Dead) -> None:
    dead.sent_many(3)
    dead.moved(id="moved")
    assert call("redrive", "--dry-run", "--function", "fail") == (
        "3 would be redriven, 4 looked at, 0 stay\n"
    )
    assert call("redrive", "--function", "fail") == "3 redriven, 4 looked at, 0 stay\n"
    assert (dead.ids(), len(dead.ids(dead.source))) == (["moved"], 3)
    report = json.loads(call("redrive", "--id", "moved", "--reset-attempts", "--json"))
    assert (report["done"], report["is_complete"]) == (1, True)


def test_a_run_that_is_not_complete_is_an_error(dead: Dead) -> None:
    dead.sent(queue="elsewhere")
    with pytest.raises(CommandError, match="not every letter that matches"):
        call("redrive")


def test_a_run_that_ends_early_is_an_error(dead: Dead, spoilt: Proxy) -> None:
    dead.sent_many(1)
    spoilt.spoil = failing("SendMessage", status=403)
    with pytest.raises(CommandError, match="sqs:SendMessage is missing; run the command again"):
        call("redrive")


def test_ctrl_c_ends_a_run_and_leaves_nothing_hidden(
    dead: Dead, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead.sent_many(12)
    press_ctrl_c(monkeypatch, after=2)
    with pytest.raises(CommandError, match="interrupted") as caught:
        call("redrive")
    assert caught.value.returncode == 130
    assert (len(dead.ids()), len(dead.ids(dead.source))) == (10, 2)


def press_ctrl_c(monkeypatch: pytest.MonkeyPatch, *, after: int, times: int = 1) -> None:
    def draw(self: ProgressLine, report: SweepReport) -> None:
        if report.done == after:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ProgressLine, "draw", draw)


def test_a_second_ctrl_c_ends_the_command_at_once(
    dead: Dead, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead.sent_many(12)
    press_ctrl_c(monkeypatch, after=2, times=2)
    with pytest.raises(CommandError, match="interrupted twice") as caught:
        call("redrive")
    assert caught.value.returncode == 130
    assert (len(dead.ids()), len(dead.ids(dead.source))) == (10, 2)


# --- discard and purge -----------------------------------------------------------------------


def typing(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda prompt: answer)


def test_the_name_is_typed_before_letters_are_deleted(
    dead: Dead, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dead.sent_many(3)
    typing(monkeypatch, "yes")
    with pytest.raises(CommandError, match="nothing was deleted: 'yes' is not"):
        call("discard")
    assert len(dead.ids()) == 3
    typing(monkeypatch, f" {dead.name}\n")
    assert call("discard", "--limit", "1") == "1 discarded, 1 looked at, 0 stay\n"
    assert "cannot be undone" in capsys.readouterr().err
    assert "takes up to a minute" in call("purge")
    assert dead.ids() == []


@pytest.mark.parametrize("action", ["discard", "purge"])
def test_without_a_terminal_the_name_is_an_option(dead: Dead, action: str) -> None:
    dead.sent_many(2)
    with pytest.raises(CommandError, match=f"confirm it with --confirm {dead.name}"):
        call(action)
    with pytest.raises(CommandError, match="nothing was deleted"):
        call(action, "--confirm", "jobs")
    assert len(dead.ids()) == 2
    assert json.loads(call(action, "--confirm", dead.name, "--json"))
    assert dead.ids() == []


def test_a_dry_run_of_a_discard_needs_no_name(dead: Dead) -> None:
    dead.sent_many(2)
    assert call("discard", "--dry-run") == "2 would be discarded, 2 looked at, 0 stay\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--sample", "0"], "expected an integer from 1 to 100000, not '0'"),
        (["list", "--sample", "x"], "expected an integer from 1 to 100000, not 'x'"),
        (["list", "--hide", "5"], "expected an integer from 30 to 43200"),
        (["redrive", "--rate", "0"], "expected letters per second"),
        (["redrive", "--rate", "x"], "expected letters per second"),
        (["list", "--since", "x"], "neither an age"),
    ],
)
def test_a_wrong_option_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call(*arguments)


def test_options_reach_the_run(dead: Dead, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def redrive(self: DeadLetterQueue, filters: Any, options: Any, **more: Any) -> Any:
        seen.update(more, filters=filters, options=options)
        yield SweepReport()

    monkeypatch.setattr(DeadLetterQueue, "redrive", redrive)
    call("redrive", "--rate", "2.5", "--hide", "60", "--to", "jobs", "--exception", "KeyError")
    assert (seen["options"].rate, seen["options"].hide, seen["to"]) == (2.5, 60, "jobs")
    assert (seen["filters"].exceptions, seen["reset_attempts"]) == ({"KeyError"}, False)
    assert open_queue("jobs").name
