from __future__ import annotations

import pytest
from django.test import override_settings
from django.urls import clear_url_caches, include, path

from beanstalk_dispatch.deploying.dispatcher_path import dispatcher_path, leads_to_the_dispatcher

HERE = __name__
urlpatterns: list[object] = []


def test_the_dispatchers_path_is_that_of_the_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{HERE}.urlpatterns", [path("x/", include("beanstalk_dispatch.urls"))])
    with override_settings(ROOT_URLCONF=HERE):
        assert dispatcher_path() == "/x/dispatcher"
        assert leads_to_the_dispatcher("/x/")
        assert not leads_to_the_dispatcher("/y/")
    monkeypatch.setattr(f"{HERE}.urlpatterns", [path("z", include("beanstalk_dispatch.urls"))])
    with override_settings(ROOT_URLCONF=f"{HERE}"):
        clear_url_caches()
        assert dispatcher_path() == "/z"
    with override_settings(ROOT_URLCONF=None):
        assert dispatcher_path() is None
        assert not leads_to_the_dispatcher("/x/")
