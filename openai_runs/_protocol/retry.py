"""Whether and when a failed attempt is repeated, and the pauses between polls. Pure functions.

Theory of operation. An attempt ends in one of three ways. It *was not sent*: there was no
connection, so repeating it cannot carry it out twice. It was *answered*: the status and the
headers say whether repeating helps. Or it is *ambiguous*: sent, but no answer came, or one
that does not say whether the work was done (408, any 5xx). Idempotent requests (GET, DELETE)
are repeated in all three cases. Others, which create or change something, are repeated only
if they were not sent, on 429, or where the server remembers idempotency keys. Where such a
request is ambiguous, the caller verifies whether it was carried out (runs), or the error is
raised with `maybe_created`.

A budget shared by a client's calls (botocore's and gRPC's retry throttle) keeps retries
from multiplying the load on a server that is already failing.
"""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from openai_runs.config import (
    DEFAULT_RUN_LIFETIME,
    MAX_POLL_HINT,
    MAX_RETRY_AFTER,
    MIN_POLL_DELAY,
    RETRY_BUDGET,
    RETRY_COST,
    PollPolicy,
    RetryPolicy,
)

__all__ = [
    "RetryBudget",
    "backoff",
    "is_ambiguous",
    "is_retryable",
    "is_spent",
    "is_too_long",
    "poll_after",
    "poll_pause",
    "retry_after",
    "server_time",
]

_RETRYABLE: Final = frozenset({408, 409, 429})
_FINAL_CODES: Final = frozenset(
    {"insufficient_quota", "idempotency_key_reused", "stream_position_lost"}
)
"""Error codes that are not transient, whatever their status."""
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]*)?(?:[eE][+\-]?[0-9]+)?")
"""Fewer forms than `float` accepts: no sign, no NaN, no `1_0`, no digits of other scripts."""


def is_retryable(status: int, headers: Mapping[str, str], code: str | None) -> bool:
    """Return whether the same request may succeed later; `x-should-retry` wins.

    >>> is_retryable(503, {}, None), is_retryable(400, {}, None)
    (True, False)
    """
    said = headers.get("x-should-retry", "").strip().lower()
    if said in {"true", "false"}:
        return said == "true"
    return code not in _FINAL_CODES and (status in _RETRYABLE or status >= 500)


def is_ambiguous(status: int) -> bool:
    """Return whether the request may or may not have been carried out, by this status.

    >>> is_ambiguous(408), is_ambiguous(503), is_ambiguous(429)
    (True, True, False)
    """
    return status == 408 or status >= 500


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds the server asks to wait; None without a number or date.

    A date counts from the answer's own `Date`, so that a client clock that is off does not matter;
    `now` (Unix seconds) stands in where the server sends none.

    >>> retry_after({"retry-after-ms": "1500"}, 0.0), retry_after({"retry-after": "-1"}, 0.0)
    (1.5, None)
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        milliseconds = _number(headers.get(name))
        if milliseconds is not None:
            return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    when = _date(text)
    if when is None:
        return None
    sent = server_time(headers)
    return max(0.0, when - (now if sent is None else sent))


def server_time(headers: Mapping[str, str]) -> float | None:
    """Return the answer's `Date` as Unix seconds, or None."""
    return _date(headers.get("date", ""))


def is_too_long(seconds: float | None) -> bool:
    """Return whether a server asks for a longer pause than MAX_RETRY_AFTER."""
    return seconds is not None and seconds > MAX_RETRY_AFTER


def is_spent(policy: RetryPolicy, attempt: int, failing: float, outage: float) -> bool:
    """Return whether a call has been tried as often, or for as long, as its policy allows.

    Args:
        policy: The numbers.
        attempt: Which attempt failed (the first is 1).
        failing: Seconds since the first failure of the call.
        outage: Seconds since the first of the last failures in a row that were no 429: a
            server that answers 429 is up.

    >>> is_spent(RetryPolicy(max_retries=2), 3, 1.0, 1.0)
    True
    >>> is_spent(RetryPolicy(patience=60.0), 30, 90.0, 0.0)
    False
    """
    if policy.patience is None or not policy.max_retries:
        return attempt > policy.max_retries
    return outage >= policy.patience or failing >= max(policy.patience, DEFAULT_RUN_LIFETIME)


