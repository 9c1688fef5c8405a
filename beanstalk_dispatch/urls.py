"""The dispatcher's two addresses: the daemon's HttpPath, and the bare prefix that 0.1 matched."""

from __future__ import annotations

from django.urls import re_path

from .views import dispatcher

urlpatterns = [re_path(r"^(?:dispatcher/?)?$", dispatcher, name="beanstalk_dispatcher")]
