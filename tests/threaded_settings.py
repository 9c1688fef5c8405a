"""The settings of a project that starts a thread when it is imported, as some libraries do."""

from __future__ import annotations

import threading
import time

from tests.settings import *  # noqa: F403

threading.Thread(target=time.sleep, args=(600,), name="started-early", daemon=True).start()
