"""Limits of Amazon SQS that this package checks before a request.

A request above a limit would be refused by AWS, and some local servers accept it; so each limit
is checked here, with an error that names it.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-quotas.html
"""

from __future__ import annotations

from typing import Final

MAX_MESSAGE_BYTES: Final = 1_048_576
"""Bytes of one message's body and attributes together.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""

MAX_BATCH_BYTES: Final = 1_048_576
"""Bytes of all messages of one SendMessageBatch together.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
"""

MAX_BATCH_ENTRIES: Final = 10
"""Entries of one batch request, and messages of one ReceiveMessage.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
"""

MAX_DELAY_SECONDS: Final = 900
"""DelaySeconds of a message; also the longest delay of a queue.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
"""

MAX_VISIBILITY_SECONDS: Final = 43_200
"""12 hours, counted from the receive: extending the visibility does not start the count again.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html
"""

MAX_WAIT_SECONDS: Final = 20
"""WaitTimeSeconds of ReceiveMessage: the longest long poll.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
"""

MAX_GROUP_ID_LENGTH: Final = 128
"""Characters of a MessageGroupId.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
"""

MAX_DEDUPLICATION_ID_LENGTH: Final = 128
"""Characters of a MessageDeduplicationId.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
"""
