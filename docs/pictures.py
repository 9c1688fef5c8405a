"""Take the pictures of docs/dead-letters.md, with the example project and a headless Chromium.

    python -m docs.pictures

It needs a Chromium on the machine. ``make pictures`` runs it.
"""

from __future__ import annotations

import base64
import http.cookiejar
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from example_settings.demo import wait_for

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


class Browser:
    """A headless Chromium, spoken to through a pipe.

    https://chromedevtools.github.io/devtools-protocol/
    """

    def __init__(self, directory: str) -> None:
        command = shutil.which("chromium") or shutil.which("google-chrome")
        if command is None:
            raise SystemExit("no Chromium is on this machine")
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--remote-debugging-pipe",
                   f"--user-data-dir={directory}"]  # fmt: skip
        # Chromium reads commands from file 3 and answers on file 4.
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", script, "sh", command, *options, "about:blank"],
            pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._numbers, self._buffer, self._session = itertools.count(1), b"", ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        session = {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message | session).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                result: dict[str, Any] = answer["result"]
                return result

    def wait_for(self, event: str) -> None:
        """Wait for an event."""
        while self._read().get("method") != event:
            pass

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            self._buffer += os.read(self._in, 1 << 20)
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def take(self, picture: Picture, url: str) -> bytes:
        """Open a page, and return a picture of it."""
        scheme = "dark" if picture.is_dark else "light"
        self.call(
            "Emulation.setDeviceMetricsOverride", width=picture.width, height=picture.height,
            deviceScaleFactor=1, mobile=picture.width < 600,
        )  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")
        shot = self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(shot["data"])

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait()


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
    with demo() as (url, password), tempfile.TemporaryDirectory() as directory:
        session, letter = log_in(url, password)
        browser = Browser(directory)
        try:
            browser.call("Network.setCookie", name="sessionid", value=session, url=url)
            for picture in PICTURES:
                image = browser.take(picture, url + picture.page.format(id=letter))
                (IMAGES / picture.name).write_bytes(image)
                print(f"written: docs/images/{picture.name}")
        finally:
            browser.close()


if __name__ == "__main__":
    main()
