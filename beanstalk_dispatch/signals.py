"""Signals sent around every task. Receivers' errors are logged and change nothing.

``task_scheduled``: ``task_id``, ``function``, ``queue`` (the name as scheduled). Sent after SQS took it.
``task_started``: ``delivery``. Sent in the thread that runs the task, before its time limit starts.
``task_finished``: ``delivery``, ``outcome``, ``exception`` (None unless it failed), ``duration`` in seconds.

The sender is the scheduling function's module or the SafeTask's class.
"""

from __future__ import annotations

from django.dispatch import Signal

task_scheduled = Signal()
task_started = Signal()
task_finished = Signal()
