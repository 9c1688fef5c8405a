"""The URLs: ``dispatcher``, which is also the prefix alone, as in version 0.1, and ``backlog``."""

from __future__ import annotations

from django.urls import re_path

from .views import backlog, dispatcher

urlpatterns = [
    re_path(r"^(?:dispatcher/?)?$", dispatcher, name="beanstalk_dispatcher"),
    re_path(r"^backlog/?$", backlog, name="beanstalk_backlog"),
]
