"""OutboxMessage: a message that waits in the database until SQS has taken it."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.utils import timezone


class OutboxMessage(models.Model):
    """One message that SQS has not taken yet. It has no signature and no credentials."""

    id = models.BigAutoField(primary_key=True)
    """The position in the order of storage, in which messages of a FIFO group are sent."""
    task_id = models.CharField(max_length=255)
    """The id that ``schedule`` has returned."""
    function = models.CharField(max_length=255)
    """The task's name in the dispatch table."""
    queue = models.CharField(max_length=255)
    """The queue as the caller named it: an alias, or without aliases a name, URL or ARN."""
    fifo_group = models.CharField(max_length=128, blank=True, default="")
    """The message group on a FIFO queue. Empty for a standard queue, which keeps no order."""
    body = models.TextField()
    """The message as JSON, with the task's arguments. The relay signs it when it is sent."""
    parameters = models.TextField(default="{}")
    """SendMessage's parameters besides the body and the delay, as JSON."""
    due_at = models.DateTimeField(null=True, blank=True)
    """The time at which the task should run, if it has a delay."""
    created_at = models.DateTimeField(default=timezone.now)
    """The time at which the message was stored."""
    available_at = models.DateTimeField(default=timezone.now)
    """The time before which the message is not sent.

    It is not near its time, it has failed, or a relay has claimed it.
    """
    failures = models.PositiveIntegerField(default=0)
    """The number of times that the message could not be sent."""
    error = models.TextField(blank=True, default="")
    """The reason why the message could not be sent the last time."""

    objects: ClassVar[models.Manager[OutboxMessage]]

    class Meta:
        """The indexes for the oldest message of each group, and for those that may be sent now."""

        verbose_name = "outbox message"
        ordering: ClassVar[Any] = ["id"]
        indexes: ClassVar[Any] = [
            models.Index(fields=["queue", "fifo_group", "id"], name="beanstalk_outbox_head"),
            models.Index(
                fields=["queue", "fifo_group", "available_at", "id"],
                name="beanstalk_outbox_available",
            ),
        ]

    def __str__(self) -> str:
        """Return the message without arguments, which may contain secrets and personal data."""
        return f"{self.function} {self.task_id}"
