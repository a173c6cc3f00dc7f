"""The two time limits of a stream: the timeout of the call, and that of a silence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from openai_runs.config import STREAM_DRAIN

__all__ = ["IdleTimer"]

_LAST_POLL: Final = 0.9
"""Share of the whole time after which the run is polled, in case its stream has stalled."""


class IdleTimer:
    """The deadlines of one stream, on a monotonic clock, in seconds.

    Two of them: the whole time of the call (`deadline`), and how long a silence may last before
    the run is polled (`limit`).
    """

    def __init__(self, now: Callable[[], float], *, timeout: float | None, idle: float) -> None:
        """Start both; with `timeout` None the run's expiry is the deadline (`allow`)."""
        self.now = now
        self.began = now()
        self._since = self.began
        self._idle = idle
        self.deadline = None if timeout is None else self.began + timeout
        self._is_last_poll_made = False
        self._drained: float | None = None

    def allow(self, seconds: float) -> None:
        """Set the deadline, if the caller has set none."""
        if self.deadline is None:
            self.deadline = self.now() + seconds

    def restart(self) -> None:
        """Count the silence from now on."""
        self._since = self.now()

    def polled(self) -> None:
        """Restart after a poll of the run."""
        if self.now() < self._since + self._idle:
            # The poll came before the silence was too long: the whole time was almost up.
            # Without this, `limit` would be in the past, and the run polled in a loop.
            self._is_last_poll_made = True
        self.restart()

    def seconds_left(self) -> float:
        """Return what is left of the whole time; infinity while there is no deadline."""
        return math.inf if self.deadline is None else self.deadline - self.now()

    def limit(self, *, is_draining: bool) -> float:
        """Return when to stop reading and poll the run."""
        if is_draining:
            # Set once: events after the run's last one must not extend it.
            self._drained = self._drained or self.now() + STREAM_DRAIN
            return self._drained
        self._drained = None
        limit = self._since + self._idle
        if self.deadline is None:
            return limit
        share = 1.0 if self._is_last_poll_made else _LAST_POLL
        return min(limit, self.began + (self.deadline - self.began) * share)
