from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from beanstalk_dispatch.conf import casts, secret_casts
from beanstalk_dispatch.conf.casts import InvalidValue
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.conf.secret_casts import Secret, signing_keys, signing_keys_of_file

Cast = Callable[[object], Any]

KEY = "0123456789abcdef"
NO_KEY = "contains no key; remove the variable to send unsigned messages"
SHORT_KEY = (
    "has a key of fewer than 16 characters, which can be guessed; a comma or whitespace in a key "
    "makes two keys of it, unless it stands in a JSON list"
)
REFERENCE = (
    "is the ARN of a secret, not its value; set the ARN in the option namespace "
    "aws:elasticbeanstalk:application:environmentsecrets, which replaces it with the value"
)
NOT_UTF8 = "\udcff"
"""What os.environ has for a byte that is not UTF-8."""

NOT_A_PAIR = (
    "is not a pair; write name=value without whitespace around '=', and whitespace or commas "
    "between pairs"
)
NOT_A_TABLE_ENTRY = (
    "is not name=package.module.attribute; write dots between the parts of the path, and "
    "whitespace or commas between pairs"
)
REST_OF_A_NAME = "; if it belongs to 'mail=shop': no name has whitespace in it"
SECONDS = "; a number alone means seconds"
NOT_AN_ENDPOINT = "is a queue's URL, which is not an endpoint; remove its path"
UNDERSCORE = "; a host's name has no underscore: rename that service"
NOT_A_URL = "is not a URL; write https://host or http://host:port"
A_MODULE = "write shop.tasks or shop.tasks.send_welcome"
NOT_A_NETWORK = "is not an IP address or network; write one like 10.0.0.1 or 10.0.0.0/8"
NOT_A_DURATION = "is not a duration; write 90, 90s, 5m or 1h"
NOT_A_RATE = "is not a rate; write a number from 0 to 1"
NOT_MINUTES = "is not an integer from 1 to 99999"
NOT_A_REGION = "is not an AWS region; write one like eu-west-1"
NOT_A_CREDENTIAL = "contains whitespace or non-ASCII characters"
PASSWORD = "a user name or password in the URL is not accepted"

json_or_base64 = casts.choice("json", "base64")
NOT_A_DESTINATION = "is not a destination; write stdout or udp://127.0.0.1:25888"
path_or_off = casts.absolute_path("off")
absolute_path = casts.absolute_path()
minutes = casts.integer(1, 99_999)


