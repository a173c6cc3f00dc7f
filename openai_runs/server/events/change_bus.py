"""Who is notified of a committed change: the engine, streams, and requests that are held.

Changes are published in the event loop, after their commit, in the order of the commits, with
the run as it was committed. So a held request neither polls the store nor holds a thread: a commit
wakes those that wait for its run, and they answer with the same bytes.

Where other processes write to the same database, changes come in no order, and of the others only
that there was one (`Outdated`): nothing is remembered, and who waits reads the run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio

from openai_runs.server.store import Change, Edited, Moved, Outdated, Removed, RunState
from openai_runs.types.base import ACTIVE_STATUSES

__all__ = ["ChangeBus", "StatusWaiter"]

_REMEMBERED: Final = 10_000
"""Active runs whose state is at hand; what is asked of others is read from the store."""
_REMEMBERED_BYTES: Final = 32 * 1024 * 1024
"""Bytes of their JSON, all together: calls of tools may make it large."""


class StatusWaiter:
    """One held request."""

    def __init__(self) -> None:
        """Start with no change."""
        self._event = anyio.Event()
        self._latest: Moved | None = None

    def wake(self, moved: Moved | None) -> None:
        """Say what the run is now; None: it is gone, or the server stops."""
        self._latest = moved
        self._event.set()

    async def wait_moved(self) -> Moved | None:
        """Return the run's last move, once there was one since the last call.

        Cancellation: nothing is lost.
        """
        await self._event.wait()
        self._event = anyio.Event()
        return self._latest


class ChangeBus:
    """Publishes moves to those who wait for a run, and all changes to listeners."""

    def __init__(self, max_held: int, *, is_shared: bool = False) -> None:
        """Start with no listener.

        Args:
            max_held: Requests that may wait at the same time.
            is_shared: Whether other processes write to the database.
        """
        self._max_held = max_held
        self._is_shared = is_shared
        self._held = 0
        self._waiters: dict[str, set[StatusWaiter]] = {}
        self._listeners: list[Callable[[Change], None]] = []
        self._states: dict[str, RunState] = {}
        self._size = 0
        self.closed = False
        """Whether the server is stopping: nobody is to be held any more."""

    @property
    def full(self) -> bool:
        """Return whether nobody else can be held."""
        return self._held >= self._max_held

    def subscribe(self, listener: Callable[[Change], None]) -> None:
        """Call `listener` for every change from now on."""
        self._listeners.append(listener)

    def publish(self, change: Change) -> None:
        """Notify all listeners; held requests only of moves."""
        match change:
            case Outdated(run_id=None):
                self._wake_all()
            case Outdated():
                self._wake(change.run_id or "", None)
            case Moved() if not self._is_shared:
                self._remember(change)
                self._wake(change.id, change)
            case Edited() if not self._is_shared:
                self._remember(change)
            case Removed():
                self._forget(change.run_id)
                self._wake(change.run_id, None)
        for listener in self._listeners:
            listener(change)

    def latest(self, run_id: str) -> RunState | None:
        """Return the state of an active run; None if it is not at hand, or over."""
        return self._states.get(run_id)

    def _remember(self, state: RunState) -> None:
        self._forget(state.id)
        if state.status not in ACTIVE_STATUSES:
            return
        self._states[state.id] = state
        self._size += len(state.stored)
        while len(self._states) > _REMEMBERED or self._size > _REMEMBERED_BYTES:
            self._forget(next(iter(self._states)))

    def _forget(self, run_id: str) -> None:
        state = self._states.pop(run_id, None)
        if state is not None:
            self._size -= len(state.stored)

    def _wake(self, run_id: str, moved: Moved | None) -> None:
        for waiter in self._waiters.get(run_id, ()):
            waiter.wake(moved)

    @contextmanager
    def waiting_for(self, run_id: str) -> Iterator[StatusWaiter]:
        """Yield what a held request waits with for the moves of one run."""
        waiter = StatusWaiter()
        self._waiters.setdefault(run_id, set()).add(waiter)
        self._held += 1
        try:
            yield waiter
        finally:
            self._held -= 1
            self._waiters[run_id].discard(waiter)
            if not self._waiters[run_id]:
                del self._waiters[run_id]

    def close(self) -> None:
        """Wake every holder; from now on nobody is held."""
        self.closed = True
        self._wake_all()

    def _wake_all(self) -> None:
        for run_id in self._waiters:
            self._wake(run_id, None)
