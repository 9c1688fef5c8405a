"""The address of a queue, read from a queue name, URL or ARN without a request to AWS."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

# Patterns are strings here and in casts: most processes match none of them, and re keeps those that
# are compiled.

FIFO_SUFFIX: Final = ".fifo"
"""The end of the name of each FIFO queue, and of no other.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html
"""

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html
NAME: Final = r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo"
REGION: Final = r"[a-z]{2,8}(-[a-z]+)+-\d+"

# The hosts that a client uses by default for its region, and the legacy hosts that queue URLs
# still contain: https://docs.aws.amazon.com/general/latest/gr/sqs-service.html
REGIONAL_HOSTS: Final = (
    rf"(sqs\.(?P<region>{REGION})\.amazonaws\.(com(\.cn)?|eu)"
    rf"|((?P<legacy>{REGION})\.)?queue\.amazonaws\.com(\.cn)?)"
)
# Hosts that contain their region but must be given to a client as its endpoint: FIPS, dual-stack,
# a VPC endpoint, an isolated partition, a local server.
OTHER_HOSTS: Final = rf"(.+\.)?sqs(-fips)?\.(?P<region>{REGION})\..+"
_DOMAINS_BY_PARTITION = {"aws-cn": "amazonaws.com.cn", "aws-eusc": "amazonaws.eu"}
ARN: Final = (
    rf"arn:(?P<partition>aws[a-z-]*):sqs:(?P<region>{REGION}):(?P<account>\d{{12}}):(?P<name>.+)"
)

_ACCOUNT: Final = r"\d{12}"

CONSOLE: Final = rf"https://(({REGION})\.)?console\.(aws\.amazon\.com|amazonaws\.cn)/"

# The host names that botocore accepts in an endpoint; it also accepts an IPv6 address.
_HOST: Final = r"(?=.{1,254}$)(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?"

_FORMS = "a queue name, its URL (https://sqs.REGION.amazonaws.com/ACCOUNT/NAME) or its ARN"


def is_fifo(queue_name: str) -> bool:
    """Return True for the own name of a FIFO queue: SQS requires the suffix.

    A FIFO queue takes no delay for a message, so a retry hides the received message, and no delayed
    copy can be sent. It refuses a message without a MessageGroupId, and is the only one to take a
    MessageDeduplicationId. The messages of a group arrive in the order in which they were sent. So
    after a message that was not sent no later one may be sent, and while one is in flight SQS
    delivers no other message of its group.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
    """
    return queue_name.endswith(FIFO_SUFFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueAddress:
    """The facts about a queue that its name, URL or ARN contains, so no request to AWS is made."""

    name: str
    """The queue's own name."""
    url: str | None = None
    """The queue's URL. None if only the name is known; SQS then has to be asked for it."""
    region: str | None = None
    """The queue's region. None if neither the URL nor the ARN contains it."""
    endpoint_url: str | None = None
    """The endpoint of the URL, if it is not the default one of an AWS region."""

    @property
    def location(self) -> str | None:
        """Return the region and account, such as ``eu-west-1/123456789012``; None if not known."""
        *_, account, _ = ["", *urlsplit(self.url or "").path.strip("/").split("/")]
        is_known = self.region and re.fullmatch(_ACCOUNT, account)
        return f"{self.region}/{account}" if is_known else None

    @property
    def is_fifo(self) -> bool:
        """Return True for a FIFO queue."""
        return is_fifo(self.name)

    def is_same_queue(self, other: QueueAddress) -> bool:
        """Return True if both stand for one queue, as far as they say its region and account."""
        places = {self.region, other.region} - {None}, {self.location, other.location} - {None}
        return self.name == other.name and all(len(each) < 2 for each in places)

    @classmethod
    def parse(cls, value: str) -> QueueAddress:
        """Read a queue name, URL or ARN. Raise ValueError if it is none of these."""
        if value.startswith("arn:"):
            return cls._from_arn(value)
        if "://" in value:
            return cls._from_url(value)
        return cls(name=_checked_name(value, value))

    @classmethod
    def _from_arn(cls, value: str) -> QueueAddress:
        match = re.fullmatch(ARN, value)
        if match is None:
            raise ValueError(f"{value!r} is not an SQS ARN (arn:aws:sqs:REGION:ACCOUNT:NAME)")
        domain = _DOMAINS_BY_PARTITION.get(match["partition"], "amazonaws.com")
        name, region = _checked_name(match["name"], value), match["region"]
        return cls(
            name=name,
            region=region,
            url=f"https://sqs.{region}.{domain}/{match['account']}/{name}",
        )

    @classmethod
    def _from_url(cls, value: str) -> QueueAddress:
        if "@" in value:
            raise ValueError("a queue URL must not contain a user name or password")
        if re.match(CONSOLE, value):
            raise ValueError(
                f"{value!r} is a page of the AWS console; {_url_on_console_page(value)}"
            )
        host = endpoint_host(value)
        path = urlsplit(value).path.strip("/").split("/") if host else []
        if host is None or len(path) < 2:
            raise ValueError(f"{value!r} is not a queue URL (https://HOST/ACCOUNT/NAME)")
        name, url = _checked_name(path[-1], value), value.rstrip("/")
        if match := re.fullmatch(REGIONAL_HOSTS, host):
            region = match["region"] or match["legacy"] or "us-east-1"
            return cls(name=name, url=url, region=region)
        parts = urlsplit(value)
        other = re.fullmatch(OTHER_HOSTS, host)
        return cls(
            name=name,
            url=url,
            region=other["region"] if other else None,
            endpoint_url=f"{parts.scheme}://{parts.netloc}",
        )


def dead_letter_name(queue_name: str) -> str:
    """Return the name of the dead-letter queue that this package makes for a queue, of its type."""
    suffix = FIFO_SUFFIX if queue_name.endswith(FIFO_SUFFIX) else ""
    return f"{queue_name.removesuffix(suffix)}-dead-letter{suffix}"


def location_of(url: str) -> str | None:
    """Return the region and account in a queue URL of SQS.

    Return None if the URL is not like those of AWS.
    """
    try:
        return QueueAddress.parse(url).location
    except ValueError:
        return None


def _url_on_console_page(page: str) -> str:
    """Return advice for the console's page of a queue, whose fragment has the URL."""
    fragment = unquote(urlsplit(page).fragment)
    match = re.search(r"https://sqs\.[\w.-]+/\d{12}/[\w.-]+", fragment)
    url = match[0] if match else "https://sqs.REGION.amazonaws.com/ACCOUNT/NAME"
    return f"write the queue's URL: {url}"


def endpoint_host(url: str) -> str | None:
    """Return the host of an http or https URL; None if botocore would refuse the URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        written = f"[{ipaddress.IPv6Address(host)}]" if ":" in host else host
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not (url.isprintable() and " " not in url):
        return None
    if ":" not in host and not re.fullmatch(_HOST, host):
        return None
    return host if parts.netloc.lower() in {written, f"{written}:{port}"} else None


def _checked_name(name: str, value: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ValueError(f"{value!r} is not {_FORMS}")
    return name