@pytest.mark.parametrize(
    ("cast", "value", "expected"),
    [
        (casts.string, "é", "é"),
        (secret_casts.credential, "AKIA/+=", "AKIA/+="),
        (casts.boolean, "True", True),
        (casts.boolean, "yes", True),
        (casts.boolean, "on", True),
        (casts.boolean, "1", True),
        (casts.boolean, "OFF", False),
        (casts.boolean, "no", False),
        (casts.boolean, "false", False),
        (casts.boolean, "0", False),
        (casts.boolean, True, True),
        (casts.boolean, 0, False),
        (casts.duration, "90", timedelta(seconds=90)),
        (casts.duration, "0.5s", timedelta(seconds=0.5)),
        (casts.duration, "5m", timedelta(minutes=5)),
        (casts.duration, "1.5h", timedelta(minutes=90)),
        (casts.duration, "0.5d", timedelta(hours=12)),
        (casts.duration, 90, timedelta(seconds=90)),
        (casts.duration, timedelta(seconds=3), timedelta(seconds=3)),
        (casts.age, "14d", timedelta(days=14)),
        (casts.age, timedelta(minutes=16), timedelta(minutes=16)),
        (minutes, "5", 5),
        (minutes, "99999", 99_999),
        (minutes, 60, 60),
        (casts.rate, "0.25", 0.25),
        (casts.rate, "0", 0.0),
        (casts.rate, 1, 1.0),
        (casts.rate, 0.5, 0.5),
        (casts.strings, "one two,three", ("one", "two", "three")),
        (casts.strings, "one,\n two, ", ("one", "two")),
        (casts.strings, '["with space"]', ("with space",)),
        (casts.strings, ["one", "two"], ("one", "two")),
        (casts.strings, (), ()),
        (casts.strings_or_off, " Off ", ()),
        (casts.strings_or_off, "off on", ("off", "on")),
        (casts.strings_or_off, ["off"], ("off",)),
        (secret_casts.credential, "AKIA", Secret("AKIA")),
        (secret_casts.token, KEY, Secret(KEY)),
        (casts.integer(1, 20), "20", 20),
        (casts.integer(1, 20), 1, 1),
        (signing_keys, f"{KEY} {KEY}2", (Secret(KEY), Secret(f"{KEY}2"))),
        (signing_keys, f'["a {KEY}, b"]', (Secret(f"a {KEY}, b"),)),
        (signing_keys_of_file, f"a {KEY},\n\n \n {KEY}2 ",
         (Secret(f"a {KEY},"), Secret(f"{KEY}2"))),
        (signing_keys_of_file, f'["{KEY}"]', (Secret(KEY),)),
        (casts.pairs, "a=1 b=2", {"a": "1", "b": "2"}),
        (casts.pairs, "a=1, b=2,", {"a": "1", "b": "2"}),
        (casts.pairs, "a=1=2", {"a": "1=2"}),
        (casts.pairs, '{"a": "1"}', {"a": "1"}),
        (casts.pairs, {"a": "1"}, {"a": "1"}),
        (casts.table, "a=m.f b=m.C.f", {"a": "m.f", "b": "m.C.f"}),
        (casts.table, {"a": "a check judges this"}, {"a": "a check judges this"}),
        (casts.queues, "a=q", {"a": QueueAddress(name="q")}),
        (casts.dotted_path, "a.b.C", "a.b.C"),
        (casts.region, "eu-west-1", "eu-west-1"),
        (casts.region, "us-gov-east-1", "us-gov-east-1"),
        (casts.url, "http://127.0.0.1:5000/", "http://127.0.0.1:5000"),
        (casts.url, "http://[::1]:9", "http://[::1]:9"),
        (casts.stdout_or_agent, "stdout", "stdout"),
        (casts.stdout_or_agent, "udp://127.0.0.1:25888", "udp://127.0.0.1:25888"),
        (casts.stdout_or_agent, "udp://[::1]:9", "udp://[::1]:9"),
        (casts.url, "https://a-b.c1.", "https://a-b.c1."),
        (casts.url, "http://127.0.0.1:4566/x", "http://127.0.0.1:4566/x"),
        (casts.path, "cron.yaml", Path("cron.yaml")),
        (casts.path, Path("/cron.yaml"), Path("/cron.yaml")),
        (absolute_path, "/var/app/drain", "/var/app/drain"),
        (absolute_path, Path("/var/app/drain"), "/var/app/drain"),
        (path_or_off, "/var/app/ledger", "/var/app/ledger"),
        (path_or_off, "off", "off"),
        (casts.networks, "10.0.0.0/8 ::1",
         (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))),
        (json_or_base64, "base64", "base64"),
        (casts.dotted_paths, "shop.tasks, mail", ("shop.tasks", "mail")),
        (casts.time_to_live, "1h", timedelta(hours=1)),
        (casts.time_to_live, "30d", timedelta(days=30)),
    ],
)  # fmt: skip
def test_accepted(cast: Cast, value: object, expected: object) -> None:
    found = cast(value)
    assert found == expected
    assert isinstance(found, type(expected)) or isinstance(expected, dict)


