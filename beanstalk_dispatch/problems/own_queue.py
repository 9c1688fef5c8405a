"""The finding that the dead letters of a worker environment would go to the queue that it reads."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.checks import CheckMessage

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.exceptions import ConfigurationError

from .findings import problem


def own_queue(topic: str, url: str) -> Iterator[CheckMessage]:
    """Yield a finding if the daemon reads the dead-letter queue. ``url`` is its WorkerQueueURL."""
    try:
        name = QueueAddress.parse(url).name
        is_wrong = get_config().is_dead_letter_queue(name)
    except (ValueError, ConfigurationError):  # which others report
        return
    if is_wrong:
        yield problem("E123", topic, name=name)
