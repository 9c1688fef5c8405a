from __future__ import annotations

import pytest

from beanstalk_dispatch.exceptions import SendError, UnknownQueue
from beanstalk_dispatch.queues.waiting import find_queue, queue_statuses, source_names
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment
from tests.dead_letters import Dead, failing, set_redrive_policy
from tests.proxy import Proxy


def test_a_queue_is_shown_with_its_dead_letter_queue(dead: Dead) -> None:
    dead.sent_many(3)
    dead.source.send("{}", {"DelaySeconds": 60})
    dead.queue.receive(count=1, wait=0, visibility=60)
    jobs, found = queue_statuses()
    assert (jobs.alias, jobs.name, jobs.is_dead_letter_queue) == ("jobs", dead.source_name, False)
    assert jobs.attributes
    assert (jobs.attributes.delayed, jobs.attributes.visibility_timeout) == (1, 300)
    assert (jobs.attributes.dead_letter_queue, jobs.attributes.max_receives) == (dead.name, 10)
    assert (found.name, found.sources) == (dead.name, (dead.source_name,))
    assert found.attributes
    assert (found.attributes.visible, found.attributes.in_flight) == (2, 1)
    assert found.attributes.total == 3
    assert (found.attributes.dead_letter_queue, found.attributes.max_receives) == (None, None)


def test_a_dead_letter_queue_with_an_alias_is_shown_once(dead: Dead, sqs_env: Environment) -> None:
    assert dead.source.name
    sqs_env(DISPATCH_QUEUES=f"jobs={dead.source_name} dead={dead.name}")
    assert [each.alias for each in queue_statuses()] == ["jobs", "dead"]
    assert [each.is_dead_letter_queue for each in queue_statuses()] == [False, True]


def test_the_packages_own_dead_letter_queue_needs_no_redrive_policy(
    dead: Dead, sqs_env: Environment
) -> None:
    sqs_env(
        DISPATCH_QUEUES=f"jobs={dead.source_name} own={dead.source_name}-own",
        DISPATCH_DEAD_LETTER_QUEUE="own",
    )
    open_queue("own").client.set_queue_attributes(
        QueueUrl=open_queue("own").url, Attributes={"RedrivePolicy": ""}
    )
    assert source_names(open_queue("own"), queue_statuses()) == ()


def test_without_aliases_only_the_configured_dead_letter_queue_is_known(
    dead: Dead, sqs_env: Environment
) -> None:
    assert dead.source.name
    sqs_env(DISPATCH_QUEUES=None)
    assert queue_statuses() == []
    assert [each.name for each in queue_statuses([dead.name])] == [dead.name]
    sqs_env(DISPATCH_DEAD_LETTER_QUEUE=dead.name)
    (status,) = queue_statuses()
    assert (status.name, status.alias, status.is_dead_letter_queue) == (dead.name, "", True)


def test_a_missing_permission_is_named(dead: Dead, spoilt: Proxy) -> None:
    spoilt.spoil = failing("GetQueueAttributes", status=403)
    (status,) = queue_statuses()
    assert status.attributes is None
    assert "the permission sqs:GetQueueAttributes is missing" in status.problem


def test_a_queue_that_cannot_be_opened_is_shown_with_its_problem(
    dead: Dead, sqs_env: Environment
) -> None:
    sqs_env(DISPATCH_CREATE_QUEUES=False, DISPATCH_QUEUES=f"jobs={dead.source_name}-none")
    (status,) = queue_statuses()
    assert (status.name, status.queue) == ("jobs", None)
    assert "SQS has no queue" in status.problem


def test_a_dead_letter_queue_is_found_by_its_own_name(dead: Dead) -> None:
    assert find_queue(dead.name).url == dead.queue.url
    assert find_queue("jobs").url == dead.source.url
    with pytest.raises(UnknownQueue, match=f"'no' is neither .* known: jobs, {dead.name}"):
        find_queue("no")


def test_an_alias_that_does_not_exist_is_not_looked_for_elsewhere(
    dead: Dead, sqs_env: Environment
) -> None:
    sqs_env(DISPATCH_CREATE_QUEUES=False, DISPATCH_QUEUES=f"jobs={dead.source_name}-none")
    with pytest.raises(UnknownQueue, match="SQS has no queue"):
        find_queue("jobs")


# --- which queue is a dead-letter queue ------------------------------------------------------


def test_a_source_queue_is_refused_with_the_name_of_its_dead_letter_queue(dead: Dead) -> None:
    with pytest.raises(UnknownQueue, match=f"counts each look .* queue is {dead.name}"):
        source_names(dead.source, queue_statuses())


def test_a_dead_letter_queue_with_a_redrive_policy_is_refused_with_what_to_type(
    dead: Dead, sqs_env: Environment
) -> None:
    assert dead.source.name
    sqs_env(DISPATCH_DEAD_LETTER_QUEUE="jobs")
    with pytest.raises(UnknownQueue, match=r"names it, so remove that policy: aws sqs set-queue-"):
        source_names(dead.source, queue_statuses())
    dead.source.client.set_queue_attributes(
        QueueUrl=dead.source.url, Attributes={"RedrivePolicy": ""}
    )
    assert source_names(dead.source, queue_statuses()) == ()


def test_a_queue_that_nothing_names_is_refused(dead: Dead, sqs_env: Environment) -> None:
    sqs_env(DISPATCH_QUEUES=f"jobs={dead.source_name}")
    dead.source.client.set_queue_attributes(
        QueueUrl=dead.source.url, Attributes={"RedrivePolicy": ""}
    )
    with pytest.raises(UnknownQueue, match="not known to be a dead-letter queue: no redrive"):
        source_names(dead.source, queue_statuses())


def test_a_dead_letter_queue_with_a_redrive_policy_is_refused(dead: Dead) -> None:
    set_redrive_policy(dead.queue, dead.source)
    with pytest.raises(UnknownQueue, match="counts each look"):
        dead.open()


def test_sqs_may_know_sources_that_have_no_alias(dead: Dead, sqs_env: Environment) -> None:
    url = dead.queue.url
    sqs_env(DISPATCH_QUEUES=f"dead={url}")
    assert source_names(open_queue("dead"), queue_statuses()) == (dead.source_name,)


def test_the_aliases_are_enough_where_sqs_lists_no_sources(dead: Dead, spoilt: Proxy) -> None:
    spoilt.spoil = failing("ListDeadLetterSourceQueues", status=403)
    assert source_names(dead.queue, queue_statuses()) == (dead.source_name,)


def test_what_cannot_be_found_out_is_refused(
    dead: Dead, spoilt: Proxy, sqs_env: Environment
) -> None:
    url = dead.queue.url
    sqs_env(DISPATCH_QUEUES=f"dead={url}")
    spoilt.spoil = lambda operation, request: (
        failing("GetQueueAttributes", status=403)(operation, request)
        or failing("ListDeadLetterSourceQueues", status=403)(operation, request)
    )
    with pytest.raises(UnknownQueue, match="permission sqs:ListDeadLetterSourceQueues is missing"):
        source_names(open_queue("dead"), queue_statuses())


def test_sqs_itself_may_fail(dead: Dead, spoilt: Proxy) -> None:
    spoilt.spoil = failing("GetQueueAttributes")
    (status,) = queue_statuses()
    assert "InternalError" in status.problem
    assert "permission" not in status.problem
    with pytest.raises(SendError, match="InternalError"):
        dead.source.request("get_queue_attributes", QueueUrl=dead.source.url)
