"""The table of results."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies: ClassVar = []

    operations: ClassVar = [
        migrations.CreateModel(
            name="StoredResult",
            fields=[
                ("id", models.CharField(max_length=255, primary_key=True, serialize=False)),
                ("function", models.CharField(max_length=255)),
                ("queue", models.CharField(max_length=255)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("READY", "READY"),
                            ("RUNNING", "RUNNING"),
                            ("FAILED", "FAILED"),
                            ("SUCCESSFUL", "SUCCESSFUL"),
                        ],
                        max_length=10,
                    ),
                ),
                ("enqueued_at", models.DateTimeField(null=True)),
                ("started_at", models.DateTimeField(null=True)),
                ("last_attempted_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                ("worker_ids", models.TextField(default="[]")),
                ("errors", models.TextField(default="[]")),
                ("return_value", models.TextField(default="null")),
                ("args", models.TextField(default="null")),
                ("kwargs", models.TextField(default="null")),
                ("headers", models.TextField(default="{}")),
                ("is_announced", models.BooleanField(default=False)),
                ("expires_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "task result",
                "ordering": ["-enqueued_at"],
                "indexes": [
                    models.Index(fields=["-enqueued_at"], name="beanstalk_result_enqueued"),
                    models.Index(fields=["status", "-enqueued_at"], name="beanstalk_result_status"),
                    models.Index(
                        fields=["function", "-enqueued_at"], name="beanstalk_result_function"
                    ),
                    models.Index(fields=["expires_at"], name="beanstalk_result_expires"),
                ],
            },
        ),
    ]
