"""Each symptom of docs/troubleshooting.md, and of the pages that it leads to, is seen in a test."""

from __future__ import annotations

import ast
import re
from typing import Final

from tests.services import ROOT

DOCS: Final = "tests/docs/test_docs.py"
GUNICORN: Final = "tests/integration/test_gunicorn.py"
REHEARSAL: Final = "tests/integration/test_rehearsal.py::test_every_surprise_is_caught"
VIEWS: Final = "tests/unit/test_views.py"
DRAINING: Final = "tests/integration/test_draining.py"
DOCTOR: Final = "tests/unit/problems/test_daemon_request.py"
AWS_DOCTOR: Final = "tests/unit/problems/test_aws_doctor.py"
EXECUTOR: Final = "tests/unit/running/test_executor.py"
UNIT_DRAINING: Final = "tests/unit/consumers/endpoint/test_draining.py"
CLIENT: Final = "tests/unit/test_client.py"
CONNECTIONS: Final = "tests/unit/running/left_behind/test_connections.py"
RECENT: Final = "tests/unit/running/test_recent_deliveries.py"
LETTERS: Final = "tests/unit/management/test_beanstalk_dead_letters.py"

# What one sees, as the page has it → the test that shows it.
ROWS: Final = {
    # No task runs
    "No log line at all, not even `start`":
        f"{DOCS}::test_with_djangos_own_logging_there_is_no_line_at_all",
    "`not in INSTALLED_APPS`, or `Unknown command`":
        "tests/unit/conf/test_config.py::test_a_project_that_has_not_installed_the_app_is_told",
    "`start … settings=` names the settings of a laptop":
        "tests/unit/problems/test_doctor.py::test_other_settings_of_the_server_are_a_finding",
    "`start … functions=none`":
        "tests/unit/problems/test_checks.py"
        "::test_a_misspelt_variable_is_reported_with_the_one_that_was_meant",
    "`start` is right, but no `task` line, and the messages go to the dead-letter queue":
        f"{DOCTOR}::test_each_mistake_is_told_from_the_others",
    "`wrong path path=/`":
        "tests/unit/problems/test_check_log.py::"
        "test_a_path_of_the_daemon_that_is_not_the_dispatchers_is_logged_once",
    "No `task` line, and the messages stay in the queue":
        f"{AWS_DOCTOR}::test_dead_letters_and_waiting_messages_are_said",
    "`refused status=403 reason=untrusted-peer`":
        "tests/unit/consumers/endpoint/test_trusted_peers.py::test_trusted_networks_can_be_set",
    # A task does not do what it should
    # A task runs more than once
    "`task delivered again …`": f"{RECENT}"
        "::test_a_second_delivery_is_explained_by_what_nginx_and_the_task_may_take",
    "504 in nginx's log": REHEARSAL,
    "Two `outcome=done` lines with one id":
        "tests/integration/test_lease.py"
        "::test_a_duplicate_of_a_finished_task_is_acknowledged_and_does_not_run",
    "`WORKER TIMEOUT` in gunicorn's log, then `cut id=…`":
        "tests/integration/test_servers.py"
        "::test_gunicorn_kills_a_worker_without_threads_and_this_is_said_before",
    # Everything is in the dead-letter queue
    "Letters with a reason": f"{LETTERS}::test_a_letter_that_sqs_has_moved_has_no_reason",
    "Letters without a reason, receive count 10 or more":
        f"{LETTERS}::test_a_letter_that_sqs_has_moved_has_no_reason",
    "`dead letter not sent … received from … itself`":
        "tests/unit/running/test_dead_letters.py"
        "::test_a_message_of_the_dead_letter_queue_is_not_sent_there_again",
    "Letters whose tasks never started": f"{AWS_DOCTOR}::test_few_receives_are_said",
    # A call raises
    "`UnknownFunction`": f"{CLIENT}::test_a_function_the_table_does_not_list_is_refused",
    "`UnknownQueue`":
        "tests/unit/sqs/test_opening.py::test_an_unknown_alias_is_an_error_that_lists_them",
    "`AttributeError: 'function' object has no attribute 'delay'`":
        f"{CLIENT}::test_a_task_is_a_plain_function_and_not_one_of_celerys",
    "`InvalidCall`":
        "tests/unit/scheduling/test_call_check.py"
        "::test_a_wrong_call_is_refused_with_what_to_write",
    "`InvalidArgument`":
        "tests/unit/messages/test_arguments.py"
        "::test_the_error_names_the_argument_its_type_and_the_remedy",
    "`SendError: … Unable to locate credentials`":
        "tests/unit/sqs/test_opening.py"
        "::test_without_credentials_the_error_says_where_they_come_from",
    "`SendError: … AccessDenied`":
        f"{CLIENT}::test_a_role_that_may_not_send_is_a_send_error",
    "Another error of AWS, such as a timeout, a throttled request or a KMS key":
        "tests/unit/problems/test_aws_faults.py"
        "::test_each_fault_of_aws_is_named_with_its_remedy",
    # The fleet does not scale
    "`/beanstalk_dispatch/backlog` answers 404":
        f"{VIEWS}::test_without_a_token_a_web_process_has_no_backlog",
    "It answers 401": f"{VIEWS}::test_without_the_token_nobody_reads_it",
    "It answers 400 or redirects":
        f"{VIEWS}::test_django_itself_may_refuse_who_asks_for_the_backlog",
    "It answers 503, and `backlog unknown` is in the log":
        f"{VIEWS}::test_an_error_of_sqs_is_a_503_with_one_line",
    "A member `problem` instead of figures":
        "tests/unit/sqs/test_backlog.py::test_one_queue_that_cannot_be_read_leaves_the_others",
    "A worker environment loses machines although messages wait":
        "tests/unit/deploying/test_scaling.py"
        "::test_a_shared_bundle_has_the_options_beside_those_of_the_daemon",
    "The fleet shrinks and grows again every few minutes":
        "tests/unit/test_autoscaling.py::test_several_messages_for_each_thread_make_it_flap",
    # The environment's health is red
    "`stopping running` lines at each deployment":
        f"{DRAINING}::test_after_sigterm_what_runs_ends_and_what_waits_is_refused",
    "400 from the health check": f"{VIEWS}::test_a_health_check_needs_its_host_and_a_page",
    "404 from the health check": f"{VIEWS}::test_a_health_check_needs_its_host_and_a_page",
}  # fmt: skip

