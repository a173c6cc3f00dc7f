"""How long a stream is listened to in silence, and when its whole time is up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from openai_runs.config import STREAM_DRAIN

__all__ = ["IdleTimer"]

_LAST_LOOK: Final = 0.9
"""Share of the whole time after which the run is looked at, in case its stream has stalled."""


class IdleTimer:
    """The deadlines of one stream, on a monotonic clock, in seconds."""

    def __init__(self, now: Callable[[], float], *, timeout: float | None, idle: float) -> None:
        """Begin to count; `timeout` None: the run will say how long it has (`allow`)."""
        self.now = now
        self.began = now()
        self._since = self.began
        self._idle = idle
        self.deadline = None if timeout is None else self.began + timeout
        self._has_looked = False
        self._end: float | None = None

    def allow(self, seconds: float) -> None:
        """Set the deadline, if the caller has set none."""
        if self.deadline is None:
            self.deadline = self.now() + seconds

    def heard(self) -> None:
        """Count the silence from now on."""
        self._since = self.now()

    def looked(self) -> None:
        """Take note that the run was looked at, so that not every moment asks for a look."""
        if self.now() < self._since + self._idle:
            self._has_looked = True  # before its time, because the whole time was almost up
        self.heard()

    def seconds_left(self) -> float:
        """Return what is left of the whole time; infinity while nobody has set it."""
        return math.inf if self.deadline is None else self.deadline - self.now()

    def limit(self, *, is_over: bool) -> float:
        """Return when to stop listening and find out what is the matter.

        `is_over` is whether all was said, and only the end of the stream is to come.
        """
        if is_over:
            # From the first time on: what comes behind the end must not put it off.
            self._end = self._end or self.now() + STREAM_DRAIN
            return self._end
        self._end = None
        limit = self._since + self._idle
        if self.deadline is None:
            return limit
        share = 1.0 if self._has_looked else _LAST_LOOK
        return min(limit, self.began + (self.deadline - self.began) * share)