def backoff(policy: RetryPolicy, attempt: int, asked: float | None, chance: float) -> float:
    """Return the seconds to wait after the failed `attempt` (the first is 1).

    Args:
        policy: The numbers.
        attempt: Which attempt failed.
        asked: What `retry_after` says.
        chance: A random number from 0 to 1.

    >>> backoff(RetryPolicy(jitter=0.0), 3, None, 0.5)
    2.0
    """
    if asked is None:
        pause = min(policy.initial * 2.0 ** min(attempt - 1, 30), policy.maximum)
        pause *= 1 - policy.jitter * chance
    else:
        pause = asked
    # A retry without a pause, for `patience` seconds, would overload the server.
    return pause if policy.patience is None else max(pause, policy.initial, MIN_POLL_DELAY)


def poll_after(headers: Mapping[str, str]) -> float | None:
    """Return the server's `openai-poll-after-ms` in seconds, within bounds; None if it is none.

    >>> poll_after({"openai-poll-after-ms": "1500"}), poll_after({"openai-poll-after-ms": "0"})
    (1.5, None)
    """
    milliseconds = _number(headers.get("openai-poll-after-ms"))
    if not milliseconds:
        return None
    return min(max(milliseconds / 1000, MIN_POLL_DELAY), MAX_POLL_HINT)


def poll_pause(policy: PollPolicy, count: int, chance: float) -> float:
    """Return the seconds between two polls without a hint of the server.

    Args:
        policy: The numbers.
        count: Which pause this is (the first is 1).
        chance: A random number from 0 to 1.

    >>> poll_pause(PollPolicy(initial=1.0, factor=2.0), 3, 0.0)
    4.0
    """
    pause = min(policy.initial * policy.factor ** min(count - 1, 64), policy.maximum)
    return max(pause * (1 - policy.jitter * chance), MIN_POLL_DELAY)


class RetryBudget:
    """Tokens that retries use and successes return; without any, a call fails fast."""

    def __init__(self, capacity: float = RETRY_BUDGET, cost: float = RETRY_COST) -> None:
        """Start full."""
        self._capacity = capacity
        self._cost = cost
        self._tokens = capacity
        self._paid: deque[tuple[float, str]] = deque(maxlen=max(1, int(capacity / cost)))
        """The last retries that were paid for: when, and after which failure."""

    @property
    def tokens(self) -> float:
        """Return what is left."""
        return self._tokens

    def acquire(self, failure: str = "failures", now: float = 0.0) -> bool:
        """Return whether a retry after this kind of failure may be made, and use its tokens."""
        if self._tokens < self._cost:
            return False
        self._tokens -= self._cost
        self._paid.append((now, failure))
        return True

    def why_spent(self, now: float) -> str:
        """Return what the tokens were spent on, and what to do, for an error's text."""
        kinds = Counter(failure for _, failure in self._paid)
        what = ", ".join(f"{count} after {kind}" for kind, count in kinds.most_common())
        seconds = max(1, math.ceil(now - self._paid[0][0])) if self._paid else 0
        return (
            "not retried, since this client's budget for retries is spent: "
            f"{len(self._paid)} retries in the last {seconds} s ({what}). {self._cost:g} successes "
            "pay for one more; RetryPolicy(patience=...) retries outside of the budget"
        )

    def succeeded(self) -> None:
        """Return one token."""
        if self._tokens < self._capacity:
            self._tokens = min(self._capacity, self._tokens + 1.0)


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    stripped = text.strip()
    return float(stripped) if _NUMBER.fullmatch(stripped) else None


def _date(text: str) -> float | None:
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    if when.tzinfo is None:  # RFC 5322's "-0000": no zone is known, HTTP dates are UTC
        when = when.replace(tzinfo=UTC)
    return (when - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
