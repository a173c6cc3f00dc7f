"""Reading the logs: where a stream begins, and what comes next, in bounded pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Concatenate, Final, NamedTuple, ParamSpec

import msgspec
from sqlalchemy import bindparam, select

from openai_runs.config import READER_BACKLOG
from openai_runs.server.api_errors import position_lost
from openai_runs.server.store.database import Connection, Readable
from openai_runs.server.store.event_log import Chunk, Position, last_seq
from openai_runs.server.store.runs import see_run
from openai_runs.server.store.schema import events, runs
from openai_runs.server.store.shared_json import SharedJson
from openai_runs.server.store.statements import Statement
from openai_runs.types.base import ACTIVE_STATUSES

if TYPE_CHECKING:
    from openai_runs.server.store.transaction import RunState, Transaction

__all__ = ["EventLog", "LogPage", "Piece", "StreamStart", "find_start", "streamed"]

P = ParamSpec("P")

_PAGE_BYTES: Final = 64 * 1024
"""Bytes after which a reader that catches up is handed what was read."""
_PIECE_BYTES: Final = READER_BACKLOG
"""Bytes of a larger row that a reader holds at once, however slowly it reads them."""
_KEPT_BYTES: Final = 64 * 1024 * 1024
"""Bytes of such rows that are kept for the readers together, which read them piece by piece."""
_KEPT_SECONDS: Final = 5.0
"""Seconds without any such piece after which none is kept."""


class StreamStart(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a run's events a stream sends."""

    thread_id: str
    run_id: str
    after: int
    """The sequence number it begins after."""
    ended: bool = False
    """Whether the event at that place ends a stream."""
    epoch: int | None = None
    """That of the event at that place, where it is known."""
    once: bool = True
    """Whether it ends at the first such event, or only when nothing comes after that."""


class Piece(NamedTuple):
    """Consecutive bytes of events that are too large to be held as a whole."""

    body: bytes
    last: int
    """The sequence number of the last of these events."""
    epoch: int
    end: int | None
    """Where it ends in the bytes of its row; None: where they end."""
    ends_stream: bool
    """Whether it ends a stream."""


class _Row(NamedTuple):
    epoch: int
    first: int
    last: int
    body: bytes


class LogPage(NamedTuple):
    """Some of a run's log: chunks, or one piece."""

    chunks: list[Chunk]
    more: bool
    """Whether there may be more after it."""
    active: bool
    """Whether the run goes on; False also if it is not there."""
    piece: Piece | None = None
    row: _Row | None = None
    """What the piece is of."""
    cut: bool = False
    """Whether the event that it begins after was taken back, or the log is gone."""


_MINE = events.c.run_id == bindparam("r")
_COLUMNS = [events.c[name] for name in _Row._fields]
_AFTER: Final = Statement(
    select(*_COLUMNS).where(_MINE, events.c.last > bindparam("after")).order_by(events.c.last)
)
_NEXT: Final = Statement(
    select(*_COLUMNS[:-1])
    .where(_MINE, events.c.last > bindparam("after"))
    .order_by(events.c.last)
    .limit(1)
)
"""The place of the same, without what is in it."""
_AT: Final = Statement(
    select(*_COLUMNS)
    .where(_MINE, events.c.last >= bindparam("seq"))
    .order_by(events.c.last)
    .limit(1)
)
_EPOCH_AT: Final = Statement(
    select(events.c.epoch)
    .where(_MINE, events.c.last >= bindparam("seq"))
    .order_by(events.c.last)
    .limit(1)
)
_STATUS: Final = Statement(select(runs.c.status).where(runs.c.id == bindparam("r")))


def streamed(
    work: Callable[Concatenate[Transaction, P], RunState],
) -> Callable[Concatenate[Transaction, P], StreamStart]:
    """Return work that answers with the part of the log it begins, in place of the run."""

    def begin(tx: Transaction, /, *args: P.args, **kwargs: P.kwargs) -> StreamStart:
        run = work(tx, *args, **kwargs)  # its events are appended when it is done
        after = last_seq(tx.connection, run.id)
        return StreamStart(thread_id=run.thread_id, run_id=run.id, after=after)

    return begin


def find_start(
    connection: Connection, thread_id: str, run_id: str, position: Position | None
) -> StreamStart:
    """Return the part of the run's log after `position`; None: all of it.

    Raises:
        Refusal: There is no such run, or its log does not hold that event (any more).
    """
    see_run(connection, thread_id, run_id)
    start = StreamStart(thread_id=thread_id, run_id=run_id, after=0, once=False)
    if position is None:
        if not last_seq(connection, run_id):
            raise position_lost(run_id)
        return start
    seq = position.seq
    found = _AT.one(connection, r=run_id, seq=seq)
    if found is None:
        raise position_lost(run_id)
    row = _Row(*found)
    if row.first > seq or row.epoch != position.epoch:
        raise position_lost(run_id)
    ended = row.last == seq and Chunk(row.first, row.last, row.body, row.epoch).ends_stream
    return msgspec.structs.replace(start, after=seq, epoch=row.epoch, ended=ended)


