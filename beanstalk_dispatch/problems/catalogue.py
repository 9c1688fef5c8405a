"""The ids and meanings of the commands' findings besides the system checks, for docs/checks.md.

The doctor's POST also uses E014 to E017: it shows the first reason for a refusal as a fact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DOCTOR: Final[Mapping[str, str]] = {
    "E101": "A part of the project could not be examined, because its own code raised an error.",
    "E102": "The file that `--cron` names does not exist.",
    "W103": "BEANSTALK_DISPATCH_PERIODIC_TASKS is set, but there is no `cron.yaml`.",
    "E104": "The daemon refuses an entry of `cron.yaml`, or the file.",
    "W105": "There are periodic tasks, and the daemon of a FIFO queue runs none.",
    "E106": "A periodic task is not in the table.",
    "E107": "A periodic task is not in BEANSTALK_DISPATCH_PERIODIC_TASKS: it is answered 403.",
    "E108": "The `url` of a periodic task is not the dispatcher.",
    "E109": "The cache of the lease is not shared by processes.",
    "E110": "The cache of the lease does not answer.",
    "E111": "The cache of the lease does not keep what is added to it.",
    "W112": "The drain file exists: the endpoint answers 503 to new tasks.",
    "W113": "No file sets HttpPath, and Elastic Beanstalk's default is `/`.",
    "W114": "The dispatcher answers 404, because BEANSTALK_WORKER is not True here.",
    "E115": "The dispatcher answers 403, because the daemon's address is not a trusted peer.",
    "E116": "The dispatcher answers the daemon's POST with another error.",
    "E117": "The project raises an error before the dispatcher is reached.",
    "E118": "A middleware redirects the daemon's POST to the login page.",
    "E119": "No URL leads to the dispatcher.",
    "E120": "HttpPath is not the dispatcher's path.",
    "E121": "A middleware redirects the daemon's POST.",
    "E122": "A middleware answers the daemon's POST.",
    "W131": "The module of the web server has another settings module than manage.py.",
    "E123": "The daemon reads the dead-letter queue, so what fails goes back to its own queue.",
}
AWS: Final[Mapping[str, str]] = {
    "W201": "No region is configured, and a queue is given by its name.",
    "W202": "These credentials may not ask, so something is not known.",
    "E203": "A request to AWS did not succeed.",
    "E204": "The clock is so wrong that AWS refuses requests.",
    "W205": "The clock differs from AWS's.",
    "W206": "No queue is configured, so none is examined.",
    "E207": "The backlog is shown, but these credentials may not ask for it.",
    "E208": "A queue does not exist.",
    "E209": "These credentials may not send to a queue.",
    "W210": "The queue's VisibilityTimeout is not above the longest time limit.",
    "E211": "A queue has no redrive policy.",
    "W212": "A queue's maxReceiveCount is so small that a deployment can use it up.",
    "E213": "The dead-letter queue of a queue does not exist.",
    "W214": "The dead-letter queue of a queue could not be read.",
    "W215": "There are messages in the dead-letter queue.",
    "W216": "A queue takes smaller messages than SQS allows.",
    "W217": "A queue is encrypted with a KMS key, which both roles must be allowed to use.",
    "W218": "Messages wait and none is in flight: perhaps nobody reads the queue.",
    "E219": "These credentials may not look up a queue by its name.",
    "E220": "The dead-letter queue of the configuration has a redrive policy of its own.",
}
MACHINE: Final[Mapping[str, str]] = {
    "W301": "A file of the machine cannot be read.",
    "E302": "The daemon posts to a path that is not the dispatcher.",
    "E303": "A timeout is not longer than those before it. `beanstalk_eb --check` finds it, too.",
    "E304": "nginx does not answer.",
    "E305": "The endpoint is not reached through nginx.",
    "W306": "The daemon's log has posts that were not answered with 200.",
    "W307": "The child processes of all tasks that the daemon posts at a time do not fit into "
    "memory.",
}
EB: Final[Mapping[str, str]] = {
    "E401": "A file is missing.",
    "E402": "The hook is not executable.",
    "E403": "The hook is not the script that is needed.",
    "E404": "The hook gives nginx and the endpoint two different times.",
    "E405": "No line `web:` of the Procfile starts a web server.",
    "E406": "gunicorn's worker class replaces threads, so no time limit interrupts a task.",
    "E407": "gunicorn kills a worker without threads in the middle of a task.",
    "E408": "`.ebextensions` has options that a web environment does not know.",
    "E409": "An option of the daemon is not what is needed.",
    "E410": "The daemon posts more requests at a time than gunicorn runs.",
    "E411": "An outage of a few minutes sends every message to the dead-letter queue.",
    "E412": "A policy does not allow what is needed.",
    "E413": "A policy allows more than is needed.",
    "E414": "A task with a schedule is missing in `cron.yaml`.",
    "E415": "`cron.yaml` has another schedule or URL than the task.",
    "E416": "`cron.yaml` has a task that has no schedule.",
    "E417": "A file of scaling is in a bundle that web environments get, too.",
    "E418": "A file of scaling is not what is needed.",
    "E419": "The target of scaling is too high.",
    "E420": "An option of scaling is not what is needed.",
    "W421": "The web server of the Procfile is not a known one, so its options are not compared.",
    "W422": "The Procfile has a process `release`, which Elastic Beanstalk would start for ever.",
    "W423": "The web server waits for no request at a stop, so a deployment ends running tasks.",
    "E424": "The project's own nginx.conf does not include the file of the hook.",
    "E425": "The project's own configuration of nginx has the same location as the hook's file.",
    "E426": "The web server of the Procfile does not start, or does not answer.",
    "E427": "The web server of the Procfile starts, but the dispatcher does not answer a request.",
    "W428": "`requirements.txt` does not name a package that the deployment needs.",
}
LAMBDA: Final[Mapping[str, str]] = {
    "E501": "The queue's VisibilityTimeout is too short for the function.",
    "E502": "The queue has no redrive policy.",
    "E503": "The queue's maxReceiveCount is too small.",
}

CATALOGUE: Final[Mapping[str, Mapping[str, str]]] = {
    "beanstalk_doctor": DOCTOR,
    "beanstalk_doctor --aws": AWS,
    "beanstalk_doctor --machine": MACHINE,
    "beanstalk_eb --check": EB,
    "beanstalk_lambda --check": LAMBDA,
}
"""The command that finds them → number → meaning."""
