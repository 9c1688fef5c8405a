"""The table of results, for BEANSTALK_DISPATCH_RESULTS=db."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from .record import Status


class StoredResult(models.Model):
    """The record of one task as a row, with the time at which the row expires.

    JSON is kept as text. JSON may contain a zero character, which PostgreSQL's jsonb refuses.
    """

    id = models.CharField(primary_key=True, max_length=255)
    function = models.CharField(max_length=255)
    queue = models.CharField(max_length=255)
    status = models.CharField(max_length=10, choices=[(each.value, each.value) for each in Status])
    enqueued_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    last_attempted_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    worker_ids = models.TextField(default="[]")
    errors = models.TextField(default="[]")
    progress = models.CharField(max_length=60, default="null", db_default="null")
    return_value = models.TextField(default="null")
    args = models.TextField(default="null")
    kwargs = models.TextField(default="null")
    headers = models.TextField(default="{}")
    is_announced = models.BooleanField(default=False)
    expires_at = models.DateTimeField()

    objects: ClassVar[models.Manager[StoredResult]] = models.Manager()

    class Meta:
        verbose_name = "task result"
        ordering: ClassVar = ["-enqueued_at"]
        permissions: ClassVar = [
            ("cancel_storedresult", "Can cancel task"),
            ("run_storedresult", "Can run task again"),
            ("view_storedresult_arguments", "Can view the arguments of task"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["-enqueued_at"], name="beanstalk_result_enqueued"),
            models.Index(fields=["status", "-enqueued_at"], name="beanstalk_result_status"),
            models.Index(fields=["function", "-enqueued_at"], name="beanstalk_result_function"),
            models.Index(fields=["expires_at"], name="beanstalk_result_expires"),
        ]

    def __str__(self) -> str:
        return f"{self.function} {self.id}"
