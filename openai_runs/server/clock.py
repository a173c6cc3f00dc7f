"""The server's clock: wall time, and waking up at one.

Stored deadlines are wall times, so that they hold across restarts; everything else that
is measured inside the process uses the event loop's own clock.
"""

from __future__ import annotations

import math
import time
from typing import Final, Protocol

import anyio

__all__ = ["Clock", "SystemClock"]

_LONGEST_SLEEP: Final = 1.0
"""Seconds after which the wall clock is checked again, in case somebody set it."""


class Clock(Protocol):
    """What the server asks of a clock; tests bring one that they move by hand."""

    def now(self) -> float:
        """Return Unix seconds."""
        ...

    async def sleep_until(self, when: float) -> None:
        """Return once `now()` is at least `when`.

        Args:
            when: Unix seconds; infinity is never reached.

        Cancellation: ends the wait.
        """
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Return Unix seconds."""
        return time.time()

    async def sleep_until(self, when: float) -> None:
        """Return once `now()` is at least `when`, also if the clock is set meanwhile.

        Args:
            when: Unix seconds; infinity is never reached.

        Cancellation: ends the wait.
        """
        if math.isinf(when):
            await anyio.sleep_forever()
        while (left := when - time.time()) > 0:  # noqa: ASYNC110 - it is time that is waited for
            await anyio.sleep(min(left, _LONGEST_SLEEP))
