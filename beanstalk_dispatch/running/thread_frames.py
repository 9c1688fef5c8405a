"""Where another thread is now."""

from __future__ import annotations

import gc
import sys
from types import FrameType
from typing import Final

_GARBAGE_COLLECTION_STOPS_THREADS: Final = sys.version_info < (3, 11, 9)


def frame_of(thread_id: int) -> FrameType | None:
    """The innermost frame of a thread, or None if it has ended.

    Before Python 3.11.9, all threads of a process can stop for ever if a garbage collection starts
    inside of ``sys._current_frames()``. https://github.com/python/cpython/issues/106883
    """
    if not (_GARBAGE_COLLECTION_STOPS_THREADS and gc.isenabled()):
        return sys._current_frames().get(thread_id)  # noqa: SLF001 - sys documents it
    gc.disable()
    try:
        return sys._current_frames().get(thread_id)  # noqa: SLF001
    finally:
        gc.enable()
