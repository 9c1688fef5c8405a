"""A module of a broken deployment: its import fails until a file says that it was corrected."""

from __future__ import annotations

import os
from pathlib import Path

from .tasks import Blameless

if not Path(os.environ["CORRECTED"]).exists():
    raise ImportError("this deployment is broken")

__all__ = ["Blameless"]
