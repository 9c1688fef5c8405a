"""Schedule one function, named on the command line, as a web process does."""

import sys

import django

django.setup()

from beanstalk_dispatch.client import schedule_function  # noqa: E402

schedule_function("demo-mail", sys.argv[1], "1", copies=2)
