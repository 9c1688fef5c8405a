"""A contrib room's settings, for the tests of the registry."""

from __future__ import annotations

from beanstalk_dispatch.conf import Setting, SettingsGroup, casts, secret_casts

ROOM_SIZE: Setting[int] = Setting(
    variable="BEANSTALK_DISPATCH_ROOM_SIZE",
    form="minutes",
    cast=casts.integer(1, 99_999),
    default=7,
    meaning="A number.",
    example="5",
)
ROOM_KEY: Setting[str | None] = Setting(
    variable="BEANSTALK_DISPATCH_ROOM_KEY",
    form="string without whitespace",
    cast=secret_casts.credential,
    meaning="A secret.",
    example="a-key",
    secret=True,
)
ROOM = SettingsGroup(prefix="BEANSTALK_DISPATCH_ROOM_", settings=(ROOM_SIZE, ROOM_KEY))
