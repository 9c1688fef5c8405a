from __future__ import annotations

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.sqs.clients import Clients
from beanstalk_dispatch.sqs.fifo import FIFO, STANDARD, queue_rules
from beanstalk_dispatch.sqs.queue import Queue


def test_the_suffix_of_the_name_decides_between_fifo_and_standard() -> None:
    assert queue_rules("orders.fifo") is FIFO
    assert queue_rules("orders") is STANDARD
    assert queue_rules("fifo") is STANDARD


def test_a_queue_knows_its_rules() -> None:
    clients = Clients(get_config())
    assert Queue(QueueAddress(name="q.fifo"), "http://127.0.0.1:9/1/q.fifo", clients).rules is FIFO
    assert Queue(QueueAddress(name="q"), "http://127.0.0.1:9/1/q", clients).rules is STANDARD


def test_only_a_fifo_queue_retries_by_visibility_because_it_takes_no_delayed_copy() -> None:
    assert (FIFO.takes_delay, FIFO.retries_by_visibility) == (False, True)
    assert (STANDARD.takes_delay, STANDARD.retries_by_visibility) == (True, False)
