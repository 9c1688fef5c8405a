"""The settings of the worker of django-tasks-sqs."""

from __future__ import annotations

from . import tasks

SECRET_KEY = "for-benchmarks-only"
USE_TZ = True
INSTALLED_APPS = ["django_tasks_sqs"]
LOGGING = {"version": 1, "loggers": {"django.tasks": {"level": "WARNING"}}}
TASKS = {
    "default": {
        "BACKEND": "django_tasks_sqs.SQSBackend",
        "QUEUES": [tasks.QUEUE],
        "OPTIONS": {
            "queue_urls": {tasks.QUEUE: tasks.URL},
            "region_name": tasks.REGION,
            "endpoint_url": tasks.ENDPOINT,
        },
    }
}
