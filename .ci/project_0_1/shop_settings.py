# The settings of a project of beanstalk-dispatch 0.1.5, as its README says.
import os
from datetime import timedelta

SECRET_KEY = "for-the-rehearsal-only"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = ("beanstalk_dispatch",)
ROOT_URLCONF = "shop_urls"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}

BEANSTALK_DISPATCH_SQS_KEY = "demo"
BEANSTALK_DISPATCH_SQS_SECRET = "demo"
BEANSTALK_DISPATCH_SQS_REGION = "eu-west-1"
BEANSTALK_DISPATCH_TASK_TIMEOUT = timedelta(seconds=60)

if os.environ.get("BEANSTALK_WORKER") == "True":
    BEANSTALK_DISPATCH_TABLE = {
        "send_welcome": "example_settings.jobs.send_welcome",
        "resize_image": "example_settings.jobs.resize_image",
        "charge_card": "example_settings.jobs.charge_card",
        "build_report": "example_settings.jobs.BuildReport",
        "from_0_1": "beanstalk_tasks.send_letter",
        "my_safe_task": "beanstalk_tasks.MySafeTask",
    }
