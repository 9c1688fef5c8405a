from __future__ import annotations

from contextlib import closing

import pytest

from beanstalk_dispatch.dead_letters.receiving import HeldMessages
from tests.dead_letters import Dead, failing, receive_all
from tests.proxy import Proxy


def test_a_look_hides_letters_and_then_makes_them_visible_again(dead: Dead) -> None:
    dead.sent_many(12)
    with closing(HeldMessages(dead.queue)) as held:
        assert len(held.receive()) + len(held.receive()) == 12
        assert receive_all(dead.queue) == []
        assert held.receive() == []
        assert held.is_over
    assert held.still_hidden == 0
    assert len(dead.ids()) == 12


def test_a_settled_letter_is_not_released(dead: Dead) -> None:
    dead.sent_many(2)
    with closing(HeldMessages(dead.queue)) as held:
        kept, _ = held.receive()
        held.settle(kept)
    assert len(receive_all(dead.queue)) == 1


def test_letters_that_come_again_are_not_new_and_end_the_look(dead: Dead) -> None:
    dead.sent_many(1)
    held = HeldMessages(dead.queue)
    assert len(held.receive()) == 1
    for _ in range(3):
        assert not held.is_over
        dead.queue.change_visibility_batch(list(held._held.values()), [0])
        assert held.receive() == []
    assert held.is_over


@pytest.mark.slow
def test_what_sqs_fails_to_release_is_tried_again(dead: Dead, spoilt: Proxy) -> None:
    dead.sent_many(1)
    with closing(HeldMessages(dead.queue)) as held:
        held.receive()
        spoilt.spoil = failing("ChangeMessageVisibilityBatch", times=2)  # one with its repetition
    assert held.still_hidden == 0
    assert len(dead.ids()) == 1


@pytest.mark.parametrize("is_final", [False, True])
def test_what_is_not_released_is_counted(
    dead: Dead, spoilt: Proxy, is_final: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    dead.sent_many(1)
    code = "ReceiptHandleIsInvalid" if is_final else "RequestThrottled"
    failed = [{"Id": "0", "Code": code, "SenderFault": True}]
    with closing(HeldMessages(dead.queue)) as held:
        held.receive()
        spoilt.spoil = lambda operation, request: (200, {"Successful": [], "Failed": failed})
    assert held.still_hidden == (0 if is_final else 1)  # a receipt that is refused has expired


def test_a_dead_letter_that_is_visible_by_itself_is_not_released(dead: Dead, spoilt: Proxy) -> None:
    dead.sent_many(1)
    with closing(HeldMessages(dead.queue)) as held:
        (received,) = held.receive()
        received.expires = 0
    assert spoilt.counts["ChangeMessageVisibilityBatch"] == 0
    assert held.still_hidden == 0
