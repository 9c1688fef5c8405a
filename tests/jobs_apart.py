"""A module of tasks that nothing imports."""


def apart() -> None:
    """A task."""
