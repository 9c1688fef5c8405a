"""Signals sent around every task. Receivers' errors are logged and change nothing.

``task_scheduled``: ``task_id``, ``function``, ``queue`` (as given). Sent after SQS took it.
``task_started``: ``delivery``. Sent in the task's thread, before its time limit starts.
``task_finished``: ``delivery``, ``outcome``, ``exception`` (None unless it failed), ``duration``
in seconds.

The sender is ``client.schedule``, or the SafeTask's class.
"""

from __future__ import annotations

from django.dispatch import Signal

task_scheduled = Signal()
task_started = Signal()
task_finished = Signal()
