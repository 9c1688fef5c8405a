from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.conf.urls.i18n import i18n_patterns
from django.core.checks import ERROR, INFO, WARNING, CheckMessage
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.test import override_settings
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt, csrf_protect

from beanstalk_dispatch import views
from beanstalk_dispatch.deploying.dispatcher_path import PATH
from beanstalk_dispatch.problems.daemon_request import Answer, explain, post
from tests import jobs
from tests.conftest import TABLE, Environment

# A request may use connections that an earlier test has opened.
pytestmark = pytest.mark.django_db(databases="__all__")

HERE = __name__
SECURITY = "django.middleware.security.SecurityMiddleware"
COMMON = "django.middleware.common.CommonMiddleware"
INCLUDED = [path("beanstalk_dispatch/", include("beanstalk_dispatch.urls"))]
urlpatterns: list[Any] = []

View = Callable[[HttpRequest], HttpResponse]


@csrf_exempt
def homepage(request: HttpRequest) -> HttpResponse:
    return HttpResponse("welcome")


def login_wall(get_response: View) -> View:
    """As projects write it: everyone who is not logged in is sent to the login page."""
    return lambda request: HttpResponseRedirect("/accounts/login/?next=/")


def maintenance(get_response: View) -> View:
    return lambda request: HttpResponse("closed", status=503)


def elsewhere(get_response: View) -> View:
    return lambda request: HttpResponseRedirect("/somewhere/")


def raising(get_response: View) -> View:
    raise KeyError("no tenant")


def reads_headers(get_response: View) -> View:
    """As a middleware of tenants may read the host."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.get_host()
        return get_response(request)

    return middleware


def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """The WSGI application of a project that wraps Django's."""
    start_response("418 I'm a teapot", [])
    yield b""


@pytest.fixture(autouse=True)
def worker(env: Environment) -> None:
    env(WORKER=True, DISPATCH_TABLE=TABLE)


def found(
    monkeypatch: pytest.MonkeyPatch,
    at: str = PATH,
    patterns: list[Any] | None = None,
    **given: Any,
) -> CheckMessage:
    monkeypatch.setattr(f"{HERE}.urlpatterns", INCLUDED if patterns is None else patterns)
    with override_settings(ROOT_URLCONF=HERE, **given):
        return explain(post(at), at)


def test_a_project_that_is_set_up_well_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = found(monkeypatch)
    assert finding.level == INFO
    assert finding.msg == "POST /beanstalk_dispatch/dispatcher reaches the dispatcher"
    assert jobs.calls == []


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"ALLOWED_HOSTS": ["example.com"]}, "ALLOWED_HOSTS", "Add 'localhost' to"),
        (
            {"SECURE_SSL_REDIRECT": True},
            "SECURE_SSL_REDIRECT",
            "[r'^beanstalk_dispatch/dispatcher']",
        ),
        ({"MIDDLEWARE": [f"{HERE}.login_wall"]}, "login page /accounts/login/", f"exempt {PATH}"),
        ({"patterns": []}, "no URL leads to the dispatcher", "include('beanstalk_dispatch.urls')"),
        ({"at": "/"}, "HttpPath is '/'", f"HttpPath: {PATH}"),
        ({"at": "/beanstalk_dispatch"}, "'/beanstalk_dispatch' is too short", f"HttpPath: {PATH}"),
        ({"at": "/other"}, "HttpPath '/other' is not the dispatcher", f"HttpPath: {PATH}"),
        ({"PREPEND_WWW": True}, "www.localhost", "PREPEND_WWW = False"),
        ({"MIDDLEWARE": [f"{HERE}.elsewhere"]}, "redirected to /somewhere/", f"exempt {PATH}"),
        ({"MIDDLEWARE": [f"{HERE}.maintenance"]}, "answered 503 before", f"exempt {PATH}"),
        ({"MIDDLEWARE": [f"{HERE}.raising"]}, "KeyError: 'no tenant'", "runserver"),
        ({"WSGI_APPLICATION": f"{HERE}.application"}, "answered 418 before", f"exempt {PATH}"),
        ({"WSGI_APPLICATION": "tests.nowhere"}, "ImportError", "runserver"),
    ],
)
def test_each_mistake_is_told_from_the_others(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], message: str, hint: str
) -> None:
    given = {"MIDDLEWARE": [SECURITY, f"{HERE}.reads_headers", COMMON], **given}
    finding = found(monkeypatch, **given)
    assert finding.level == ERROR
    assert message in finding.msg
    assert hint in str(finding.hint)


