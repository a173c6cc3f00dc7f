"""How many requests may be sent, and when: allowances as pure functions of answers and time.

Theory of operation. Four limits bound what a client sends, and the strictest applies. *Fixed*
limits are the caller's: a bucket whose burst and refill together stay below the limit in
any 60 s. What the server *says* in `x-ratelimit-*` is spread over the time to its reset once
it runs low. A *pause* is what a 429 asked for in `Retry-After`. And where 429s come without
that, or go on right after it, the rate is *adaptive*: halved when a tenth of the answers are
429s, raised slowly while they are not (AIMD, as TCP does since RFC 5681), dropped after a minute
without any.

What a server said is dropped at its reset. A reset more than 120 s away delays nothing: the caller
gets the server's own 429.

Times are seconds of a monotonic clock, and passed in.
"""

from __future__ import annotations

import math
import re
from typing import Final

from openai_runs._protocol.rate_limits.adaptive import AdaptiveRate, RateMeter
from openai_runs.config import MAX_RETRY_AFTER, RATE_WINDOW
from openai_runs.types.http import RateLimit

__all__ = [
    "Allowance",
    "Limits",
    "TokenAccount",
    "TokenBucket",
    "bucket_of",
    "reset_seconds",
]

BURST_SHARE: Final = 0.05
"""Share of a fixed limit that may be used at once after a rest."""
MARGIN: Final = 0.02
"""Share of a fixed limit that is not used, since requests bunch up on the network: 1.2 s."""
SCARCE_SHARE: Final = 0.5
"""Share of the server's limit below which the rest is spread over the time to the reset."""
SETTLING_TIME: Final = 1.0
"""Seconds after a pause in which a further 429 cuts the rate too."""
ASSUMED_RESET: Final = 10.0
"""Seconds, where the server names no reset; Azure judges periods of 1 or 10 s."""
_MAX_DURATION_CHARS: Final = 40
_NUMBER: Final = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PART: Final = re.compile(rf"({_NUMBER})(h|ms|m|s|us|µs|μs|ns)")
_UNITS: Final = {
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,  # Go writes U+00B5 and reads both
    "ns": 1e-9,
}
_INSTANT: Final = 1e-6
"""Seconds that count as none: a clock's float may be unable to move by less."""


def reset_seconds(text: str | None) -> float | None:
    """Return the seconds in a Go duration, or in a plain number of them; None if it is neither.

    >>> reset_seconds("6m0s"), reset_seconds("120ms"), reset_seconds("59"), reset_seconds("soon")
    (360.0, 0.12, 59.0, None)
    """
    if text is None or len(text) > _MAX_DURATION_CHARS:
        return None
    text = text.strip()
    if re.fullmatch(_NUMBER, text):
        return float(text)
    seconds, at = 0.0, 0
    while part := _PART.match(text, at):
        seconds, at = seconds + float(part[1]) * _UNITS[part[2]], part.end()
    return seconds if 0 < at == len(text) else None


class TokenBucket:
    """An allowance that refills steadily, up to a burst, and may be overdrawn."""

    def __init__(self, *, burst: float, rate: float, now: float) -> None:
        """Start full; `rate` is what it gains a second."""
        self.rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def level(self, now: float) -> float:
        """Return what is there; less than 0 is a debt."""
        return min(self._burst, self._level + max(0.0, now - self._at) * self.rate)

    def delay(self, now: float, amount: float = 1.0) -> float:
        """Return the seconds until `amount` will be there, a larger one than the burst too."""
        return max(0.0, (amount - self.level(now)) / self.rate)

    def take(self, now: float, amount: float = 1.0) -> None:
        """Take `amount`, whether it is there or not; less than 0 gives back."""
        self._level = min(self._burst, self.level(now) - amount)
        self._at = max(now, self._at)


def bucket_of(per_minute: float, now: float) -> TokenBucket:
    """Return a bucket that gives at most `per_minute` in whole pieces in any 60 s.

    At most burst + 60 x rate can be taken in a minute, which stays below `per_minute` + 1.

    >>> bucket = bucket_of(1000, 0.0)
    >>> bucket.level(0.0), round(bucket.rate * 60)
    (50.0, 932)
    """
    burst = max(1.0, per_minute * BURST_SHARE)
    return TokenBucket(
        burst=burst, rate=(per_minute + 1 - burst) * (1 - MARGIN) / RATE_WINDOW, now=now
    )


