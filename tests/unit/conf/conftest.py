from __future__ import annotations

from collections.abc import Iterator

import pytest

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import SettingsGroup, registry

from .rooms import ROOM


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[SettingsGroup]:
    """A contrib room's group, registered for one test."""
    monkeypatch.setattr(registry, "_groups", [conf.CORE])
    conf.register(ROOM)
    yield ROOM
    conf.clear_caches()
