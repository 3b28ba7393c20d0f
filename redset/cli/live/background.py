"""The thread that asks the server for the live view: the screen never waits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from textual.app import App
from textual.message import Message


class Finished(Message):
    """A call in the background ended: a message for the application."""

    def __init__(self, then: Callable[[Any, Exception | None], None], result: Any) -> None:
        super().__init__()
        self._then, self._result = then, result
        self.error: Exception | None = None

    def pass_on(self) -> None:
        """Call what waits for the result."""
        self._then(self._result, self.error)


class Background:
    """Runs calls one after another in a thread of its own.

    The end of the process does not wait for the thread, since a server may be slow to answer.
    """

    def __init__(self, app: App[Any]) -> None:
        self._app = app
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._perform, name="redset-top", daemon=True).start()

    def run(self, call: Callable[[], Any], then: Callable[[Any, Exception | None], None]) -> None:
        """Run a call. Its result, or its error, is passed on in the application's thread."""
        self._calls.put((call, then))

    def end(self) -> None:
        """Run no more."""
        self._calls.put(None)

    def _perform(self) -> None:
        while (job := self._calls.get()) is not None:
            call, then = job
            done = Finished(then, None)
            try:
                done = Finished(then, call())
            except Exception as error:
                done.error = error
            self._app.post_message(done)
