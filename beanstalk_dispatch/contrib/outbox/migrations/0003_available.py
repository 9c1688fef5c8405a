"""An index by which the messages that may be sent now are found among those that wait for later."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """Add the index."""

    dependencies: ClassVar[Any] = [("beanstalk_outbox", "0002_group_heads")]
    operations: ClassVar[Any] = [
        migrations.AddIndex(
            model_name="outboxmessage",
            index=models.Index(
                fields=["queue", "fifo_group", "available_at", "id"],
                name="beanstalk_outbox_available",
            ),
        ),
    ]
