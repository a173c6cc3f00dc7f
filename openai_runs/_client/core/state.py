"""What a client and its copies share: connections, rate limiter, and the server's features."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import anyio

from openai_runs._client.core.background import BackgroundTasks
from openai_runs._client.core.rate_limiter import RateLimiter
from openai_runs._protocol.retry import RetryBudget
from openai_runs._transport import Transport
from openai_runs.errors import APIConnectionError, APIError

__all__ = ["ClientState", "Outage", "ThreadLock"]

_NONE: Final[frozenset[str]] = frozenset()
_REASON_CHARS: Final = 200


class Outage(NamedTuple):
    """The server gives no usable answer; requests are retried as their policies say."""

    seconds: float
    """Since the first failure after the last answer."""
    reason: str
    """Of that failure."""

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"no usable answer for {self.seconds:.0f} s: {self.reason}"


class ClientState:
    """What a client and its copies share."""

    def __init__(
        self,
        transport: Transport,
        start: Callable[[], Awaitable[str]] | None = None,
        *,
        limiter: RateLimiter | None = None,
    ) -> None:
        """Share `transport`; `start` starts the embedded server and returns its URL."""
        self.is_closed = False
        self.transport = transport
        self.limiter = limiter or RateLimiter()
        self.background = BackgroundTasks()
        self.budget = RetryBudget()
        self.features: dict[str, frozenset[str]] = {}
        """By base URL: the extensions its server has named in `openai-runs-features`."""
        self.failure: tuple[float, str] | None = None
        """When the first request failed after the last answer, and why; None: all is well."""
        self._feature_headers: dict[str, str | None] = {}
        """By base URL: the last value of that header; parsed only when it has changed."""
        self.start = start
        self.thread_locks: dict[str, ThreadLock] = {}
        """By thread: the queue of calls that create a run on it."""

    def learn_features(self, base_url: str, named: str | None) -> None:
        """Keep what the server named in `openai-runs-features`."""
        if self._feature_headers.get(base_url, "") != named:
            self._feature_headers[base_url] = named
            features = frozenset(map(str.strip, named.split(","))) if named else _NONE
            self.features[base_url] = features

    def on_failure(self, error: APIError, now: float) -> None:
        """Note that an attempt failed; a rejection is an answer."""
        is_lost = isinstance(error, APIConnectionError)
        if not is_lost and (error.status_code or 0) < 500:
            self.failure = None
        elif self.failure is None:
            reason = error.reason if isinstance(error, APIConnectionError) else error.message
            self.failure = (now, reason[:_REASON_CHARS])

    def offers(self, base_url: str | None, extension: str) -> bool:
        """Return whether the server has named this extension."""
        return extension in self.features.get(base_url or "", _NONE)

    async def aclose(self) -> None:
        """End the background tasks, which may still ask for cancels, and close the connections."""
        self.is_closed = True
        try:
            await self.background.aclose()
        finally:
            self.limiter.close()  # calls released by it find the transport closed
            await self.transport.aclose()


class ThreadLock:
    """A lock that counts who wants it, so that the last one can remove it."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.wanted = 0
