"""The files that Elastic Beanstalk reads from a bundle, and those that the commands use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from . import iam
from .existing import CRON, cron_owner_line
from .ladder import ERROR_VISIBILITY_SECONDS, MAX_RECEIVES
from .plan import Plan
from .procfile import PROCFILE
from .scaling import scaling_files, scaling_options
from .sqsd_options import NAMESPACE, options_file, policy_file
from .template_files import fill_in

EBEXTENSIONS: Final = ".ebextensions/beanstalk_dispatch.config"
TRUST_POLICY: Final = "beanstalk/trust-policy.json"
HOOKS: Final = (
    ".platform/hooks/predeploy/50_beanstalk_dispatch.sh",
    ".platform/confighooks/predeploy/50_beanstalk_dispatch.sh",
)
"""The hooks: one for deployments, one for changes of the configuration as by ``eb setenv``.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/platforms-linux-extend.hooks.html
"""
NGINX_STAGING: Final = "/var/proxy/staging/nginx"
"""The directory of nginx's configuration while a deployment runs."""
NGINX_FILES: Final = ".platform/nginx"
"""The folder of a bundle with nginx's configuration of the project."""
NGINX_INCLUDE: Final = "conf.d/elasticbeanstalk/*.conf"
"""The files that the platform's own nginx.conf includes, the hook's among them.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/platforms-linux-extend.proxy.html
"""
MAX_BODY: Final = "2m"
"""nginx's ``client_max_body_size``. A message has up to 1 MiB, and nginx's default is 1 MiB."""

_WRITTEN_BY: Final = "Written by manage.py beanstalk_eb, which also checks it: --check."


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFile:
    """One file, relative to the root of the bundle."""

    content: str
    is_executable: bool = False


def bundle_files(plan: Plan) -> dict[str, BundleFile]:
    """Return every file of the plan, by its path."""
    hook = BundleFile(content=_hook_script(plan), is_executable=True)
    found = {
        PROCFILE: BundleFile(content=f"web: {gunicorn_command(plan)}\n"),
        **dict.fromkeys(HOOKS, hook),
        TRUST_POLICY: _json_file(iam.trust_policy()),
        policy_file(plan.web): _json_file(iam.web_policy(plan)),
        policy_file(plan.worker): _json_file(iam.worker_policy(plan)),
        **{path: _json_file(content) for path, content in scaling_files(plan).items()},
    }
    # A deployment fails if .ebextensions set an option that the environment does not know, and a
    # web environment has no daemon.
    if plan.is_shared:
        found[options_file(plan.worker)] = _json_file(_option_settings(plan))
    else:
        found[EBEXTENSIONS] = BundleFile(content=_ebextensions_file(plan))
    if plan.schedules:
        found[CRON] = BundleFile(content=cron_yaml(plan))
    return found


def daemon_options(plan: Plan) -> Mapping[str, str | int]:
    """Return the options of ``aws:elasticbeanstalk:sqsd``, by name."""
    ladder = plan.ladder
    return {
        "WorkerQueueURL": plan.read_queue.url,
        "HttpPath": plan.http_path,
        "MimeType": "application/json",
        "HttpConnections": plan.connections,
        "InactivityTimeout": _whole_seconds(ladder.inactivity),
        "VisibilityTimeout": _whole_seconds(ladder.visibility),
        "ErrorVisibilityTimeout": ERROR_VISIBILITY_SECONDS,
        "MaxRetries": MAX_RECEIVES,
    }


def _whole_seconds(seconds: float | None) -> int:
    return int(seconds or 0)


def gunicorn_command(plan: Plan) -> str:
    """Return the command that serves the project, with gunicorn's place in the ladder."""
    application = plan.application
    options = application.interface.gunicorn.format(
        processes=plan.processes, threads=plan.threads, worker_class=application.worker_class
    )
    return (
        f"gunicorn --bind 127.0.0.1:8000 {options} "
        f"--graceful-timeout {_whole_seconds(plan.ladder.gunicorn)} {application.gunicorn}"
    )


def _option_settings(plan: Plan) -> list[dict[str, str]]:
    """Return the file for ``aws elasticbeanstalk update-environment --option-settings``."""
    return [
        {"Namespace": namespace, "OptionName": name, "Value": str(value)}
        for namespace, options in {NAMESPACE: daemon_options(plan), **scaling_options(plan)}.items()
        for name, value in options.items()
    ]


def _ebextensions_file(plan: Plan) -> str:
    lines = [f"# {_WRITTEN_BY}", "option_settings:", f"  {NAMESPACE}:"]
    lines += [f"    {name}: {value}" for name, value in daemon_options(plan).items()]
    return "\n".join(lines) + "\n"


def cron_yaml(plan: Plan) -> str:
    """Return the periodic tasks, from the schedules that stand at the tasks."""
    lines = [f"# {_WRITTEN_BY}", cron_owner_line(plan.worker), "version: 1", "cron:"]
    for name, schedule in plan.schedules.items():
        lines += [
            f"  - name: {json.dumps(name)}",
            f"    url: {json.dumps(plan.http_path)}",
            f"    schedule: {json.dumps(schedule)}",
        ]
    return "\n".join(lines) + "\n"


def _json_file(content: Any) -> BundleFile:
    return BundleFile(content=json.dumps(content, indent=2) + "\n")


def nginx_location(plan: Plan) -> str:
    """Return nginx's limits for the daemon's requests, and two headers that the endpoint reads.

    The script writes the platform's own server in place of UPSTREAM.
    It repeats the headers of Elastic Beanstalk's own ``location /``: a location that sets a header
    inherits none. https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_set_header
    """
    return fill_in(
        "nginx.conf",
        path=plan.http_path,
        timeout=_whole_seconds(plan.ladder.nginx),
        max_body=MAX_BODY,
    )


def _hook_script(plan: Plan) -> str:
    """Return a script that gives the location only to machines with the worker's flag."""
    return fill_in(
        "predeploy.sh",
        written_by=_WRITTEN_BY,
        staging=NGINX_STAGING,
        location=nginx_location(plan),
    )
