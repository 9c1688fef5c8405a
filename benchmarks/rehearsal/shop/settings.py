"""What ``startproject`` writes, and two lines for this package."""

from __future__ import annotations

import os

SECRET_KEY = "for-the-rehearsal-only"
DEBUG = False
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost").split()
SECURE_SSL_REDIRECT = os.environ.get("SECURE_SSL_REDIRECT") == "True"
INSTALLED_APPS = ["beanstalk_dispatch"]
MIDDLEWARE = [
    "shop.middleware.LogAttributeHeaders",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
