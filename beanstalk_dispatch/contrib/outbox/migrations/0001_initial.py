"""The table of the outbox."""

from __future__ import annotations

from typing import Any, ClassVar

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    """Create the table."""

    initial = True
    dependencies: ClassVar[Any] = []
    operations: ClassVar[Any] = [
        migrations.CreateModel(
            name="OutboxMessage",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("task_id", models.CharField(max_length=255)),
                ("function", models.CharField(max_length=255)),
                ("queue", models.CharField(max_length=255)),
                ("fifo_group", models.CharField(blank=True, default="", max_length=128)),
                ("body", models.TextField()),
                ("parameters", models.TextField(default="{}")),
                ("due_at", models.DateTimeField(blank=True, null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("available_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("failures", models.PositiveIntegerField(default=0)),
                ("error", models.TextField(blank=True, default="")),
            ],
            options={
                "verbose_name": "outbox message",
                "ordering": ["id"],
                "indexes": [
                    models.Index(fields=["fifo_group", "id"], name="beanstalk_outbox_group"),
                ],
            },
        ),
    ]
