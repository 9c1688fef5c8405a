"""The permission to pause and resume queues."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations


class Migration(migrations.Migration):
    """The migration that adds a permission. It changes no table, because there is none."""

    dependencies: ClassVar[list[Any]] = [("beanstalk_workbench", "0001_initial")]
    operations: ClassVar[list[Any]] = [
        migrations.AlterModelOptions(
            name="deadletter",
            options={
                "verbose_name": "dead letter",
                "permissions": [
                    ("redrive_deadletter", "Can redrive dead letter"),
                    ("pause_queue", "Can pause and resume queue"),
                    ("view_deadletter_arguments", "Can view the arguments in dead letter"),
                ],
                "managed": False,
                "default_permissions": ("view", "delete"),
            },
        ),
    ]
