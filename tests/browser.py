"""A headless Chromium that a test drives, over two pipes, by the DevTools protocol.

with browser.start(tmp_path) as chromium:
    page = chromium.visit("file:///tmp/index.html", width=390)
    assert page.errors == []
    assert chromium.evaluate("document.title") == "redset"
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import servers

#: Seconds that the browser may take for an answer.
LIMIT = 30.0
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Visit(NamedTuple):
    """One page that was loaded, with the errors of the browser's console."""

    url: str
    errors: list[str]


class Chromium:
    """One tab. `commands` and `answers` are ends of pipes; a NUL ends each message."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._unread = b""
        self._events: list[dict[str, Any]] = []
        self._number = 0
        self._session: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result
            self._events.append(message)

    def visit(self, url: str, width: int, height: int = 900) -> Visit:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self._events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(self._next())
        # Work that is under way on this page ends before its reply.
        self.evaluate("new Promise(done => setTimeout(done, 50))")
        return Visit(url, [text for event in self._events for text in _errors(event)])

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression, awaited."""
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + LIMIT
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._answers], [], [], max(end - time.monotonic(), 0))
            assert ready, f"no answer of the browser in {LIMIT:g} s"
            came = os.read(self._answers, 1 << 20)
            assert came, "the browser has ended"
            self._unread += came
        message, _, self._unread = self._unread.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


def _errors(event: dict[str, Any]) -> Iterator[str]:
    """Yield the error of a console event, if it is one."""
    parameters = event.get("params", {})
    if event.get("method") == "Runtime.exceptionThrown":
        yield str(parameters["exceptionDetails"])
    elif event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] == "error":
        yield str(parameters["args"])
    elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
        yield f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}"


@contextlib.contextmanager
def start(profile: Path) -> Iterator[Chromium]:
    """Start a browser with an empty profile; Missing if there is none."""
    path = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if path is None or shutil.which("bash") is None:
        raise servers.Missing("browser: no chromium (Debian: apt install chromium)")
    ends = [*os.pipe(), *os.pipe()]
    # Chromium reads file 3 and writes file 4: our ends must have other numbers.
    their_in, commands, answers, their_out = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in ends)
    for end in ends:
        os.close(end)
    process = subprocess.Popen(
        [
            *("bash", "-c", f'exec "$0" "$@" 3<&{their_in} 4>&{their_out}', path),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        ],
        pass_fds=(their_in, their_out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(their_in)
    os.close(their_out)
    try:
        yield Chromium(commands, answers)
    finally:
        os.close(commands)
        os.close(answers)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
