"""Schedule calls of each kind: ``python send.py COUNT``."""

from __future__ import annotations

import os
import sys

import django

django.setup()

from beanstalk_dispatch.client import (  # noqa: E402
    Call,
    schedule,
    schedule_function,
    schedule_many,
)

RELEASE = os.environ["RELEASE"]
COUNT = int(sys.argv[1])

for number in range(COUNT):
    schedule_function("mail", "plain", RELEASE, "plain", number)
    schedule("mail", Call("plain", (RELEASE, "delayed", number), delay=2))
schedule_many("mail", [Call("plain", (RELEASE, "batch", number)) for number in range(COUNT)])
schedule_many("mail", [Call("again", (RELEASE, "again", number)) for number in range(COUNT)])
