"""DeadLetter: a model without a table, because Django's permissions belong to models."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models


class DeadLetter(models.Model):
    """The permissions for the messages of all dead-letter queues. There are no rows of it."""

    class Meta:
        """Permissions of their own for each thing that a user may do."""

        managed = False
        verbose_name = "dead letter"
        default_permissions: ClassVar[Any] = ("view", "delete")
        permissions: ClassVar[Any] = [
            ("redrive_deadletter", "Can redrive dead letter"),
            ("pause_queue", "Can pause and resume queue"),
            ("view_deadletter_arguments", "Can view the arguments in dead letter"),
        ]

    def __str__(self) -> str:
        """Return the queue that a page is about, or the kind of thing."""
        return str(self.pk or "dead letter")
