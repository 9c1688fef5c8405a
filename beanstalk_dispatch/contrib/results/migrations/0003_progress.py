"""The progress of a task."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """Add the column. Workers of an earlier release write rows without it."""

    dependencies: ClassVar[list[Any]] = [("beanstalk_results", "0002_permissions")]
    operations: ClassVar[list[Any]] = [
        migrations.AddField(
            model_name="storedresult",
            name="progress",
            field=models.CharField(max_length=60, default="null", db_default="null"),
        ),
    ]
