"""The path of the dispatcher's URL, which is the daemon's HttpPath."""

from __future__ import annotations

from typing import Final

from django.conf import settings
from django.urls import NoReverseMatch, Resolver404, resolve, reverse

PATH: Final = "/beanstalk_dispatch/dispatcher"
"""HttpPath of a project that includes the URLs as the documentation says."""


def has_urls() -> bool:
    """Return True if the settings name a root urls.py, which only a web server needs."""
    return bool(getattr(settings, "ROOT_URLCONF", None))


def dispatcher_path() -> str | None:
    """Return the path to set as HttpPath; None if no URL leads to the dispatcher."""
    if not has_urls():
        return None
    try:
        shortest = reverse("beanstalk_dispatcher")
    except NoReverseMatch:
        return None
    paths = [f"{shortest.rstrip('/')}/dispatcher", shortest]
    return next(filter(leads_to_the_dispatcher, paths), None)


def leads_to_the_dispatcher(path: str) -> bool:
    """Return True if the URL configuration has the dispatcher at this path."""
    if not has_urls():
        return False
    try:
        return resolve(path).url_name == "beanstalk_dispatcher"
    except Resolver404:
        return False
