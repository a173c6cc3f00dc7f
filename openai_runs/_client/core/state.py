"""What a client and its copies have in common: connections, and what was learnt with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from openai_runs._client.core.background import BackgroundTasks
from openai_runs._client.core.rate_limiter import RateLimiter
from openai_runs._protocol.retry import RetryBudget
from openai_runs._transport import Transport

__all__ = ["ClientState", "ThreadLock"]

_NONE: Final[frozenset[str]] = frozenset()


class ClientState:
    """What a client and its copies have in common: connections and what was learnt."""

    def __init__(
        self,
        transport: Transport,
        start: Callable[[], Awaitable[str]] | None = None,
        *,
        limiter: RateLimiter | None = None,
    ) -> None:
        """Take the transport; `start` brings the embedded server up and returns its URL."""
        self.transport = transport
        self.limiter = limiter or RateLimiter()
        self.background = BackgroundTasks()
        self.budget = RetryBudget()
        self.features: dict[str, frozenset[str]] = {}
        """By base URL: the extensions its server has named in `openai-runs-features`."""
        self._said: dict[str, str | None] = {}
        """By base URL: that header as it came last; read again only where it has changed."""
        self.start = start
        self.thread_locks: dict[str, ThreadLock] = {}
        """By thread: who is next to create a run on it."""

    def learn(self, base_url: str, said: str | None) -> None:
        """Take note of what the server named in `openai-runs-features`."""
        if self._said.get(base_url, "") != said:
            self._said[base_url] = said
            self.features[base_url] = frozenset(map(str.strip, said.split(","))) if said else _NONE

    def offers(self, base_url: str | None, extension: str) -> bool:
        """Return whether the server has named this extension."""
        return extension in self.features.get(base_url or "", _NONE)

    async def aclose(self) -> None:
        """End what still works over the connections, which may ask for cancels, and close them."""
        try:
            await self.background.aclose()
        finally:
            self.limiter.close()  # who waited there finds the transport closed
            await self.transport.aclose()


class ThreadLock:
    """A lock that knows how many want it, so that the last one can take it away."""

    def __init__(self) -> None:
        """Start open and unwanted."""
        self.lock = anyio.Lock()
        self.wanted = 0
