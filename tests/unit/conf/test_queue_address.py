from __future__ import annotations

import pytest

from beanstalk_dispatch.conf.queue_address import QueueAddress, location_of

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/mail"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("mail", QueueAddress(name="mail")),
        ("orders.fifo", QueueAddress(name="orders.fifo")),
        (URL, QueueAddress(name="mail", url=URL, region="eu-west-1")),
        (f"{URL}/", QueueAddress(name="mail", url=URL, region="eu-west-1")),
        ("arn:aws:sqs:eu-west-1:123456789012:mail",
         QueueAddress(name="mail", url=URL, region="eu-west-1")),
        ("arn:aws-cn:sqs:cn-north-1:123456789012:mail",
         QueueAddress(name="mail", region="cn-north-1",
                      url="https://sqs.cn-north-1.amazonaws.com.cn/123456789012/mail")),
        ("https://sqs-fips.us-gov-west-1.amazonaws.com/1/q",
         QueueAddress(name="q", region="us-gov-west-1",
                      url="https://sqs-fips.us-gov-west-1.amazonaws.com/1/q",
                      endpoint_url="https://sqs-fips.us-gov-west-1.amazonaws.com")),
        ("https://sqs.us-east-2.api.aws/1/q",
         QueueAddress(name="q", region="us-east-2", url="https://sqs.us-east-2.api.aws/1/q",
                      endpoint_url="https://sqs.us-east-2.api.aws")),
        ("arn:aws-eusc:sqs:eusc-de-east-1:123456789012:q",
         QueueAddress(name="q", region="eusc-de-east-1",
                      url="https://sqs.eusc-de-east-1.amazonaws.eu/123456789012/q")),
        ("https://sqs.eusc-de-east-1.amazonaws.eu/1/q",
         QueueAddress(name="q", region="eusc-de-east-1",
                      url="https://sqs.eusc-de-east-1.amazonaws.eu/1/q")),
        ("http://sqs.eu-west-1.localhost.localstack.cloud:4566/000000000000/q",
         QueueAddress(name="q", region="eu-west-1",
                      url="http://sqs.eu-west-1.localhost.localstack.cloud:4566/000000000000/q",
                      endpoint_url="http://sqs.eu-west-1.localhost.localstack.cloud:4566")),
        ("https://queue.amazonaws.com/1/q",
         QueueAddress(name="q", region="us-east-1", url="https://queue.amazonaws.com/1/q")),
        ("https://eu-west-1.queue.amazonaws.com/1/q",
         QueueAddress(name="q", region="eu-west-1",
                      url="https://eu-west-1.queue.amazonaws.com/1/q")),
        ("https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com/1/q",
         QueueAddress(name="q", region="eu-west-1",
                      url="https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com/1/q",
                      endpoint_url="https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com")),
        ("http://localhost:4566/000000000000/q",
         QueueAddress(name="q", url="http://localhost:4566/000000000000/q",
                      endpoint_url="http://localhost:4566")),
    ],
)  # fmt: skip
def test_a_name_a_url_and_an_arn_are_read(value: str, expected: QueueAddress) -> None:
    assert QueueAddress.parse(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/q", "eu-west-1/123456789012"),
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/q/", "eu-west-1/123456789012"),
        ("arn:aws-cn:sqs:cn-north-1:123456789012:q.fifo", "cn-north-1/123456789012"),
        ("https://eu-west-1.queue.amazonaws.com/123456789012/q", "eu-west-1/123456789012"),
        (
            "https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com/123456789012/q",
            "eu-west-1/123456789012",
        ),
        ("https://sqs.eu-west-1.amazonaws.com/queue/q", None),
        ("http://localhost:4566/123456789012/q", None),
        ("q", None),
    ],
)
def test_a_url_or_an_arn_says_where_the_queue_is(value: str, expected: str | None) -> None:
    assert QueueAddress.parse(value).location == expected
    assert location_of(value) == expected


def test_a_url_that_cannot_be_read_says_nothing() -> None:
    assert location_of("https://") is None


FORMS = "is not a queue name, its URL (https://sqs.REGION.amazonaws.com/ACCOUNT/NAME) or its ARN"
NO_URL = "is not a queue URL (https://HOST/ACCOUNT/NAME)"
NO_ARN = "is not an SQS ARN (arn:aws:sqs:REGION:ACCOUNT:NAME)"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", FORMS),
        ("two words", FORMS),
        ("a" * 81, FORMS),
        ("a/b", FORMS),
        ("arn:aws:sns:eu-west-1:123456789012:topic", NO_ARN),
        ("arn:aws:sqs:eu-west-1:123456789012:", NO_ARN),
        ("arn:aws:sqs:eu-west-1:123456789012:bad*name", FORMS),
        ("ftp://host/1/q", NO_URL),
        ("https://host", NO_URL),
        ("https://host/q", NO_URL),
        ("https:///1/q", NO_URL),
        ("http://host:x/1/q", NO_URL),
        ("http://ho st/1/q", NO_URL),
        ("http://[::1/1/q", NO_URL),
        ("https://sqs.eu-west-1.amazonaws.com/1/bad*name", FORMS),
    ],
)
def test_anything_else_is_refused(value: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        QueueAddress.parse(value)
    assert str(caught.value) == f"{value!r} {reason}"


@pytest.mark.parametrize(
    ("page", "url"),
    [
        (
            (
                "https://eu-west-1.console.aws.amazon.com/sqs/v3/home?region=eu-west-1#/queues/"
                "https%3A%2F%2Fsqs.eu-west-1.amazonaws.com%2F123456789012%2Fshop-mail"
            ),
            "https://sqs.eu-west-1.amazonaws.com/123456789012/shop-mail",
        ),
        (
            "https://console.aws.amazon.com/sqs/v3/home?region=eu-west-1",
            "https://sqs.REGION.amazonaws.com/ACCOUNT/NAME",
        ),
    ],
)
def test_a_page_of_the_console_is_refused_with_the_queues_url(page: str, url: str) -> None:
    with pytest.raises(ValueError, match="is a page of the AWS console; write the queue") as caught:
        QueueAddress.parse(page)
    assert str(caught.value).endswith(f"write the queue's URL: {url}")


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        QueueAddress.parse("https://user:hunter2@host/1/q")
    assert str(caught.value) == "a queue URL must not contain a user name or password"


def test_fifo_queues_end_in_fifo() -> None:
    assert QueueAddress.parse("a.fifo").is_fifo
    assert not QueueAddress.parse("a").is_fifo
