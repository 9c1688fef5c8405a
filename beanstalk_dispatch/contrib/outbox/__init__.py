"""The outbox: messages wait in a database until SQS has taken them.

    INSTALLED_APPS = [..., "beanstalk_dispatch", "beanstalk_dispatch.contrib.outbox"]
    BEANSTALK_DISPATCH_OUTBOX=always

docs/outbox.md says how it works, and how to run the relay.
"""