class TokenAccount:
    """Tokens of runs, charged by an estimate: what a run uses is known when it has ended.

    A run in progress is charged with the mean of earlier runs, so that not all creates that wait
    for the refill are sent at the same moment.
    """

    MAX_OPEN: Final = 100_000
    """Runs in progress that are kept; the oldest are dropped."""
    WEIGHT: Final = 0.2
    """Weight of the last run in the mean."""

    def __init__(self, per_minute: int, now: float) -> None:
        """Start without any run."""
        self._bucket = bucket_of(per_minute, now)
        self._open: dict[str, float] = {}
        self._mean: float | None = None

    def delay(self, now: float) -> float:
        """Return the seconds until no debt is left."""
        return self._bucket.delay(now, 0.0)

    def begin(self, now: float) -> float:
        """Charge a run that is about to be created, and return with how much."""
        guess = self._mean or 0.0
        self._bucket.take(now, guess)
        return guess

    def undo(self, guess: float, now: float) -> None:
        """Give back what was charged for a run that was not created."""
        self._bucket.take(now, -guess)

    def began(self, run_id: str, guess: float | None = None) -> None:
        """Remember what this run was charged with; None: about the present mean."""
        self._open.setdefault(run_id, (self._mean or 0.0) if guess is None else guess)
        if len(self._open) > self.MAX_OPEN:
            del self._open[next(iter(self._open))]

    def ended(self, run_id: str, used: int, now: float) -> None:
        """Charge what the run used in place of the guess; once, and only for runs begun here."""
        guess = self._open.pop(run_id, None)
        if guess is None:
            return
        self._bucket.take(now, used - guess)
        self._mean = used if self._mean is None else self._mean + self.WEIGHT * (used - self._mean)


class Allowance:
    """What a server still grants by its headers, and until when."""

    def __init__(self) -> None:
        """Begin without a limit."""
        self.limit: int | None = None
        """The limit; where the server names none, the largest `remaining` so far."""
        self._left: int | None = None
        self._until = 0.0
        self._next = 0.0
        self._number = 0
        self._is_guess = False

    def update(
        self,
        *,
        limit: int | None,
        remaining: int | None,
        reset: float | None,
        number: int,
        sent: int,
        now: float,
    ) -> None:
        """Update from one answer.

        Args:
            limit: The most there can be.
            remaining: What is left, by this answer.
            reset: Seconds until it is whole again.
            number: How many had been sent with the request that is answered, itself
                included. Answers arrive out of order: one to an older request than the last
                one used, such as a held poll, is ignored.
                0: not counted.
            sent: How many have been sent by now; the later ones are not in `remaining`.
            now: Seconds.
        """
        if self.remaining(now) is None:
            self._number = 0  # any answer is new; its request may not have been counted
        if remaining is None or number < self._number:
            return
        self._number = number
        self.limit = max(self.limit or 0, remaining) if limit is None else limit
        self._left = remaining - (sent - number if number else 0)
        self._until = now + (ASSUMED_RESET if reset is None else reset)
        self._is_guess = False

    def remaining(self, now: float) -> int | None:
        """Return what is left by now; None if nothing is known."""
        if self._left is not None and now >= self._until:
            # After a reset all waiters are released at once: at most as many as the limit.
            self._left = None if self._is_guess else self.limit or None
            self._until, self._is_guess = now + RATE_WINDOW, True
        return self._left

    def reset(self, now: float) -> float | None:
        """Return the seconds until it is whole again; None if nothing is known."""
        return None if self.remaining(now) is None else self._until - now

    def delay(self, now: float, count: int = 1) -> float:
        """Return the seconds until the next one may be sent, or the `count`-th from now."""
        left, wait = self.remaining(now), self._until - now
        if left is None or wait > MAX_RETRY_AFTER:
            return 0.0
        if left < count:
            return wait
        if not self._is_scarce(left):
            return 0.0
        return min(wait, max(0.0, self._next - now) + (count - 1) * wait / left)

    def take(self, now: float) -> None:
        """Count one as sent."""
        left = self.remaining(now)
        if left is not None:
            self._left = left = left - 1
            self._next = now + (self._until - now) / max(1, left) if self._is_scarce(left) else now

    def rate(self, now: float) -> float | None:
        """Return how many a second use up what is left just by the reset; None: any number."""
        left, wait = self.remaining(now), self._until - now
        if left is None or wait > MAX_RETRY_AFTER:
            return None
        return max(1, left) / max(wait, _INSTANT)

    def _is_scarce(self, left: int) -> bool:
        return left < (self.limit or 0) * SCARCE_SHARE


