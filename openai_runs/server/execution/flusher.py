"""Storing an answer while the model writes it: in batches, and soon if somebody reads.

A delta costs no transaction of its own: at most twenty times a second all that came is
written at once, once a second if nobody reads. A model that has finished before
that costs none but the run's last. The model call never waits for the store.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import anyio

from openai_runs.config import FLUSH_INTERVAL, UNREAD_FLUSH_INTERVAL
from openai_runs.server.api_errors import StoreUnavailable
from openai_runs.server.events.subscribers import Subscribers
from openai_runs.server.execution.draft import Draft
from openai_runs.server.store import Claim, Store, claims

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["STORE_RETRY_DELAY", "Flusher"]

STORE_RETRY_DELAY: Final = 0.5
"""Seconds before a write is retried that the store could not do."""


class Flusher:
    """Stores the draft of one execution, as it grows."""

    def __init__(
        self,
        store: Store,
        subscribers: Subscribers,
        claim: Claim,
        draft: Draft,
        now: Callable[[], int],
    ) -> None:
        """Start with nothing stored."""
        self._group: TaskGroup | None = None
        """Where it is to work, until it does."""
        self._store = store
        self._subscribers = subscribers
        self._claim = claim
        self._draft = draft
        self._now = now
        self._flushed_at = -math.inf
        self.failure: Exception | None = None
        """What ended it; the run must not go on, since nothing of it could be stored."""

    @contextmanager
    def flushing(self, group: TaskGroup) -> Iterator[None]:
        """Store in this group what is written meanwhile; what cannot be stored cancels it.

        It begins in a moment, or at once if somebody reads: most answers that come at once are
        whole before that. At the end the group is cancelled if it has begun; a write that is under
        way comes to its end.
        """
        run_id = self._claim.run.id
        self._group = group
        moment = 0 if self._subscribers.has_readers(run_id) else FLUSH_INTERVAL
        timer = asyncio.get_running_loop().call_later(moment, self._begin)
        try:
            with self._subscribers.notify_on_join(run_id, self.flush_soon):
                yield
        finally:
            timer.cancel()
            if self._group is None:
                group.cancel_scope.cancel()
            self._group = None

    def flush_soon(self) -> None:
        """Have what there is stored soon: there is much, or somebody has come to read it."""
        self._begin()
        self._draft.mark_urgent()

    def _begin(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.start_soon(self._serve, group.cancel_scope)

    async def _serve(self, scope: anyio.CancelScope) -> None:
        try:
            while True:
                await self._draft.wait_changed()
                await self._pause()
                await self._flush()
        except Exception as error:
            self.failure = error
            scope.cancel()

    async def _pause(self) -> None:
        subscribers = self._subscribers
        read = subscribers.is_shared or subscribers.has_readers(self._claim.run.id)
        interval = FLUSH_INTERVAL if read else UNREAD_FLUSH_INTERVAL
        rest = self._flushed_at + interval - anyio.current_time()
        if rest > 0:
            with anyio.move_on_after(rest):
                await self._draft.wait_urgent()

    async def _flush(self) -> None:
        writings = self._draft.pop_writings()
        claim = self._claim
        try:
            # Shielded for the moment of one commit: whoever cancels must know what is stored.
            with anyio.CancelScope(shield=True):
                await self._store.write(claims.write, claim.run, claim.epoch, writings, self._now())
        except StoreUnavailable:
            self._draft.put_back(writings)
            await anyio.sleep(STORE_RETRY_DELAY)
        self._flushed_at = anyio.current_time()
