"""Signals sent around every task. Receivers' errors are logged and change nothing.

``task_scheduled``: ``task_id``, ``function``, ``queue`` (as given). Sent after SQS took it.
``task_started``: ``delivery``. Sent in the task's thread, before its time limit starts.
``task_finished``: ``delivery``, ``outcome``, ``exception`` (None unless it failed), ``duration``
in seconds.
``delivery_finished``: ``delivery``, ``outcome``, ``exception``. Sent after every delivery, also
one that ran no task. The sender is ``execution.run``.
``worker_stopped``: ``exit_code``. Sent by ``beanstalk_worker`` as the last thing it does.

The sender of the first three is ``client.schedule``, or the SafeTask's class.
"""

from __future__ import annotations

from django.dispatch import Signal

task_scheduled = Signal()
task_started = Signal()
task_finished = Signal()
delivery_finished = Signal()
worker_stopped = Signal()
