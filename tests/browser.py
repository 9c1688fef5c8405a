"""A headless Chromium, with which tests use the pages, and ``docs.pictures`` shows them.

with browser() as page:
    page.open(url)
    page.click("input[type=submit]")
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_BUTTON_OF_A_MOUSE: Final = {"button": "left", "clickCount": 1}


def find_browser() -> str | None:
    """The path of a Chromium on this machine."""
    return shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """One page of a headless Chromium, spoken to through a pipe.

    https://chromedevtools.github.io/devtools-protocol/
    """

    def __init__(self, command: str, directory: str) -> None:
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--remote-debugging-pipe",
                   f"--user-data-dir={directory}"]  # fmt: skip
        # Chromium reads commands from file 3 and answers on file 4. Debian's sh takes no file
        # number above 9 here.
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", command, *options, "about:blank"],
            pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL,
            env=os.environ | {"TMPDIR": directory},  # it leaves directories there
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._numbers, self._buffer, self._session = itertools.count(1), b"", ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")
        self.show_as()

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

    def _wait_for_page(self) -> None:
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            found = os.read(self._in, 1 << 20)
            assert found, "Chromium has ended"
            self._buffer += found
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def show_as(
        self, *, width: int = 1200, height: int = 900, is_dark: bool = False,
        runs_scripts: bool = True,
    ) -> None:  # fmt: skip
        """Set the size of the window and what the person who looks at it has chosen."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not runs_scripts)

    def log_in(self, url: str, session: str) -> None:
        """Use a session of Django."""
        self.call("Network.setCookie", name="sessionid", value=session, url=url)

    def open(self, url: str) -> None:
        """Open a page, and wait until it is there."""
        self.call("Page.navigate", url=url)
        self._wait_for_page()

    def click(self, selector: str, *, opens_page: bool = True) -> None:
        """Click on the middle of an element, and wait for the page that it opens."""
        x, y = self.evaluate(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)});"
            "found.scrollIntoView({block: 'center'});"
            "const box = found.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        for event in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=event, x=x, y=y, **_BUTTON_OF_A_MOUSE)
        if opens_page:
            self._wait_for_page()

    def type(self, text: str) -> None:
        """Type into the field that was clicked on."""
        self.call("Input.insertText", text=text)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, also of one that may run no scripts itself."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    @property
    def words(self) -> str:
        """What a person reads on the page."""
        return " ".join(self.evaluate("document.body.innerText").split())

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        width: int = self.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return width

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)


@contextmanager
def browser(command: str) -> Iterator[Browser]:
    """A browser until the block ends. ``command`` is what ``find_browser`` has found."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        found = Browser(command, directory)
        try:
            yield found
        finally:
            found.close()