def test_a_machine_that_is_not_a_worker_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, env: Environment
) -> None:
    env(WORKER=False)
    finding = found(monkeypatch)
    assert finding.level == WARNING
    assert "404, because BEANSTALK_WORKER is not True" in finding.msg


def test_a_worker_that_trusts_nobody_here_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, env: Environment
) -> None:
    env(DISPATCH_TRUSTED_PEERS="10.0.0.1")
    finding = found(monkeypatch)
    assert "403, because BEANSTALK_DISPATCH_TRUSTED_PEERS" in finding.msg


def test_a_wrong_configuration_is_said_with_the_dispatchers_words(
    monkeypatch: pytest.MonkeyPatch, env: Environment
) -> None:
    env(WORKER="Ture")
    assert "500: the worker's configuration is wrong" in found(monkeypatch).msg


def test_csrf_protection_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    @csrf_protect
    def protected(request: HttpRequest) -> HttpResponse:
        return views.dispatcher(request)  # pragma: no cover - never reached

    patterns = [
        path("beanstalk_dispatch/", include([path("dispatcher", protected,
                                                  name="beanstalk_dispatcher")])),
    ]  # fmt: skip
    assert "CSRF" in found(monkeypatch, patterns=patterns).msg


def test_a_page_that_answers_200_loses_the_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = found(monkeypatch, "/", [path("", homepage), *INCLUDED])
    assert "answers 200; the daemon deletes such messages" in finding.msg


def test_a_url_that_changes_with_the_language_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    locale = ["django.middleware.locale.LocaleMiddleware"]
    given = {"USE_I18N": True, "LANGUAGE_CODE": "en", "LANGUAGES": [("en", "English")]}
    finding = found(monkeypatch, PATH, i18n_patterns(*INCLUDED), MIDDLEWARE=locale, **given)
    assert "HttpPath '/beanstalk_dispatch/dispatcher' is not the dispatcher" in finding.msg
    assert "302" in finding.msg
    assert "HttpPath: /en/beanstalk_dispatch/dispatcher" in str(finding.hint)


def test_debug_allows_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(DEBUG=True, ALLOWED_HOSTS=[]):
        assert found(monkeypatch, MIDDLEWARE=[f"{HERE}.reads_headers"]).level == INFO


def test_a_400_of_something_else_is_not_blamed_on_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"{HERE}.urlpatterns", INCLUDED)
    with override_settings(ROOT_URLCONF=HERE, DEBUG=True, ALLOWED_HOSTS=[]):
        assert "answered 400 before" in explain(Answer(status=400), PATH).msg


def test_a_login_url_that_does_not_exist_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = found(monkeypatch, MIDDLEWARE=[f"{HERE}.elsewhere"], LOGIN_URL="no-such-name")
    assert "redirected to /somewhere/" in finding.msg


def test_nothing_is_logged_meanwhile(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found(monkeypatch, ALLOWED_HOSTS=["example.com"], MIDDLEWARE=[f"{HERE}.reads_headers"])
    assert caplog.records == []
    logging.getLogger("django").warning("heard")
    assert len(caplog.records) == 1
    assert settings.ROOT_URLCONF != HERE


def test_an_answer_that_is_not_a_json_object_has_no_content() -> None:
    assert Answer(status=200, content=b"[]").json() == {}
    assert Answer(status=200, content=b"<html>").json() == {}
