"""Limits of Amazon SQS that this package checks before a request.

AWS refuses a request above a limit, and some local servers accept it. So each limit is checked
here, with an error that names it.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-quotas.html
"""

from __future__ import annotations

from typing import Final

MAX_MESSAGE_BYTES: Final = 1_048_576
"""The most bytes of one message's body and attributes together.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""

MAX_BATCH_BYTES: Final = 1_048_576
"""The most bytes of all messages of one SendMessageBatch together.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
"""

MAX_BATCH_ENTRIES: Final = 10
"""The most entries of one batch request, and the most messages of one ReceiveMessage.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
"""

MAX_DELAY_SECONDS: Final = 900
"""The greatest DelaySeconds of a message; also the longest delay of a queue.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
"""

MAX_VISIBILITY_SECONDS: Final = 43_200
"""The longest visibility timeout: 12 hours, counted from the receive.

Extending the visibility does not start the count again.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html
"""

MAX_WAIT_SECONDS: Final = 20
"""The greatest WaitTimeSeconds of ReceiveMessage: the longest long poll.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
"""

MAX_GROUP_ID_LENGTH: Final = 128
"""The most characters of a MessageGroupId.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
"""

MAX_DEDUPLICATION_ID_LENGTH: Final = 128
"""The most characters of a MessageDeduplicationId.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
"""

MAX_MOVES_PER_SECOND: Final = 500
"""The greatest MaxNumberOfMessagesPerSecond of StartMessageMoveTask.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html
"""
