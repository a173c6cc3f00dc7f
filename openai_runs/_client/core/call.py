"""One call: what stays the same between its attempts, and what its failures mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from openai_runs._client.core.rate_limiter import NO_PERMIT, Permit
from openai_runs._protocol import retry
from openai_runs._protocol.masking import secrets_of
from openai_runs._protocol.spec import Retry
from openai_runs.config import RetryPolicy
from openai_runs.errors import APIConnectionError, APIError, APIStatusError, RateLimitError

__all__ = [
    "Call",
    "Doubt",
    "Polled",
    "is_ambiguous",
    "is_gone",
    "is_refusal",
    "is_transient",
    "was_not_sent",
]


class Doubt:
    """Whether a request may have been carried out although no answer came."""

    unsure: bool = False


class Call(msgspec.Struct, kw_only=True):
    """A request with what stays the same between its attempts, and how far it got."""

    spec: Any
    """A `RequestSpec[T]`."""
    url: str
    """Without the server's address until the embedded server has told it."""
    headers: dict[str, str]
    key: str | None = None
    timeout: float
    """Seconds for one attempt."""
    deadline: float | None = None
    sent: dict[str, str] = {}
    """The headers of the last attempt."""
    attempts: int = 0
    pending: bool = False
    """Whether an attempt is under way."""
    doubted: bool = False
    """Whether an attempt may have been carried out although it failed."""
    turn: Permit = NO_PERMIT
    """The limiter's leave for the last attempt."""
    refusals: int = 0
    """429s that do not count as attempts."""
    failing_since: float | None = None
    """When the first attempt had failed."""
    silent_since: float | None = None
    """When the first of the last failures in a row that were no 429 had come."""

    @property
    def is_nowhere(self) -> bool:
        """Return whether it is not known yet where the server is."""
        return self.url.startswith("/")

    @property
    def guarded(self) -> bool:
        """Return whether carrying it out twice would do harm."""
        return bool(self.spec.retry == Retry.GUARDED)

    def is_spent(self, policy: RetryPolicy, failure: APIError, now: float) -> bool:
        """Return whether no attempt is left after `failure`, of which note is taken."""
        if self.failing_since is None:
            self.failing_since = now
        if isinstance(failure, RateLimitError):
            self.silent_since = None
            # Nothing was carried out, and the limiter paces what is sent: who has given a
            # time-out waits in a queue, and is not turned away for having asked three times.
            self.refusals += self.deadline is not None and policy.max_retries > 0
        elif self.silent_since is None:
            self.silent_since = now
        silent = 0.0 if self.silent_since is None else now - self.silent_since
        attempts = self.attempts - self.refusals
        return retry.is_spent(policy, attempts, now - self.failing_since, silent)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return what the last attempt was sent with that no error may repeat."""
        return secrets_of(self.sent, self.url)

    @property
    def shown_url(self) -> str:
        """Return the URL without its query, for messages."""
        return self.url.partition("?")[0]


class Polled(NamedTuple):
    """One answered poll."""

    answer: Any
    headers: Mapping[str, str]
    held: bool
    """Whether the server held the request back until something changed."""


def is_ambiguous(failure: APIError) -> bool:
    """Return whether the request may have been carried out although it failed."""
    if isinstance(failure, APIStatusError):
        return retry.in_doubt(failure.status_code)
    return isinstance(failure, APIConnectionError) and failure.sent


def was_not_sent(failure: APIError) -> bool:
    """Return whether the request provably was not carried out, and may be sent again."""
    if isinstance(failure, APIConnectionError):
        return not failure.sent
    return isinstance(failure, RateLimitError)


def is_refusal(call: Call, failure: APIError) -> bool:
    """Return whether the server said no perhaps because an earlier attempt had worked."""
    return call.doubted and failure.status_code in {400, 409}


def is_transient(failure: APIError) -> bool:
    if isinstance(failure, APIStatusError):
        return retry.is_retryable(failure.status_code, failure.headers, failure.code)
    return isinstance(failure, APIConnectionError) and failure.retryable


def is_gone(call: Call, failure: APIError) -> bool:
    """Return whether a DELETE sent again was told that the first one had worked."""
    return call.doubted and call.spec.gone != b"" and failure.status_code == 404