@pytest.mark.parametrize(
    ("cast", "value", "error"),
    [
        (casts.string, b"key", "expected a string, not bytes"),
        (casts.string, NOT_UTF8, r"'\udcff' is not valid Unicode"),
        (secret_casts.credential, 5, "expected a string, not int"),
        (secret_casts.token, KEY[1:], "has fewer than 16 characters, so it can be guessed"),
        (secret_casts.token, f"{KEY} {KEY}", NOT_A_CREDENTIAL),
        (casts.integer(1, 20), "0", "'0' is not an integer from 1 to 20"),
        (casts.integer(1, 20), 21, "'21' is not an integer from 1 to 20"),
        (casts.integer(1, 20), "1.0", "'1.0' is not an integer from 1 to 20"),
        (casts.integer(1, 20), True, "'True' is not an integer from 1 to 20"),
        (casts.integer(1, 20), "9" * 5000, f"'{'9' * 5000}' is not an integer from 1 to 20"),
        (secret_casts.credential, "tok-1\ntok-2", NOT_A_CREDENTIAL),
        (secret_casts.credential, "tok tok", NOT_A_CREDENTIAL),
        (secret_casts.credential, "töken", NOT_A_CREDENTIAL),
        (casts.boolean, "Ture", "'Ture' is not a boolean; write True or False"),
        (casts.boolean, 2, "2 is not a boolean; write True or False"),
        (casts.duration, "30 minutes", f"'30 minutes' {NOT_A_DURATION}"),
        (casts.duration, "30M", f"'30M' {NOT_A_DURATION}"),
        (casts.duration, "nan", f"'nan' {NOT_A_DURATION}"),
        (casts.duration, "-1", f"'-1' {NOT_A_DURATION}"),
        (casts.duration, None, f"'None' {NOT_A_DURATION}"),
        (casts.duration, "0", "'0' is out of range; more than 0s and at most 12h" + SECONDS),
        (casts.duration, "13h", "'13h' is out of range; more than 0s and at most 12h"),
        (casts.duration, timedelta(0),
         "datetime.timedelta(0) is out of range; more than 0s and at most 12h"),
        (casts.duration, "9" * 400 + "h", f"'{'9' * 400}h' is too long; at most 12h"),
        *[(minutes, value, f"{str(value)!r} {NOT_MINUTES}")
          for value in ("0", "00", "1.5", "-1", "5m", "²", "100000", 5.0, True, None)],
        *[(casts.rate, value, f"{value!r} {NOT_A_RATE}")
          for value in ("50%", "2", "-0.1", "nan", "inf", 1.5, True, None, b"1", 10**400)],
        (casts.age, "15m", "'15m' is out of range; more than 15m and at most 14d"),
        (casts.age, "15d", "'15d' is out of range; more than 15m and at most 14d"),
        (casts.age, "9" * 400, f"'{'9' * 400}' is too long; at most 14d"),
        (casts.age, "soon", "'soon' is not a duration; write 90, 90s, 5m or 1h"),
        (signing_keys, ",", NO_KEY),
        (signing_keys, "[]", NO_KEY),
        (signing_keys, (), NO_KEY),
        (signing_keys, f"{KEY},{KEY[1:]}", SHORT_KEY),
        (signing_keys, [" " * 16], SHORT_KEY),
        (signing_keys_of_file, f"{KEY}\n{KEY[1:]}", SHORT_KEY),
        (signing_keys_of_file, f"{KEY} {KEY}",
         ("a line of the file is either one key with a comma or whitespace in it, or several keys; "
          "write one key a line, or a JSON list")),
        (secret_casts.refuse_reference, "arn:aws:secretsmanager:eu-west-1:1:secret:a", REFERENCE),
        (secret_casts.refuse_reference, ["a", "arn:aws-us-gov:ssm:us-gov-west-1:1:parameter/a"],
         REFERENCE),
        (casts.strings, {"a": "b"}, "expected a list of strings, not dict"),
        (casts.strings, 5, "expected a list of strings, not int"),
        (casts.strings, "[1]", "1 is not accepted; expected a list of strings"),
        (casts.strings, [""], "'' is not accepted; expected a list of strings"),
        (casts.strings, f"a {NOT_UTF8}",
         r"'\udcff' is not accepted; expected a list of strings"),
        (casts.strings, '["a"', ("starts like JSON but is not JSON (character 4: Expecting ',' "
         "delimiter); write JSON, or items separated by whitespace")),
        (casts.pairs, "mail", f"'mail' {NOT_A_PAIR}"),
        (casts.pairs, "mail=shop mail", f"'mail' {NOT_A_PAIR}{REST_OF_A_NAME}"),
        (casts.pairs, "a=b;c=d", f"'a=b;c=d' {NOT_A_PAIR}; write a space in place of ';'"),
        (casts.pairs, "mail=", f"'mail=' {NOT_A_PAIR}"),
        (casts.pairs, "mail = shop-mail", f"'mail' {NOT_A_PAIR}"),
        (casts.pairs, "=shop-mail", f"'=shop-mail' {NOT_A_PAIR}"),
        (casts.pairs, "mail:shop-mail", f"'mail:shop-mail' {NOT_A_PAIR}; write mail=shop-mail"),
        (casts.pairs, "https://a/b", f"'https://a/b' {NOT_A_PAIR}"),
        (casts.pairs, "arn:aws:sqs", f"'arn:aws:sqs' {NOT_A_PAIR}"),
        (casts.table, "shop.tasks.f", f"'shop.tasks.f' {NOT_A_PAIR}; write f=shop.tasks.f"),
        (casts.pairs, "a=1 a=2", "'a' is given twice"),
        (casts.pairs, '{"a": "1", "a": "2"}', "'a' is given twice"),
        (casts.pairs, '{"a": 1}', "{'a': 1} is not accepted; expected a mapping of strings"),
        (casts.pairs, {"a": ""}, "{'a': ''} is not accepted; expected a mapping of strings"),
        (casts.pairs, {"": "a"}, "{'': 'a'} is not accepted; expected a mapping of strings"),
        (casts.pairs, {5: "a"}, "{5: 'a'} is not accepted; expected a mapping of strings"),
        (casts.pairs, {"a": NOT_UTF8}, r"{'a': '\udcff'} is not valid Unicode"),
        (casts.pairs, '{"\\ud800": "1"}', r"{'\ud800': '1'} is not valid Unicode"),
        (casts.pairs, ["a=1"], "expected a mapping of strings, not list"),
        (casts.pairs, "{mail: shop-mail}", ("starts like JSON but is not JSON (character 1: "
         "Expecting property name enclosed in double quotes); write JSON, or name=value pairs "
         "separated by whitespace")),
        (casts.pairs, "{" + '"a":{' * 100_000, "the JSON is nested too deeply"),
        (casts.table, "a=nodots", f"'a=nodots' {NOT_A_TABLE_ENTRY}"),
        (
            casts.table,
            "a=pkg.mod:f",
            f"'a=pkg.mod:f' {NOT_A_TABLE_ENTRY}; write a dot in place of ':'",
        ),
        (
            casts.table,
            "a=m.f;b=m.g",
            f"'a=m.f;b=m.g' {NOT_A_PAIR}; write a space in place of ';'",
        ),
        (casts.queues, "q=bad*name", ("'bad*name' is not a queue name, its URL "
         "(https://sqs.REGION.amazonaws.com/ACCOUNT/NAME) or its ARN")),
        (casts.dotted_path, "SafeTask",
         "'SafeTask' is not a dotted path; write package.module.Class"),
        (casts.region, "Europe", f"'Europe' {NOT_A_REGION}"),
        *[(casts.stdout_or_agent, value, f"{value!r} {NOT_A_DESTINATION}")
          for value in ("stderr", "tcp://127.0.0.1:9", "udp://agent:9", "udp://1.2:9",
                        "udp://127.0.0.1:65536")],
        (casts.url, "localhost:5000", f"'localhost:5000' {NOT_A_URL}"),
        (casts.url, "https://h/123456789012/q", f"'https://h/123456789012/q' {NOT_AN_ENDPOINT}"),
        (casts.url, "http://my_host", f"'http://my_host' {NOT_A_URL}{UNDERSCORE}"),
        *[(casts.url, url, f"{url!r} {NOT_A_URL}")
          for url in ("http://host:port", "http://host:70000", "http://-host",
                      "http://[::g]", "http://host name", "http://h\x7f", "http://h\u00e4",
                      "http://[::1]x", "http://..", "http:/h")],
        *[(casts.url, url, PASSWORD)
          for url in ("http://user:hunter2@host", "http:/user:hunter2@host",
                      "http://user:hunter2@[host")],
        (casts.path, b"/drain", "expected a path, not bytes"),
        (casts.path, 5, "expected a path, not int"),
        (casts.size, "300 megabytes", "'300 megabytes' is not a size; write 300M or 1G"),
        (absolute_path, "here", "'here' is not an absolute path; write one"),
        (path_or_off, "here", "'here' is not an absolute path; write one or off"),
        (casts.networks, "10.0.0.1/8", f"'10.0.0.1/8' {NOT_A_NETWORK}"),
        (casts.networks, "everyone", f"'everyone' {NOT_A_NETWORK}"),
        (json_or_base64, "JSON", "'JSON' is not accepted; write json or base64"),
        (json_or_base64, 5, "expected a string, not int"),
        (casts.dotted_paths, "shop.tasks shop:tasks",
         f"'shop:tasks' is not a module or a dotted path; {A_MODULE}"),
        (casts.time_to_live, "0", "'0' is out of range; more than 0s and at most 400d" + SECONDS),
        (casts.time_to_live, "401d", "'401d' is out of range; more than 0s and at most 400d"),
    ],
)  # fmt: skip
def test_refused(cast: Cast, value: object, error: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(error)}$"):
        cast(value)


