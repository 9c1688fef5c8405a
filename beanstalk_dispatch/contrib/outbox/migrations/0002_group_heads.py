"""An index by which the oldest message of each group of each queue is found."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """Replace the index of the groups."""

    dependencies: ClassVar[Any] = [("beanstalk_outbox", "0001_initial")]
    operations: ClassVar[Any] = [
        migrations.RemoveIndex(model_name="outboxmessage", name="beanstalk_outbox_group"),
        migrations.AddIndex(
            model_name="outboxmessage",
            index=models.Index(fields=["queue", "fifo_group", "id"], name="beanstalk_outbox_head"),
        ),
    ]
