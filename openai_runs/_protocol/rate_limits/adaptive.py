"""An adaptive rate, for servers that answer 429 without saying how much they allow.

Halved when a tenth of the answers are 429s, raised slowly while they are not (AIMD, as TCP does
since RFC 5681), dropped after a minute without any. Pure: seconds of a monotonic
clock are passed in.
"""

from __future__ import annotations

import math
from typing import Final

from openai_runs.config import RATE_WINDOW

__all__ = ["AdaptiveRate", "RateMeter"]


class RateMeter:
    """The recent rate of events, as an exponential moving average."""

    TAU: Final = 2.0
    """Time constant in seconds: an event then counts for 1/e, about a third."""

    def __init__(self) -> None:
        """Start at 0."""
        self._value = 0.0
        self._at = 0.0

    def read(self, now: float) -> float:
        """Return the events a second."""
        return self._value * math.exp(-max(0.0, now - self._at) / self.TAU)

    def count(self, now: float) -> None:
        """Count one event."""
        self._value = self.read(now) + 1 / self.TAU
        self._at = now


class AdaptiveRate:
    """A rate that is cut by 429s and raised without them, as TCP does."""

    START: Final = 20.0
    """Requests a second after the first 429s, if the rate before is not known."""
    FLOOR: Final = 0.125
    """Requests a second; one in 8 s, as the longest pause between retries."""
    SHARE: Final = 0.1
    """Share of 429s among the answers at which the rate is cut."""
    ENOUGH: Final = 10
    """429s after which to decide without waiting for `PERIOD`."""
    PERIOD: Final = 1.0
    """Seconds of answers after which to decide."""
    RECOVERY: Final = 0.1
    """Share of itself by which the rate grows each second after a cut."""
    MIN_RECOVERY: Final = 0.5
    """Requests a second that it grows each second at least."""

    def __init__(self) -> None:
        """Start without a limit."""
        self._base: float | None = None
        self._is_first = True
        self._cut_at = 0.0
        self._next = 0.0
        self._number = -1
        self._began = 0.0
        self._answers = self._refusals = 0

    def on_answer(
        self, *, refused: bool, number: int, sent: int, usual: float, start: float, now: float
    ) -> None:
        """Record one answer, and cut the rate if there were too many 429s.

        Args:
            refused: Whether it was a 429.
            number: How many had been sent with the request; answers to requests sent before the
                last cut are ignored.
            sent: How many have been sent by now.
            usual: The recent rate, in requests a second; 0 if not counted.
            start: When sending goes on, `now` or the end of a pause.
            now: Seconds.
        """
        if number <= self._number:
            return
        if not self._is_gathering(now):
            self._answers = self._refusals = 0
            if not refused:
                return
            self._began = now
        self._answers += 1
        self._refusals += refused
        if self._refusals < self.ENOUGH and now - self._began < self.PERIOD:
            return
        if self._refusals >= self._answers * self.SHARE:
            self._cut(usual, start, now)
            self._number = sent
        self._answers = self._refusals = 0

    def is_watching(self, now: float) -> bool:
        """Return whether answers must be counted: the rate is cut, or may be about to be."""
        return self._is_gathering(now) or self.rate(now) is not None

    def rate(self, now: float) -> float | None:
        """Return the requests a second that may be sent; None: any number."""
        if self._base is None:
            return None
        age = max(0.0, now - self._cut_at)
        if age >= RATE_WINDOW:
            self._base, self._is_first = None, True
            return None
        if self._is_first:  # the server's limit is unknown: slow start
            return float(self._base * 2.0**age)
        return self._base + age * max(self._base * self.RECOVERY, self.MIN_RECOVERY)

    def delay(self, now: float, count: int = 1) -> float:
        """Return the seconds until the next one may be sent, or the `count`-th from now."""
        rate = self.rate(now)
        return 0.0 if rate is None else max(0.0, self._next - now) + (count - 1) / rate

    def take(self, now: float) -> None:
        """Count one as sent."""
        rate = self.rate(now)
        if rate is not None:
            # A late timer catches up, for at most 50 ms.
            self._next = max(self._next, now - 0.05) + 1 / rate

    def _is_gathering(self, now: float) -> bool:
        return self._refusals > 0 and now - self._began <= 2 * self.PERIOD

    def _cut(self, usual: float, start: float, now: float) -> None:
        current = self.rate(now)
        self._is_first = current is None and usual < self.START
        if self._is_first:
            self._base = self.START
        else:
            used = min(math.inf if current is None else current, max(usual, self.FLOOR))
            self._base = max(used / 2, self.FLOOR)
        self._cut_at = start
