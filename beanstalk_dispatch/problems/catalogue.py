"""The ids and meanings of the commands' findings besides the checks, for docs/architecture.md.

The doctor's POST also uses E014 to E017: it shows the first reason for a refusal as a fact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DOCTOR: Final[Mapping[str, str]] = {
    "E101": "Code of the project raised an error, so a part was not examined.",
    "E102": "The file that `--cron` names does not exist.",
    "W103": "BEANSTALK_DISPATCH_PERIODIC_TASKS is set, but there is no `cron.yaml`.",
    "E104": "The daemon refuses `cron.yaml`, or an entry of it.",
    "W105": "The daemon of a FIFO queue runs no periodic tasks.",
    "E106": "A periodic task is not in the table.",
    "E107": "A periodic task is not in BEANSTALK_DISPATCH_PERIODIC_TASKS: 403.",
    "E108": "The `url` of a periodic task is not the dispatcher.",
    "E109": "The lease's cache is not shared by processes.",
    "E110": "The lease's cache does not answer.",
    "E111": "The lease's cache does not keep entries.",
    "W112": "The drain file exists: 503 to new tasks.",
    "W113": "No file sets HttpPath, whose default is `/`.",
    "W114": "404: BEANSTALK_WORKER is not True here.",
    "E115": "403: the daemon's address is not a trusted peer.",
    "E116": "The dispatcher answers another error.",
    "E117": "The project raises an error before the dispatcher is reached.",
    "E118": "A middleware redirects the POST to the login page.",
    "E119": "No URL leads to the dispatcher.",
    "E120": "HttpPath is not the dispatcher's path.",
    "E121": "A middleware redirects the POST.",
    "E122": "A middleware answers the POST.",
    "W131": "The web server has other settings than manage.py.",
    "E123": "The daemon reads the dead-letter queue.",
}
AWS: Final[Mapping[str, str]] = {
    "W201": "A queue is given by name, without a region.",
    "W202": "These credentials may not ask, so something is not known.",
    "E203": "A request to AWS did not succeed.",
    "E204": "AWS refuses requests because of the clock.",
    "W205": "The clock differs from AWS's.",
    "W206": "No queue is configured.",
    "E207": "These credentials may not read the backlog that is shown.",
    "E208": "A queue does not exist.",
    "E209": "These credentials may not send to a queue.",
    "W210": "VisibilityTimeout is not above the longest time limit.",
    "E211": "A queue has no redrive policy.",
    "W212": "maxReceiveCount is so small that a deployment uses it up.",
    "E213": "A dead-letter queue does not exist.",
    "W214": "A dead-letter queue could not be read.",
    "W215": "A dead-letter queue has messages.",
    "W216": "A queue takes smaller messages than SQS allows.",
    "W217": "A queue has a KMS key: allow both roles to use it.",
    "W218": "Messages wait, and none is in flight.",
    "E219": "These credentials may not look up a queue by its name.",
    "E220": "The configured dead-letter queue has a redrive policy.",
}
MACHINE: Final[Mapping[str, str]] = {
    "W301": "A file of the machine cannot be read.",
    "E302": "The daemon posts to a path that is not the dispatcher.",
    "E303": "A timeout is not longer than those before it; `beanstalk_eb --check`, too.",
    "E304": "nginx does not answer.",
    "E305": "The endpoint is not reached through nginx.",
    "W306": "The daemon's log has other answers than 200.",
    "W307": "The children of all connections do not fit into memory.",
}
EB: Final[Mapping[str, str]] = {
    "E401": "A file is missing.",
    "E402": "The hook is not executable.",
    "E403": "The hook is another script.",
    "E404": "The hook gives nginx and the endpoint different times.",
    "E405": "No line `web:` of the Procfile starts a web server.",
    "E406": "gunicorn's worker class replaces threads: no time limit works.",
    "E407": "gunicorn has no threads, and kills long tasks.",
    "E408": "`.ebextensions` has options unknown to a web environment.",
    "E409": "An option of the daemon is wrong.",
    "E410": "HttpConnections is above the number of threads.",
    "E411": "An outage of minutes makes every message a dead letter.",
    "E412": "A policy does not allow what is needed.",
    "E413": "A policy allows more than is needed.",
    "E414": "A scheduled task is missing in `cron.yaml`.",
    "E415": "`cron.yaml` has another schedule or URL.",
    "E416": "`cron.yaml` has a task without a schedule.",
    "E417": "A scaling file is in a bundle for web environments, too.",
    "E418": "A scaling file is wrong.",
    "E419": "The scaling target is too high.",
    "E420": "A scaling option is wrong.",
    "W421": "The Procfile's web server is unknown, and was not compared.",
    "W422": "The Procfile's `release` would be started for ever.",
    "W423": "The web server ends running tasks at a deployment.",
    "E424": "The project's nginx.conf does not include the hook's file.",
    "E425": "The project's nginx files have the hook's location, too.",
    "E426": "The Procfile's web server does not start or answer.",
    "E427": "The web server starts, but the dispatcher does not answer.",
    "W428": "`requirements.txt` lacks a package.",
}
LAMBDA: Final[Mapping[str, str]] = {
    "E501": "VisibilityTimeout is too short for the function.",
    "E502": "The queue has no redrive policy.",
    "E503": "maxReceiveCount is too small.",
}

CATALOGUE: Final[Mapping[str, Mapping[str, str]]] = {
    "beanstalk_doctor": DOCTOR,
    "beanstalk_doctor --aws": AWS,
    "beanstalk_doctor --machine": MACHINE,
    "beanstalk_eb --check": EB,
    "beanstalk_lambda --check": LAMBDA,
}
"""The command that finds them → number → meaning."""