@pytest.mark.parametrize(
    ("cast", "value"),
    [
        (casts.string, f"hush{NOT_UTF8}"),
        (secret_casts.credential, "hush hush"),
        (casts.strings, '["hush'),
        (casts.strings, '[["hush"]]'),
        (casts.strings, '[{"hush": 1, "hush": 2}]'),
        (casts.strings, f"hush{NOT_UTF8}"),
    ],
)
def test_a_reason_never_shows_the_value(cast: Cast, value: object) -> None:
    with pytest.raises(InvalidValue) as caught:
        cast(value)
    assert "hush" not in caught.value.reason
    assert caught.value.reason in str(caught.value)


def test_a_mapping_cannot_be_changed() -> None:
    given = {"a": "m.f"}
    for cast in (casts.pairs, casts.table, casts.queues):
        with pytest.raises(TypeError):
            cast(given if cast is not casts.queues else {"a": "q"})["b"] = "c"  # type: ignore[index]


def test_a_list_of_strings_is_a_copy() -> None:
    given = ["one"]
    found = casts.strings(given)
    given.append("two")
    assert found == ("one",)
    assert json.dumps(found) == '["one"]'


@pytest.mark.parametrize("value", ["'", '"', "", "abca", "'a", "a'", "'a\"", "a b a"])
def test_what_is_in_no_quotes_is_taken_as_it_is(value: str) -> None:
    casts.refuse_shell_syntax(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("'a'", "is in quotes"),
        ('"a"', "is in quotes"),
        ("''", "is in quotes"),
        ("a\\", "backslash"),
    ],
)
def test_what_a_shell_would_have_removed_is_refused(value: str, reason: str) -> None:
    with pytest.raises(InvalidValue, match=reason):
        casts.refuse_shell_syntax(value)


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"/x"


@pytest.mark.parametrize("value", [5, b"/x", BytesPath(), None])
def test_a_path_is_a_string_or_a_path(value: object) -> None:
    with pytest.raises(InvalidValue, match="expected a path, not"):
        casts.path(value)


@pytest.mark.parametrize("end", ["", ",", " ,"])
def test_a_line_with_several_keys_is_refused_whatever_it_ends_with(end: str) -> None:
    with pytest.raises(InvalidValue, match="a line of the file is either one key"):
        signing_keys_of_file("the-first-key-of-two,the-second-key-of-two" + end)
