"""Celery: runs tasks that Celery has put on a queue, switched on by one environment property.

    BEANSTALK_DISPATCH_CELERY_QUEUES=celery

docs/from-celery.md has more. Celery itself is not needed.
"""

from __future__ import annotations

from beanstalk_dispatch.messages.bodies import register_translator

from .envelope import translate

__all__: list[str] = []

register_translator(translate)
