"""The two URLs of the dispatcher: ``dispatcher``, and the prefix alone, as in version 0.1."""

from __future__ import annotations

from django.urls import re_path

from .views import dispatcher

urlpatterns = [re_path(r"^(?:dispatcher/?)?$", dispatcher, name="beanstalk_dispatcher")]
