"""How long calls hold a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import servers


class Held:
    """How long each call holds a server, in milliseconds.

    On Linux, the processor time of its main thread. The clock of its slowlog goes on while the
    machine runs others, and on a busy one times every tenth call at over 5 ms.
    """

    def __init__(self, server: servers.Server) -> None:
        self._raw = server.raw
        self._stat = f"/proc/{server.pid}/schedstat"
        self.calls: list[float] = []
        self._raw.config_set("slowlog-log-slower-than", 0)
        self._raw.config_set("slowlog-max-len", 5)

    def __call__(self, call: Callable[..., Any], *args: Any) -> Any:
        """Make a call that is one step on the server."""
        before = self._now()
        result = call(*args)
        after = self._now()
        self.calls.append(self._logged() if before is None else (after - before) / 1e6)
        return result

    def _now(self) -> Any:
        try:
            with open(self._stat) as file:
                return int(file.read().split()[0]) or None
        except OSError:
            return None

    def _logged(self) -> float:
        steps = [each for each in self._raw.slowlog_get(5) if each["command"].startswith(b"EVAL")]
        return float(steps[0]["duration"]) / 1000

    def check(self, at_least: int, most: int | None = None) -> None:
        """Nothing in these calls held the server for more than 5 ms; or at most so many."""
        calls, self.calls = self.calls, []
        assert len(calls) >= at_least
        over = [call for call in calls if call > 5]
        # A neighbour on the machine takes the caches, and a hypervisor takes time that counts as
        # the server's: some are allowed. A step that does too much does so most of the time.
        allowed = 1 + len(calls) // 2 if most is None else most
        assert len(over) <= allowed, (len(calls), over)
