"""Who hears of a run's moves: the engine, and requests that are held until something moves.

Moves are published in the event loop, after their commit, in the order of the commits. A
holder is only told to look again; what it answers is read from the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from openai_runs.server.store import Change, Moved, Removed

__all__ = ["Bulletin", "Watch"]


class Watch:
    """One held request's ear."""

    def __init__(self) -> None:
        """Start with nothing heard."""
        self._event = anyio.Event()

    def wake(self) -> None:
        """Have the holder look again."""
        self._event.set()

    async def moved(self) -> None:
        """Return once something was heard since the last call.

        Cancellation: nothing is lost.
        """
        await self._event.wait()
        self._event = anyio.Event()


class Bulletin:
    """Publishes moves to those who watch a run, and all changes to listeners."""

    def __init__(self) -> None:
        """Start with nobody listening."""
        self._watches: dict[str, set[Watch]] = {}
        self._listeners: list[Callable[[Change], None]] = []
        self.closed = False
        """Whether the server is stopping: nobody is to be held any more."""

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call `listener` for every change from now on."""
        self._listeners.append(listener)

    def publish(self, change: Change) -> None:
        """Tell everybody; holders only of moves."""
        if isinstance(change, Moved | Removed):
            run_id = change.run.id if isinstance(change, Moved) else change.run_id
            for watch in self._watches.get(run_id, ()):
                watch.wake()
        for listener in self._listeners:
            listener(change)

    @contextmanager
    def watch(self, run_id: str) -> Iterator[Watch]:
        """Yield an ear for the moves of one run."""
        watch = Watch()
        self._watches.setdefault(run_id, set()).add(watch)
        try:
            yield watch
        finally:
            self._watches[run_id].discard(watch)
            if not self._watches[run_id]:
                del self._watches[run_id]

    def close(self) -> None:
        """Wake every holder; from now on nobody is held."""
        self.closed = True
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()