class Limits:
    """All limits of one client; the strictest applies."""

    def __init__(
        self, *, requests_per_minute: int | None, tokens_per_minute: int | None, now: float
    ) -> None:
        """Start with the caller's fixed limits, where there are any."""
        self.sent = 0
        """Requests so far; a request's number is this count once it is sent."""
        self.requests = Allowance()
        """The server's limit of requests."""
        self.tokens = Allowance()
        """The server's limit of tokens."""
        self.adaptive = AdaptiveRate()
        self.meter = RateMeter()
        self._paused_until = -math.inf
        self._pause_number = -1
        self._bucket = None if requests_per_minute is None else bucket_of(requests_per_minute, now)
        self.account = None if tokens_per_minute is None else TokenAccount(tokens_per_minute, now)
        """What runs use, under a fixed limit of tokens."""

    def delay(self, now: float, count: int = 1) -> float:
        """Return the seconds until the next request may go, or the `count`-th from now."""
        longest = max(
            self._paused_until - now,
            self.requests.delay(now, count),
            self.adaptive.delay(now, count),
            0.0 if self._bucket is None else self._bucket.delay(now, count),
        )
        return longest if longest > _INSTANT else 0.0

    def token_delay(self, now: float) -> float:
        """Return the seconds until a run may be created, as far as tokens go."""
        debt = 0.0 if self.account is None else self.account.delay(now)
        left, reset = self.tokens.remaining(now), self.tokens.reset(now)
        wait = 0.0
        if left is not None and reset is not None and left <= 0 and reset <= MAX_RETRY_AFTER:
            wait = reset
        longest = max(debt, wait)
        return longest if longest > _INSTANT else 0.0

    def take(self, now: float) -> int:
        """Count one request as sent, and return its number."""
        self.sent += 1
        self.meter.count(now)
        self.requests.take(now)
        self.adaptive.take(now)
        if self._bucket is not None:
            self._bucket.take(now)
        return self.sent

    def rate(self, now: float) -> float | None:
        """Return the requests a second that can be kept up; None: any number."""
        fixed = None if self._bucket is None else self._bucket.rate
        rates = (fixed, self.requests.rate(now), self.adaptive.rate(now))
        return min((rate for rate in rates if rate is not None), default=None)

    def paused(self, now: float) -> float:
        """Return the seconds for which the server has asked to send nothing."""
        return max(0.0, self._paused_until - now)

    def is_limiting(self, now: float) -> bool:
        """Return whether any limit applies, so that requests must be counted."""
        server = (self.requests.remaining(now), self.tokens.remaining(now))
        buckets = (self._bucket, self.account)
        known = any(one is not None for one in (*server, *buckets))
        pause_is_over = now > self._paused_until + SETTLING_TIME
        return known or not pause_is_over or self.adaptive.is_watching(now)

    def on_headers(self, headers: RateLimit, number: int, now: float) -> None:
        """Update from the `x-ratelimit-*` headers of an answer."""
        self.requests.update(
            limit=headers.limit_requests,
            remaining=headers.remaining_requests,
            reset=reset_seconds(headers.reset_requests),
            number=number,
            sent=self.sent,
            now=now,
        )
        self.tokens.update(
            limit=headers.limit_tokens,
            remaining=headers.remaining_tokens,
            reset=reset_seconds(headers.reset_tokens),
            number=number,
            sent=number,  # the cost of the later ones is not known yet
            now=now,
        )

    def on_answer(self, *, refused: bool, asked: float | None, number: int, now: float) -> None:
        """Record whether an answer was a 429, and the pause it asked for.

        A pause of more than 120 s is ignored: the caller of that request gets the error.
        """
        if refused and asked is not None and asked <= MAX_RETRY_AFTER:
            if now > self._paused_until + SETTLING_TIME:
                self._pause_number = self.sent
            self._paused_until = max(self._paused_until, now + asked)
            if number <= self._pause_number:
                return  # it was sent before the pause began, which covers its 429
        self.adaptive.on_answer(
            refused=refused,
            number=number,
            sent=self.sent,
            usual=self.meter.read(now),
            start=now + self.paused(now),
            now=now,
        )
