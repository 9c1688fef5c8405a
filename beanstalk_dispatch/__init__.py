"""Run Django functions on Amazon SQS and Elastic Beanstalk worker machines."""

__version__ = "1.1.0"
