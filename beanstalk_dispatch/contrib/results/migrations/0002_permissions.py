"""The permissions to cancel tasks, to run them again, and to see their arguments."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations


class Migration(migrations.Migration):
    """The migration that adds permissions. It changes no table."""

    dependencies: ClassVar[list[Any]] = [("beanstalk_results", "0001_initial")]
    operations: ClassVar[list[Any]] = [
        migrations.AlterModelOptions(
            name="storedresult",
            options={
                "verbose_name": "task result",
                "ordering": ["-enqueued_at"],
                "permissions": [
                    ("cancel_storedresult", "Can cancel task"),
                    ("run_storedresult", "Can run task again"),
                    ("view_storedresult_arguments", "Can view the arguments of task"),
                ],
            },
        ),
    ]
