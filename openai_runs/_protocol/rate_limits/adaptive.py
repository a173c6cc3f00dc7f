"""An adaptive rate, for servers that answer 429 without saying how much they allow.

Halved when a tenth of the answers are refusals, raised slowly while they are not (AIMD, as
TCP does since RFC 5681), forgotten after a minute without any. Pure: seconds of a monotonic
clock are passed in.
"""

from __future__ import annotations

import math
from typing import Final

from openai_runs.config import RATE_WINDOW

__all__ = ["AdaptiveRate", "RateMeter"]


class RateMeter:
    """How many events a second there were of late."""

    TAU: Final = 2.0
    """Seconds after which an event counts for a third."""

    def __init__(self) -> None:
        """Nothing has happened yet."""
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
    """A rate that is cut and raised by what the answers are, as TCP does."""

    START: Final = 20.0
    """Requests a second after the first refusals, if nobody knows how many were sent before."""
    FLOOR: Final = 0.125
    """Requests a second; one in 8 s, as the longest pause between retries."""
    SHARE: Final = 0.1
    """Share of refusals among the answers at which the rate is cut."""
    ENOUGH: Final = 10
    """Refusals after which to judge, without waiting for `PERIOD`."""
    PERIOD: Final = 1.0
    """Seconds of answers after which to judge."""
    RECOVERY: Final = 0.1
    """Share of itself by which the rate grows each second after a cut."""
    MIN_RECOVERY: Final = 0.5
    """Requests a second that it grows each second at least."""

    def __init__(self) -> None:
        """Hold nothing back."""
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
        """Take note of one answer, and cut the rate if there were too many refusals.

        Args:
            refused: Whether it was a 429.
            number: How many had been sent with the request; what was sent before the last
                cut says nothing about the rate since.
            sent: How many have been sent by now.
            usual: How many were sent a second of late; 0 if nobody counted.
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
        if self._is_first:  # nothing is known of what the server takes: slow start
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
            # A timer that came late makes up for it, but for no more than a moment.
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