class _LargeRows:
    """The large rows that are being read: one copy for all readers, of whatever speed.

    SQLite can only give a row as a whole: without this, reading one in pieces would cost the
    square of its size. Looked at by the readers' threads, changed in the event loop.
    """

    def __init__(self, seconds: float) -> None:
        """Keep nothing yet; later each for at least these seconds after any was used."""
        self._seconds = seconds
        self._rows: dict[tuple[str, int, int, int], _Row] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._rows)

    def find(self, run_id: str, epoch: int, first: int, last: int) -> _Row | None:
        """Return the row at this place, if it is kept."""
        return self._rows.get((run_id, epoch, first, last))

    def keep(self, run_id: str, row: _Row) -> None:
        """Keep a row that was just used, in place of older ones; not one of excessive size."""
        place = (run_id, row.epoch, row.first, row.last)
        rest = _KEPT_BYTES - len(row.body)
        if rest < 0:
            return
        self._rows.pop(place, None)
        while sum(len(other.body) for other in self._rows.values()) > rest:
            del self._rows[next(iter(self._rows))]
        self._rows[place] = row
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._rows.clear)


class EventLog:
    """The logs, as streams read them."""

    def __init__(
        self, database: Readable, shared_json: SharedJson, *, kept_for: float = _KEPT_SECONDS
    ) -> None:
        """Read from this; keep large rows for these seconds."""
        self._database = database
        self._shared_json = shared_json
        self._large = _LargeRows(kept_for)

    async def read(
        self, run_id: str, after: int, within: Piece | None = None, *, epoch: int | None = None
    ) -> LogPage:
        """Return some of what comes after this event, and `within` it after this piece.

        Oldest first; nothing if the events that the piece is of were deleted. `epoch` is that of
        the event: in another epoch, something else stands in its place.
        """

        def read(connection: Connection) -> LogPage:
            if epoch is not None and _EPOCH_AT.value(connection, r=run_id, seq=after) != epoch:
                return LogPage([], more=False, active=False, cut=True)
            active = _STATUS.value(connection, r=run_id) in ACTIVE_STATUSES
            rows = self._rows_after(connection, run_id, after)
            return _page(rows, after, within, active=active)

        page = await self._database.read(read)
        if page.row is not None:
            self._large.keep(run_id, page.row)
        return page

    def _rows_after(self, connection: Connection, run_id: str, after: int) -> Iterable[_Row]:
        if self._large:
            place = _NEXT.one(connection, r=run_id, after=after)
            row = self._large.find(run_id, *place) if place is not None else None
            if row is not None:
                return [row]
        rows = _AFTER.each(connection, r=run_id, after=after)
        # One at a time: they may be large.
        return (self._whole(connection, _Row(*row)) for row in rows)

    def _whole(self, connection: Connection, row: _Row) -> _Row:
        return row._replace(body=self._shared_json.join_frames_with(connection, row.body))


def _page(rows: Iterable[_Row], after: int, within: Piece | None, *, active: bool) -> LogPage:
    chunks: list[Chunk] = []
    size = 0
    for row in rows:
        if within is not None and (row.last, row.epoch) != (within.last, within.epoch):
            return LogPage([], more=False, active=False)
        large = len(row.body) > _PIECE_BYTES
        if large and not chunks:
            begin = within.end if within is not None else None
            piece = _piece(row, _begin(row, after) if begin is None else begin)
            return LogPage([], more=True, active=active, piece=piece, row=row)
        if large or size > _PAGE_BYTES:
            return LogPage(chunks, more=True, active=active)
        chunks.append(Chunk(row.first, row.last, row.body, row.epoch))
        size += len(row.body)
    return LogPage(chunks, more=False, active=active)


def _begin(row: _Row, after: int) -> int:
    """Return where the events begin that come after this one."""
    begin = 0
    for _ in range(row.first, after + 1):
        begin = row.body.index(b"\n\n", begin) + 2
    return begin


def _piece(row: _Row, begin: int) -> Piece:
    end = begin + _PIECE_BYTES
    is_last = end >= len(row.body)
    return Piece(
        body=row.body[begin:end],
        last=row.last,
        epoch=row.epoch,
        end=None if is_last else end,
        ends_stream=is_last and Chunk(row.first, row.last, row.body, row.epoch).ends_stream,
    )
