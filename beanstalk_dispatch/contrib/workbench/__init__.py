"""Queues and dead letters in Django's admin.

    INSTALLED_APPS = [..., "beanstalk_dispatch", "beanstalk_dispatch.contrib.workbench"]

docs/dead-letters.md says what the pages show, and who may do what.
"""
