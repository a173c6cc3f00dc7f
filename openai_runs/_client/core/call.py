"""The state of one call over its attempts, and the classification of its failures."""

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
    "Ambiguity",
    "Call",
    "Polled",
    "is_already_deleted",
    "is_ambiguous",
    "is_duplicate_rejected",
    "is_transient",
    "was_not_sent",
]


class Ambiguity:
    """Whether a request may have been carried out although no answer came.

    Kept by the caller of `Pipeline.send`, since it must be known after a cancellation too.
    """

    maybe_sent: bool = False


class Call(msgspec.Struct, kw_only=True):
    """A request, and the state of its attempts."""

    spec: Any
    """A `RequestSpec[T]`."""
    url: str
    """Only its path until the embedded server is started; see `has_address`."""
    has_address: bool
    headers: dict[str, str]
    """May be shared with other calls: copied before anything is changed."""
    key: str | None = None
    """The idempotency key."""
    prefer_name: str = ""
    """How the header `Prefer` is spelled in `headers`; empty until it is needed."""
    timeout: float
    """Seconds for one attempt."""
    deadline: float | None = None
    sent: dict[str, str] = {}
    """The headers of the last attempt."""
    attempts: int = 0
    is_pending: bool = False
    """Whether an attempt is in progress."""
    maybe_sent: bool = False
    """Whether an attempt may have been carried out although it failed."""
    permit: Permit = NO_PERMIT
    """The rate limiter's permit for the last attempt."""
    rate_limited: int = 0
    """429s that do not count as attempts."""
    failing_since: float | None = None
    """When the first attempt failed."""
    outage_since: float | None = None
    """When the first of the last failures in a row that were no 429 came."""

    @property
    def is_idempotent(self) -> bool:
        """Return whether it can be carried out twice without harm."""
        return self.spec.retry is Retry.IDEMPOTENT

    def is_spent(self, policy: RetryPolicy, failure: APIError, now: float) -> bool:
        """Count `failure`, and return whether no attempt is left after it."""
        if self.failing_since is None:
            self.failing_since = now
        if isinstance(failure, RateLimitError):
            self.outage_since = None
            # A 429 carried out nothing, and the limiter paces what is sent: a call with a timeout
            # is retried until its deadline, whatever the number of its 429s.
            self.rate_limited += self.deadline is not None and policy.max_retries > 0
        elif self.outage_since is None:
            self.outage_since = now
        outage = 0.0 if self.outage_since is None else now - self.outage_since
        attempts = self.attempts - self.rate_limited
        return retry.is_spent(policy, attempts, now - self.failing_since, outage)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return what the last attempt was sent with and no error may repeat."""
        return secrets_of(self.sent, self.url)

    @property
    def shown_url(self) -> str:
        """Return the URL without its query, for messages."""
        return self.url.partition("?")[0]


class Polled(NamedTuple):
    """One answered poll."""

    answer: Any
    headers: Mapping[str, str]
    is_held: bool
    """Whether the server held the request back until something changed."""


def is_ambiguous(failure: APIError) -> bool:
    """Return whether the request may have been carried out although it failed."""
    if isinstance(failure, APIStatusError):
        return retry.is_ambiguous(failure.status_code)
    return isinstance(failure, APIConnectionError) and failure.sent


def was_not_sent(failure: APIError) -> bool:
    """Return whether the request provably was not carried out, and may be sent again."""
    if isinstance(failure, APIConnectionError):
        return not failure.sent
    return isinstance(failure, RateLimitError)


def is_duplicate_rejected(call: Call, failure: APIError) -> bool:
    """Return whether the server may reject this attempt because an earlier one had worked."""
    return call.maybe_sent and failure.status_code in {400, 409}


def is_transient(failure: APIError) -> bool:
    """Return whether the same request may succeed later."""
    if isinstance(failure, APIStatusError):
        return retry.is_retryable(failure.status_code, failure.headers, failure.code)
    return isinstance(failure, APIConnectionError) and failure.retryable


def is_already_deleted(call: Call, failure: APIError) -> bool:
    """Return whether a repeated DELETE found nothing since an earlier attempt had worked."""
    return call.maybe_sent and call.spec.deleted_body != b"" and failure.status_code == 404
