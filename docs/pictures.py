"""Take the pictures of docs/dead-letters.md, with the example project and a headless Chromium.

    python -m docs.pictures

It needs a Chromium on the machine. ``make pictures`` runs it.
"""

from __future__ import annotations

import base64
import http.cookiejar
import re
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from example_settings.demo import wait_for
from tests.browser import browser, find_browser

ROOT: Final = Path(__file__).resolve().parents[1]
IMAGES: Final = ROOT / "docs" / "images"
QUEUE: Final = "demo-work-dead-letter/"


class Picture(NamedTuple):
    """One picture: its file, the page below that of the queues, and how it is looked at."""

    name: str
    page: str
    width: int
    height: int
    is_dark: bool = False


PICTURES: Final = (
    Picture("admin-letters.png", QUEUE, 1200, 900),
    Picture("admin-letter-dark.png", f"{QUEUE}letter/{{id}}/", 1200, 570, is_dark=True),
    Picture("admin-phone.png", QUEUE, 390, 800),
)


@contextmanager
def demo() -> Iterator[tuple[str, str]]:
    """The example project's admin. Gives the address of its queues, and its password."""
    command = [sys.executable, "-m", "example_settings.demo_admin"]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=pipe, stderr=nowhere) as process:
        try:
            assert process.stdout
            lines = [process.stdout.readline() for _ in range(3)]
            url = lines[1].strip()
            wait_for(urllib.parse.urlsplit(url).port or 80)
            yield url, lines[2].split()[-1]
        finally:
            process.send_signal(signal.SIGINT)


def log_in(url: str, password: str) -> tuple[str, str]:
    """The session's cookie, and the id of a letter with a traceback."""
    cookies = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
    login = urllib.parse.urljoin(url, "/admin/login/")
    opener.open(login).read()
    values = {cookie.name: cookie.value or "" for cookie in cookies}
    form = {
        "username": "demo", "password": password, "next": "/admin/",
        "csrfmiddlewaretoken": values["csrftoken"],
    }  # fmt: skip
    opener.open(login, urllib.parse.urlencode(form).encode()).read()
    page = opener.open(f"{url}{QUEUE}?function=charge_card&exception=RuntimeError").read().decode()
    (session,) = [cookie.value or "" for cookie in cookies if cookie.name == "sessionid"]
    return session, re.findall(r"/letter/([\w-]+)/", page)[0]


def main() -> None:
    """Take every picture."""
    command = find_browser()
    if command is None:
        raise SystemExit("no Chromium is on this machine")
    with demo() as (url, password), browser(command) as page:
        session, letter = log_in(url, password)
        page.log_in(url, session)
        for picture in PICTURES:
            page.show_as(width=picture.width, height=picture.height, is_dark=picture.is_dark)
            page.open(url + picture.page.format(id=letter))
            shot = page.call("Page.captureScreenshot", format="png")
            (IMAGES / picture.name).write_bytes(base64.b64decode(shot["data"]))
            print(f"written: docs/images/{picture.name}")


if __name__ == "__main__":
    main()
