"""Who reads which run's events, as they are committed.

A run never waits for its readers: each has a bounded queue of the shared bytes, and one
that falls behind loses the queue and reads the database until it has caught up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from openai_runs.config import READER_BACKLOG
from openai_runs.server.api_errors import too_many_streams
from openai_runs.server.store import Change, Chunk, Cut, Logged, Outdated, Removed, RunState

__all__ = ["Reader", "Subscribers"]


class Reader:
    """The queue of one stream: a run's events as they are committed."""

    def __init__(self) -> None:
        """Begin behind: what was committed before is in the database."""
        self.behind = True
        """Whether there is more in the database than in the queue."""
        self.ended = False
        """Whether nothing more will come: the run is gone, or the server stops."""
        self._chunks: deque[Chunk] = deque()
        self._size = 0
        self._changed = anyio.Event()

    def push(self, chunk: Chunk) -> None:
        """Put a chunk in the queue, if it fits."""
        if not self.behind:
            self._chunks.append(chunk)
            self._size += len(chunk.body)
            if self._size > READER_BACKLOG:
                self._fall_behind()
        self._changed.set()

    def drop(self) -> None:
        """Have the database read again: there is more, or events were deleted."""
        self._fall_behind()
        self._changed.set()

    def end(self) -> None:
        """Have nothing more come."""
        self.ended = True
        self._changed.set()

    def restart_queue(self) -> None:
        """Begin an empty queue, before the database is read."""
        self._fall_behind()
        self.behind = False

    def pop(self) -> Chunk | None:
        """Return the oldest chunk of the queue; None if it is empty."""
        if not self._chunks:
            return None
        chunk = self._chunks.popleft()
        self._size -= len(chunk.body)
        return chunk

    @property
    def empty(self) -> bool:
        """Return whether nothing is in the queue."""
        return not self._chunks

    async def wait_changed(self) -> None:
        """Return once something has changed since the last call.

        Cancellation: nothing is lost.
        """
        await self._changed.wait()
        self._changed = anyio.Event()

    def _fall_behind(self) -> None:
        self.behind = True
        self._chunks.clear()
        self._size = 0


class Subscribers:
    """All readers of all runs, and how many streams may be open."""

    def __init__(self, max_streams: int, *, is_shared: bool = False) -> None:
        """Start with nobody; `is_shared`: other processes may have readers of the same runs."""
        self._max_streams = max_streams
        self.is_shared = is_shared
        self._open = 0
        self._readers: dict[str, set[Reader]] = {}
        self._on_join: dict[str, Callable[[], None]] = {}
        self._closed = False

    def on_change(self, change: Change) -> None:
        """Hand what was committed to the readers of its run."""
        if isinstance(change, RunState):
            return
        if change.run_id is None:
            for readers in self._readers.values():
                for reader in readers:
                    reader.drop()
            return
        for reader in self._readers.get(change.run_id, ()):
            match change:
                case Logged():
                    reader.push(change.chunk)
                case Cut() | Outdated():
                    reader.drop()
                case Removed():
                    reader.end()

    def has_readers(self, run_id: str) -> bool:
        """Return whether somebody reads the run."""
        return run_id in self._readers

    @contextmanager
    def notify_on_join(self, run_id: str, on_join: Callable[[], None]) -> Iterator[None]:
        """Call `on_join` whenever a reader of the run joins."""
        self._on_join[run_id] = on_join
        try:
            yield
        finally:
            del self._on_join[run_id]

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold the place of one open stream.

        Raises:
            Refusal: As many are open as may be.
        """
        if self._open >= self._max_streams:
            raise too_many_streams(self._max_streams)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    @contextmanager
    def join(self, run_id: str) -> Iterator[Reader]:
        """Yield a reader of the run's events."""
        reader = Reader()
        if self._closed:
            reader.end()
        self._readers.setdefault(run_id, set()).add(reader)
        try:
            if run_id in self._on_join:
                self._on_join[run_id]()
            yield reader
        finally:
            self._readers[run_id].discard(reader)
            if not self._readers[run_id]:
                del self._readers[run_id]

    def close(self) -> None:
        """End all streams; from now on none goes on."""
        self._closed = True
        for readers in self._readers.values():
            for reader in readers:
                reader.end()
