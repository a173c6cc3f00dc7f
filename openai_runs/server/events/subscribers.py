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
from openai_runs.server.store import Change, Chunk, Cut, Removed, RunState, Told

__all__ = ["Reader", "Subscribers"]


class Reader:
    """One stream's ear for the events of a run."""

    def __init__(self) -> None:
        """Begin behind: what was told before is in the database."""
        self.behind = True
        """Whether there is more in the database than in the queue."""
        self.ended = False
        """Whether nothing more will come: the run is gone, or the server stops."""
        self.cut: int | None = None
        """The place after which events were taken back, until somebody looks."""
        self._chunks: deque[Chunk] = deque()
        self._size = 0
        self._news = anyio.Event()

    def hear(self, chunk: Chunk) -> None:
        """Put a chunk in the queue, if it fits."""
        if not self.behind:
            self._chunks.append(chunk)
            self._size += len(chunk.body)
            if self._size > READER_BACKLOG:
                self._fall_behind()
        self._news.set()

    def take_back(self, last: int) -> None:
        """Forget what was told after the event `last`."""
        self.cut = last if self.cut is None else min(self.cut, last)
        self._fall_behind()
        self._news.set()

    def end(self) -> None:
        """Have nothing more come."""
        self.ended = True
        self._news.set()

    def catch_up(self) -> None:
        """Begin a new queue, before the database is read."""
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

    async def news(self) -> None:
        """Return once something was heard since the last call.

        Cancellation: nothing is lost.
        """
        await self._news.wait()
        self._news = anyio.Event()

    def _fall_behind(self) -> None:
        self.behind = True
        self._chunks.clear()
        self._size = 0


class Subscribers:
    """All readers of all runs, and the seats there are."""

    def __init__(self, max_streams: int) -> None:
        """Start with nobody."""
        self._seats = max_streams
        self._taken = 0
        self._readers: dict[str, set[Reader]] = {}
        self._awaiting: dict[str, Callable[[], None]] = {}
        self._closed = False

    def hear(self, change: Change) -> None:
        """Pass on what was committed."""
        if isinstance(change, RunState):
            return
        for reader in self._readers.get(change.run_id, ()):
            match change:
                case Told():
                    reader.hear(change.chunk)
                case Cut():
                    reader.take_back(change.last)
                case Removed():
                    reader.end()

    def is_read(self, run_id: str) -> bool:
        """Return whether somebody reads the run."""
        return run_id in self._readers

    @contextmanager
    def awaited(self, run_id: str, arrived: Callable[[], None]) -> Iterator[None]:
        """Have `arrived` called whenever a reader of the run comes."""
        self._awaiting[run_id] = arrived
        try:
            yield
        finally:
            del self._awaiting[run_id]

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Hold one of the seats.

        Raises:
            Refusal: All are taken.
        """
        if self._taken >= self._seats:
            raise too_many_streams(self._seats)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    @contextmanager
    def join(self, run_id: str) -> Iterator[Reader]:
        """Yield an ear for the events of one run."""
        reader = Reader()
        if self._closed:
            reader.end()
        self._readers.setdefault(run_id, set()).add(reader)
        try:
            if run_id in self._awaiting:
                self._awaiting[run_id]()
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
