"""A project of ten tasks: with Celery, and with this package."""
