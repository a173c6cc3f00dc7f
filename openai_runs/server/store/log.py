"""Reading the logs: where a stream begins, and what comes next, in bounded pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from sqlalchemy import bindparam, select

from openai_runs.config import READER_BACKLOG
from openai_runs.server.refusals import position_lost
from openai_runs.server.store.database import Connection
from openai_runs.server.store.events import Chunk, Position, last_seq
from openai_runs.server.store.rows import find, see
from openai_runs.server.store.schema import events, runs
from openai_runs.server.store.statements import Statement
from openai_runs.types.base import ACTIVE_STATUSES
from openai_runs.types.runs import Run
from openai_runs.types.threads import Thread

if TYPE_CHECKING:
    from openai_runs.server.store.writer import Readers, Transaction

__all__ = ["EventLog", "Leg", "LogPage", "Piece", "as_leg"]

_PAGE_BYTES: Final = 64 * 1024
"""Bytes after which a reader that catches up is handed what was read."""
_PIECE_BYTES: Final = READER_BACKLOG
"""Bytes of a larger row that a reader holds at once, however slowly it takes them."""


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a run's events a stream sends."""

    thread_id: str
    run_id: str
    after: int
    """The sequence number it begins after."""
    ended: bool = False
    """Whether the event at that place ends a leg."""
    once: bool = True
    """Whether it ends with the first leg's end, or only when nothing comes after that."""


class Piece(NamedTuple):
    """Consecutive bytes of events that are too large to be held as a whole."""

    body: bytes
    last: int
    """The sequence number of the last of these events."""
    epoch: int
    end: int | None
    """Where it ends in the events' bytes; None: where they end."""
    ends_leg: bool
    """Whether a leg of a stream ends with these events."""


class LogPage(NamedTuple):
    """Some of a run's log: chunks, or one piece."""

    chunks: list[Chunk]
    more: bool
    """Whether there may be more after it."""
    active: bool
    """Whether the run goes on; False also if it is not there."""
    piece: Piece | None = None


class _Row(NamedTuple):
    epoch: int
    first: int
    last: int
    body: bytes


_MINE = events.c.run_id == bindparam("r")
_COLUMNS = [events.c[name] for name in _Row._fields]
_AFTER: Final = Statement(
    select(*_COLUMNS).where(_MINE, events.c.last > bindparam("after")).order_by(events.c.last)
)
_AT: Final = Statement(
    select(*_COLUMNS)
    .where(_MINE, events.c.last >= bindparam("seq"))
    .order_by(events.c.last)
    .limit(1)
)
_STATUS: Final = Statement(select(runs.c.status).where(runs.c.id == bindparam("r")))


def as_leg(work: Callable[[Transaction], Run]) -> Callable[[Transaction], Leg]:
    """Return work that answers with the part of the log it begins, in place of the run."""

    def begin(tx: Transaction) -> Leg:
        run = work(tx)  # what it tells is appended when it is done
        after = last_seq(tx.connection, run.id)
        return Leg(thread_id=run.thread_id, run_id=run.id, after=after)

    return begin


class EventLog:
    """The logs, as streams read them."""

    def __init__(self, readers: Readers) -> None:
        """Read with these."""
        self._readers = readers

    async def find(self, thread_id: str, run_id: str, position: Position | None) -> Leg:
        """Return the part of the run's log after `position`; None: all of it.

        Raises:
            Refusal: There is no such run, or its log does not hold that event (any more).
        """

        def read(connection: Connection) -> Leg:
            see(connection, Thread, thread_id)
            find(connection, Run, run_id, thread_id=thread_id)
            leg = Leg(thread_id=thread_id, run_id=run_id, after=0, once=False)
            if position is None:
                if not last_seq(connection, run_id):
                    raise position_lost(run_id)
                return leg
            seq = position.seq
            found = _AT.one(connection, r=run_id, seq=seq)
            if found is None:
                raise position_lost(run_id)
            row = _Row(*found)
            if row.first > seq or row.epoch != position.epoch:
                raise position_lost(run_id)
            ended = row.last == seq and Chunk(row.first, row.last, row.body).ends_leg
            return msgspec.structs.replace(leg, after=seq, ended=ended)

        return await self._readers.run(read)

    async def read(self, run_id: str, after: int, within: Piece | None = None) -> LogPage:
        """Return some of what comes after this event, and `within` it after this piece.

        Oldest first; nothing if the events that the piece is of were taken back.
        """

        def read(connection: Connection) -> LogPage:
            active = _STATUS.value(connection, r=run_id) in ACTIVE_STATUSES
            rows = _AFTER.run(connection, r=run_id, after=after)  # one at a time: they may be large
            return _page((_Row(*row) for row in rows), after, within, active=active)

        return await self._readers.run(read)


def _page(rows: Iterable[_Row], after: int, within: Piece | None, *, active: bool) -> LogPage:
    chunks: list[Chunk] = []
    size = 0
    for row in rows:
        if within is not None and (row.last, row.epoch) != (within.last, within.epoch):
            return LogPage([], more=False, active=False)
        large = len(row.body) > _PIECE_BYTES
        if large and not chunks:
            piece = _piece(row, after, within.end or 0 if within is not None else 0)
            return LogPage([], more=True, active=active, piece=piece)
        if large or size > _PAGE_BYTES:
            return LogPage(chunks, more=True, active=active)
        chunks.append(Chunk(row.first, row.last, row.body))
        size += len(row.body)
    return LogPage(chunks, more=False, active=active)


def _piece(row: _Row, after: int, begin: int) -> Piece:
    chunk = Chunk(row.first, row.last, row.body).after(after)
    end = begin + _PIECE_BYTES
    return Piece(
        body=chunk.body[begin:end],
        last=row.last,
        epoch=row.epoch,
        end=end if end < len(chunk.body) else None,
        ends_leg=chunk.ends_leg,
    )
