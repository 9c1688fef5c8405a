"""The model without a table: it makes the content type and the permissions."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """No table is created, because the model is not managed."""

    initial = True
    dependencies: ClassVar[list[Any]] = []
    operations: ClassVar[list[Any]] = [
        migrations.CreateModel(
            name="DeadLetter",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
            ],
            options={
                "verbose_name": "dead letter",
                "permissions": [
                    ("redrive_deadletter", "Can redrive dead letter"),
                    ("view_deadletter_arguments", "Can view the arguments in dead letter"),
                ],
                "managed": False,
                "default_permissions": ("view", "delete"),
            },
        ),
    ]
