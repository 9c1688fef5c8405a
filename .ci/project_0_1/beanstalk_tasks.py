from datetime import timedelta

from beanstalk_dispatch.safe_task import SafeTask


def send_letter(address, *, copies=1):
    print("sent {} letters to {}".format(copies, address))


class MySafeTask(SafeTask):
    timeout_timedelta = timedelta(seconds=1000)
    verbose = True

    def run(self, *args, **kwargs):
        print("Running task")

    def on_error(self, e, *args, **kwargs):
        print("There was an error {}".format(e))

    def on_success(self, *args, **kwargs):
        print("Success!")

    def on_completion(self, *args, **kwargs):
        print("Task completed")
