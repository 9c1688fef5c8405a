"""What django-maintenance-tasks runs in batches."""

from __future__ import annotations

from maintenance_tasks.task import MaintenanceTask


class Backfill(MaintenanceTask):  # type: ignore[misc]  # it has no types
    batch_size = 10

    def collection(self) -> list[int]:
        return list(range(25))

    def process(self, item: int) -> None:
        assert item in range(25)