ELSEWHERE: Final = {
    ("log.md", "`worker=False`"): f"{GUNICORN}::test_elsewhere_it_is_a_404",
    (
        "log.md",
        "`reason=configuration`",
    ): "tests/unit/problems/test_start_log.py::test_the_start_line_says_what_the_process_is",
    ("log.md", "`not-a-worker`"): f"{VIEWS}::test_refusals_of_one_kind_are_one_line_a_minute",
    ("failures.md", "`unknown-function`"): f"{GUNICORN}::test_outcome_status_and_log_line",
    (
        "failures.md",
        "`unavailable`",
    ): f"{EXECUTOR}::"
    "test_what_this_machine_cannot_import_waits_as_a_copy_from_the_third_receive_on",
    ("failures.md", "`not signed; …`"): f"{EXECUTOR}::test_a_bad_signature_is_told_to_the_log",
    ("failures.md", "`no signing key matches …`"): REHEARSAL,
    ("failures.md", "`malformed`"): f"{GUNICORN}::test_malformed_bodies_are_a_400_with_one_line",
    ("failures.md", "`failed`"): f"{GUNICORN}::test_outcome_status_and_log_line",
    ("failures.md", "`timed-out`"): f"{GUNICORN}::test_outcome_status_and_log_line",
    (
        "log.md",
        "`stuck task`",
    ): f"{GUNICORN}::test_a_blocked_call_is_reported_as_stuck_and_times_out",
    ("failures.md", "`overdue`"): REHEARSAL,
    (
        "log.md",
        "`hook failed`",
    ): "tests/unit/running/test_attempt.py::test_a_failing_hook_changes_nothing",
    (
        "log.md",
        "`transaction left open`",
    ): f"{CONNECTIONS}::test_a_task_that_fails_keeps_its_own_error",
    ("run-once.md", "`nobody waited for its answer`"): REHEARSAL,
    ("failures.md", "`running`"): f"{RECENT}::test_what_runs_here_is_not_run_beside_itself",
    (
        "failures.md",
        "`cut`",
    ): "tests/integration/test_crash.py::test_after_kill_9_exactly_what_was_running_is_logged",
    (
        "log.md",
        "`no-files`",
    ): f"{UNIT_DRAINING}::test_a_gunicorn_worker_that_can_open_no_files_is_replaced",
    (
        "log.md",
        "`threads`",
    ): f"{DRAINING}::test_a_task_that_leaves_threads_is_named_and_its_process_replaced",
    ("log.md", "`recycle`"): (
        f"{DRAINING}::test_when_all_threads_are_stuck_another_process_takes_over_without_being_asked"
    ),
}
"""What stands on another page: the page, the words there → the test that shows it."""


def test_each_row_names_a_test_that_exists() -> None:
    symptoms = (ROOT / "docs" / "troubleshooting.md").read_text()
    seen = re.findall(r"^\| (.+?) \| .+ \| .+ \|$", symptoms, re.MULTILINE)
    assert [each for each in seen if each != "What you see"] == [*ROWS]
    for page, words in ELSEWHERE:
        lines = (ROOT / "docs" / page).read_text().splitlines()
        assert any(words in line for line in lines if line.startswith(("| ", "- "))), words
    for path, _, name in (test.partition("::") for test in [*ROWS.values(), *ELSEWHERE.values()]):
        tests = ast.parse((ROOT / path).read_text()).body
        assert name in [each.name for each in tests if isinstance(each, ast.FunctionDef)], path
