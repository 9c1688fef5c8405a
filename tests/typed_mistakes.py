"""Calls that a type checker must refuse, each marked ``# wrong``, beside some that are right.

Nobody runs this file. tests/unit/test_typing.py has mypy read it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from beanstalk_dispatch.client import aschedule_function, schedule_function
from beanstalk_dispatch.contrib.tasks import task
from beanstalk_dispatch.safe_task import SafeTask

P = ParamSpec("P")
R = TypeVar("R")


def send_mail(to: int, subject: str, *, urgent: bool = False) -> None: ...


async def fetch(url: str) -> int:
    return len(url)


def timed(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    return call


@timed
def decorated(number: int) -> None: ...


@functools.wraps(send_mail)
def wrapped(number: int) -> None: ...


class Report(SafeTask, max_attempts=3):
    def run(self, year: int, title: str = "") -> None: ...


class Job:
    def __init__(self, year: int) -> None: ...


@task
def count(text: str) -> int:
    return len(text)


@task
async def acount(text: str) -> int:
    return len(text)


@task(max_attempts=3)
async def patient(text: str) -> int:
    return len(text)


@task(takes_context=True)
async def knowing(context: object, text: str) -> int:
    return len(text)


def right() -> None:
    schedule_function("mail", send_mail, 7, "hello", urgent=True)
    schedule_function("mail", send_mail, to=7, subject="hello")
    schedule_function("mail", fetch, "https://example.com")
    schedule_function("mail", decorated, 7)
    schedule_function("mail", wrapped, 7)
    schedule_function("mail", Report, 2026, title="sales")
    schedule_function("mail", Report(max_attempts=2), 2026)
    schedule_function("mail", SafeTask(send_mail, timeout=5), 7, "anything goes")
    schedule_function("mail", count, "words")
    schedule_function("mail", "shop.tasks.any", 1, two=2)
    number: int = acount.enqueue("words").return_value or 0
    number += patient.enqueue("words").return_value or 0
    number += knowing.enqueue("words").return_value or 0
    number += count.enqueue("words").return_value or 0


async def right_too() -> str:
    await aschedule_function("mail", Report, year=2026)
    return await aschedule_function("mail", send_mail, 7, "hello")


async def wrong() -> None:
    schedule_function("mail", send_mail, "x", "hello")  # wrong
    schedule_function("mail", send_mail, 7, subjct="hello")  # wrong
    schedule_function("mail", send_mail, 7)  # wrong
    schedule_function("mail", send_mail)  # wrong
    schedule_function("mail", send_mail, 7, "hello", True)  # wrong
    schedule_function("mail", send_mail, 7, "hello", urgent="yes")  # wrong
    schedule_function("mail", send_mail, 7, "hello", delay=60)  # wrong
    schedule_function("mail", send_mail(7, "hello"))  # wrong
    schedule_function("mail", fetch, 7)  # wrong
    schedule_function("mail", decorated, "x")  # wrong
    schedule_function("mail", wrapped, "x")  # wrong
    schedule_function("mail", Report)  # wrong
    schedule_function("mail", Report, "2026")  # wrong
    schedule_function("mail", Report, 2026, titel="sales")  # wrong
    schedule_function("mail", Report, max_attempts=2)  # wrong
    schedule_function("mail", Report(), "2026")  # wrong
    schedule_function("mail", Job, 2026)  # wrong
    schedule_function("mail", count, 7)  # wrong
    schedule_function("mail", count, "words", on_commit=True)  # wrong
    schedule_function(send_mail, "mail", 7, "hello")  # wrong
    schedule_function(7, send_mail, 7, "hello")  # wrong
    schedule_function("mail", 7)  # wrong
    await aschedule_function("mail", send_mail, "x", "hello")  # wrong
    await aschedule_function("mail", Report, 2026, on_commit=True)  # wrong
    text: str = await aschedule_function("mail", acount, text=7)  # wrong
    text = acount.enqueue("words").return_value  # wrong
    text += schedule_function("mail", "shop.tasks.any").id  # wrong
