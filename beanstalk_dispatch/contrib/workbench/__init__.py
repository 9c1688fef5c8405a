"""Queues and dead letters in Django's admin.

    INSTALLED_APPS = [..., "beanstalk_dispatch", "beanstalk_dispatch.contrib.workbench"]

docs/dead-letters.md describes the pages and their permissions.
"""
