"""Health: two pages without a key, for whatever starts, stops and balances servers.

`/healthz` says whether the process does its work, from memory alone. `/readyz` says whether it can
carry out runs now: it writes to the database, at most once a second, and whoever asks meanwhile
shares the result, since anybody may ask as often as they like. No page quotes the database.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import anyio
import msgspec

from openai_runs.config import READINESS_TTL
from openai_runs.server.api_errors import StoreUnavailable
from openai_runs.server.clock import Clock
from openai_runs.server.execution.engine import Engine
from openai_runs.server.store import Store, rows, runs

__all__ = ["Health", "Page"]

_UNWRITABLE: Final = "the database cannot be read or written now; the server's log says why"
_STOPPED: Final = "runs are no longer carried out; the server's log says why"
_STOPPING: Final = "the server stops, and begins no more runs"

_logger = logging.getLogger("openai_runs.server")


class Page(msgspec.Struct, frozen=True):
    """What one of the pages answers."""

    status_code: int
    body: bytes


class Health:
    """Answers both pages for one engine and its store."""

    def __init__(
        self, engine: Engine, store: Store, clock: Clock, now: Callable[[], float] = monotonic
    ) -> None:
        """Check nothing yet; `now` are the seconds by which a result is shared."""
        self._engine = engine
        self._store = store
        self._clock = clock
        self._now = now
        self._lock = anyio.Lock()
        self._checked_at: float | None = None
        self._facts: dict[str, Any] | None = None

    def live(self) -> Page:
        """Return whether the engine is at work, without a look at the disk."""
        if self._engine.alive:
            return _page(200, {"status": "ok"})
        return _page(503, {"status": "stopped", "reason": _STOPPED})

    async def ready(self) -> Page:
        """Return whether runs are carried out and can be written, and how many wait."""
        if not self._engine.alive:
            return self.live()
        facts = await self._shared_facts()
        if facts is None:
            return _page(503, {"status": "unavailable", "reason": _UNWRITABLE})
        facts = {**facts, "failed": self._engine.failed, "database": self._store.version}
        if self._engine.draining:
            return _page(503, {"status": "stopping", "reason": _STOPPING, **facts})
        return _page(200, {"status": "ok", **facts})

    async def _shared_facts(self) -> dict[str, Any] | None:
        """Return what the store says, as of this second; None: it cannot be used."""
        async with self._lock:  # those who wait here find what the first one has found
            now, last = self._now(), self._checked_at
            if last is None or not 0 <= now - last < READINESS_TTL:
                self._facts = await self._check()
                self._checked_at = self._now()
            return self._facts

    async def _check(self) -> dict[str, Any] | None:
        now = int(self._clock.now())
        try:
            await self._store.write(rows.touch, now)
            counts = await self._store.read(runs.count)
        except StoreUnavailable:  # the store has logged why
            return None
        except Exception:
            _logger.exception("the database cannot be checked")
            return None
        oldest = counts.oldest_created_at
        return {
            "queued": counts.by_status.get("queued", 0),
            "in_progress": counts.by_status.get("in_progress", 0),
            "requires_action": counts.by_status.get("requires_action", 0),
            "cancelling": counts.by_status.get("cancelling", 0),
            "oldest_seconds": 0 if oldest is None else max(0, now - oldest),
        }


def _page(status_code: int, facts: dict[str, Any]) -> Page:
    return Page(status_code, msgspec.json.encode(facts))
