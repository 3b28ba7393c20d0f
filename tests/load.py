"""How slow the machine is while a test runs: the control of every test that measures time."""

from __future__ import annotations

import threading
import time

#: Length of a turn on an idle machine, in seconds.
TURN = 0.005


class Load:
    """Performs short turns in a thread, and measures how much longer they take than they should.

        with Load() as load:
            began = time.monotonic()
            ...
            assert time.monotonic() - began < load.seconds(2)

    A turn sleeps, as something that waits does, and computes, as something that works does.
    """

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="load", daemon=True)
        self._expected = self._taken = self._latest = 0.0

    def _measure(self) -> None:
        while not self._ended.is_set():
            began, computed = time.monotonic(), time.thread_time()
            time.sleep(TURN)
            sum(range(10_000))
            expected = TURN + time.thread_time() - computed
            taken = time.monotonic() - began
            self._expected += expected
            self._taken += taken
            self._latest = max(self._latest, taken - expected)

    @property
    def factor(self) -> float:
        """How many times as long the turns took as on an idle machine; at least 1."""
        return max(self._taken / self._expected, 1.0)

    def seconds(self, idle: float) -> float:
        """Return the time that is worth `idle` seconds of an idle machine, up to now.

        In proportion to what the turns took, and three times the longest delay of one: a few of
        those may fall into any measured time.
        """
        return idle * self.factor + 3 * self._latest

    def __enter__(self) -> Load:
        self._thread.start()
        while self._expected < 8 * TURN:
            time.sleep(TURN)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
