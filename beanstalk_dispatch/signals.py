"""Signals that are sent around every task. An error of a receiver is logged and changes nothing."""

from __future__ import annotations

from django.dispatch import Signal

task_scheduled = Signal()
"""SQS has taken a message.

Sender: ``client.schedule``. Arguments: ``task_id``, ``function``, and ``queue`` as the caller named
it.
"""
task_started = Signal()
"""A task starts. Sent in the task's thread, before its time limit begins.

Sender: the SafeTask's class. Argument: ``delivery``.
"""
task_stuck = Signal()
"""The time limit of a task has passed, and its thread cannot be interrupted.

Sent in a thread of its own, at most once for each call of ``run`` or a hook. Sender: the
SafeTask's class. Arguments: ``delivery``, which is None outside of a consumer, and ``thread_id``,
the thread that the task blocks.
"""
task_finished = Signal()
"""A task and its hooks have ended.

Sender: the SafeTask's class. Arguments: ``delivery``, ``outcome``, ``exception`` (None unless the
task failed), and ``duration`` in seconds.
"""
delivery_finished = Signal()
"""A delivery has ended. Sent after every delivery, even if it ran no task.

Sender: ``running.stages.report.report``. Arguments: ``delivery``, ``outcome``, ``exception``.
"""
worker_stopped = Signal()
"""``beanstalk_worker`` has stopped. This is the last thing that it does.

Sender: the command's class. Argument: ``exit_code``.
"""
invocation_finished = Signal()
"""A Lambda function has run the messages of an event. AWS may suspend its process right after.

Sender: the handler. Argument: ``seconds``, how long all receivers together may take.
"""
