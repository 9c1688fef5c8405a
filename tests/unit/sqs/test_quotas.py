from __future__ import annotations

from beanstalk_dispatch.conf import casts
from beanstalk_dispatch.sqs import quotas

LIMITS = {name: value for name, value in vars(quotas).items() if name.startswith("MAX_")}


def test_the_limits_are_those_of_aws() -> None:
    assert LIMITS == {
        "MAX_MESSAGE_BYTES": 2**20,
        "MAX_BATCH_BYTES": 2**20,
        "MAX_BATCH_ENTRIES": 10,
        "MAX_DELAY_SECONDS": 15 * 60,
        "MAX_VISIBILITY_SECONDS": 12 * 60 * 60,
        "MAX_WAIT_SECONDS": 20,
        "MAX_GROUP_ID_LENGTH": 128,
        "MAX_DEDUPLICATION_ID_LENGTH": 128,
        "MAX_MOVES_PER_SECOND": 500,
    }


def test_a_duration_may_be_as_long_as_a_message_can_be_hidden() -> None:
    """conf/casts.py stands below this room, so it states the limit itself."""
    assert casts.duration(casts.MAX_DURATION).total_seconds() == quotas.MAX_VISIBILITY_SECONDS
