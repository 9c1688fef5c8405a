"""Where another thread is, on every version of Python."""

from __future__ import annotations

import gc
import sys
import threading
from types import FrameType

import pytest

from beanstalk_dispatch.running.limits import thread_frames
from beanstalk_dispatch.running.limits.thread_frames import frame_of, threads_within


def test_the_frame_of_a_thread() -> None:
    frame = frame_of(threading.get_ident())
    assert frame is not None
    assert frame.f_code.co_filename == thread_frames.__file__


def test_the_threads_within_a_function() -> None:
    here = test_the_threads_within_a_function.__name__
    assert threads_within(__name__, here) == {threading.get_ident()}
    assert threads_within("another", here) == set()


def test_a_thread_that_has_ended_has_no_frame() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert thread.ident is not None
    assert frame_of(thread.ident) is None


@pytest.mark.parametrize("is_enabled", [True, False])
def test_no_garbage_collection_starts_where_it_would_stop_every_thread(
    is_enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def current_frames() -> dict[int, FrameType]:
        seen.append(gc.isenabled())
        return {}

    monkeypatch.setattr(thread_frames, "_GARBAGE_COLLECTION_STOPS_THREADS", True)
    monkeypatch.setattr(sys, "_current_frames", current_frames)
    if not is_enabled:
        gc.disable()
    try:
        assert frame_of(1) is None
        assert gc.isenabled() is is_enabled
    finally:
        gc.enable()
    assert seen == [False]
