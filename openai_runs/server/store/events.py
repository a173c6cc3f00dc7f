"""The log of each run: its events as they are sent, numbered in the order of their commits.

Theory of operation. A row is what one piece of work told, written in the transaction of
what it tells of, so nothing is sent that is not on disk, and nothing that was rolled back
was ever told. An event's id is `{epoch}-{seq}`: `seq` rises by one over the whole run, and
`epoch` tells apart what an execution wrote that was killed, and what the next one wrote in
its place. What is sent is the stored bytes, so all readers see the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from sqlalchemy import BindParameter, bindparam, delete, exists, select, update

from openai_runs._protocol import sse
from openai_runs.config import EVENTS_TTL, READER_BACKLOG
from openai_runs.server.refusals import position_lost
from openai_runs.server.store.database import Connection
from openai_runs.server.store.rows import find, see
from openai_runs.server.store.schema import ACTIVE, events, runs
from openai_runs.server.store.statements import Statement, inserting
from openai_runs.types.base import ACTIVE_STATUSES, TERMINAL_STATUSES
from openai_runs.types.deltas import MessageDelta
from openai_runs.types.events import EventName
from openai_runs.types.runs import Run
from openai_runs.types.threads import Thread

if TYPE_CHECKING:
    from openai_runs.server.store.writer import Readers, Transaction

__all__ = [
    "Chunk",
    "Cut",
    "EventLog",
    "Leg",
    "LogPage",
    "LoggedEvent",
    "Piece",
    "Position",
    "Told",
    "append",
    "as_leg",
    "cut_turn",
    "last_seq",
    "prune",
    "written_text",
]

_ENDS: Final = tuple(
    f"event: thread.run.{status}\n".encode()
    for status in sorted({*TERMINAL_STATUSES, "requires_action"})
)
"""How the events begin that end a leg of a stream."""
_DELTAS: Final = tuple(
    f"event: {name}\n".encode() for name in (EventName.MESSAGE_DELTA, EventName.STEP_DELTA)
)
_TURN: Final = f"event: {EventName.RUN_IN_PROGRESS}\n".encode()
_PAGE_BYTES: Final = 64 * 1024
"""Bytes after which a reader that catches up is handed what was read."""
_PIECE_BYTES: Final = READER_BACKLOG
"""Bytes of a larger row that a reader holds at once, however slowly it takes them."""
_PRUNED_RUNS: Final = 200
"""Runs whose events are pruned in one piece of work; the writer has others to serve."""

_delta_decoder: Final = msgspec.json.Decoder(MessageDelta)


class LoggedEvent(NamedTuple):
    """An event before it has its place."""

    name: str
    data: bytes
    """JSON."""


class Position(NamedTuple):
    """The place of an event in the log of its run; `{epoch}-{seq}` on the wire."""

    epoch: int
    seq: int


class Chunk(NamedTuple):
    """Consecutive events, as they are sent."""

    first: int
    last: int
    """Sequence numbers of the first and the last one."""
    body: bytes

    @property
    def ends_leg(self) -> bool:
        """Return whether a leg of a stream ends with it: the run is over, or waits."""
        begin = self.body.rfind(b"\n\n", 0, -2)
        return self.body.startswith(_ENDS, begin + 2 if begin >= 0 else 0)

    def after(self, seq: int) -> Chunk:
        """Return what of it comes after this event."""
        if seq < self.first:
            return self
        kept = _frames(self.body)[seq - self.first + 1 :]
        return Chunk(seq + 1, self.last, b"".join(kept))


class Told(msgspec.Struct, frozen=True):
    """Events that were committed."""

    run_id: str
    chunk: Chunk


class Cut(msgspec.Struct, frozen=True):
    """The events after `last` were taken back: what they tell of begins again."""

    run_id: str
    last: int


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


def _frames(body: bytes) -> list[bytes]:
    return [frame + b"\n\n" for frame in body.split(b"\n\n")[:-1]]


class _Row(NamedTuple):
    epoch: int
    first: int
    last: int
    body: bytes


_MINE = events.c.run_id == bindparam("r")
_COLUMNS = [events.c[name] for name in _Row._fields]
_NEWEST = select(events.c.last).where(_MINE).order_by(events.c.last.desc()).limit(1)
_LAST: Final = Statement(_NEWEST)
_PLACE: Final = Statement(
    select(runs.c.epoch, _NEWEST.scalar_subquery()).where(runs.c.id == bindparam("r"))
)
_AFTER: Final = Statement(
    select(*_COLUMNS).where(_MINE, events.c.last > bindparam("after")).order_by(events.c.last)
)
_AT: Final = Statement(
    select(*_COLUMNS)
    .where(_MINE, events.c.last >= bindparam("seq"))
    .order_by(events.c.last)
    .limit(1)
)
_BACKWARDS: Final = Statement(select(*_COLUMNS).where(_MINE).order_by(events.c.last.desc()))
_STATUS: Final = Statement(select(runs.c.status).where(runs.c.id == bindparam("r")))
_THIS = (_MINE, events.c.last == bindparam("this"))
_DROP: Final = Statement(delete(events).where(*_THIS))
_DROP_LATER: Final = Statement(delete(events).where(_MINE, events.c.last > bindparam("this")))
_SHORTEN: Final = Statement(update(events).where(*_THIS), ["last", "body"])


def _prune_some() -> Statement:
    later = events.alias()
    before: BindParameter[int] = bindparam("before")
    fresh = exists().where(later.c.run_id == events.c.run_id, later.c.created_at >= before)
    going = exists().where(runs.c.id == events.c.run_id, ACTIVE)
    old = (
        select(events.c.run_id)
        .where(events.c.created_at < before, ~fresh, ~going)
        .distinct()
        .limit(_PRUNED_RUNS)
    )
    return Statement(delete(events).where(events.c.run_id.in_(old)))


_PRUNE: Final = _prune_some()


def append(connection: Connection, run_id: str, at: int, told: Iterable[LoggedEvent]) -> Told:
    """Write events at the end of the run's log, and return what is to be announced."""
    epoch, last = _PLACE.one(connection, r=run_id)
    first = (last or 0) + 1
    frames = [
        sse.encode(event.name, event.data, id=f"{epoch}-{seq}")
        for seq, event in enumerate(told, first)
    ]
    chunk = Chunk(first, first + len(frames) - 1, b"".join(frames))
    row = {
        "run_id": run_id,
        "first": chunk.first,
        "last": chunk.last,
        "epoch": epoch,
        "created_at": at,
        "body": chunk.body,
    }
    inserting(events, *row).run(connection, **row)
    return Told(run_id, chunk)


def last_seq(connection: Connection, run_id: str) -> int:
    """Return the sequence number of the newest event; 0 if there is none."""
    return _LAST.value(connection, r=run_id) or 0


def as_leg(work: Callable[[Transaction], Run]) -> Callable[[Transaction], Leg]:
    """Return work that answers with the part of the log it begins, in place of the run."""

    def begin(tx: Transaction) -> Leg:
        run = work(tx)  # what it tells is appended when it is done
        after = last_seq(tx.connection, run.id)
        return Leg(thread_id=run.thread_id, run_id=run.id, after=after)

    return begin


def _turn_rows(connection: Connection, run_id: str) -> list[Chunk]:
    """Return the rows of the turn under way, from the one in which it began, oldest first."""
    rows: list[Chunk] = []
    for _, first, last, body in _BACKWARDS.run(connection, r=run_id):
        rows.append(Chunk(first, last, body))
        if _TURN in body:
            break
    return rows[::-1]


def cut_turn(connection: Connection, run_id: str) -> tuple[Cut, list[LoggedEvent]] | None:
    """Take back the deltas of the turn under way, and all after them; None: there are none.

    The turn is made again from its beginning, so whoever reads the log must not see the
    text twice.

    Returns:
        The cut, and what must be told again: steps and messages that began behind it.
    """
    cut: Cut | None = None
    again: list[LoggedEvent] = []
    rows = _turn_rows(connection, run_id)
    # A turn that was under way when the log was introduced has no beginning there.
    begun = not any(_TURN in row.body for row in rows)
    for row in rows:
        for seq, frame in enumerate(_frames(row.body), row.first):
            begun = begun or frame.startswith(_TURN)
            if cut is None and begun and frame.startswith(_DELTAS):
                cut = Cut(run_id, seq - 1)
                _cut(connection, run_id, row, cut.last)
            elif cut is not None and not frame.startswith(_DELTAS):
                again.append(_event(frame))
    return None if cut is None else (cut, again)


def _event(frame: bytes) -> LoggedEvent:
    head, _, data = frame.removesuffix(b"\n\n").partition(b"\ndata: ")
    return LoggedEvent(head.partition(b"\n")[0].removeprefix(b"event: ").decode(), data)


def _cut(connection: Connection, run_id: str, row: Chunk, last: int) -> None:
    """Delete what comes after the event `last`, the first of which stands in `row`."""
    _DROP_LATER.run(connection, r=run_id, this=row.last)
    if last < row.first:
        _DROP.run(connection, r=run_id, this=row.last)
    else:
        body = b"".join(_frames(row.body)[: last - row.first + 1])
        _SHORTEN.run(connection, r=run_id, this=row.last, last=last, body=body)


def written_text(connection: Connection, run_id: str, message_id: str) -> str:
    """Return the text that the deltas of the turn under way have told of the message."""
    texts = []
    for row in _turn_rows(connection, run_id):
        for frame in _frames(row.body):
            if frame.startswith(_DELTAS[0]):
                delta = _delta_decoder.decode(_event(frame).data)
                texts.append(delta.text if delta.id == message_id else "")
    return "".join(texts)


def prune(connection: Connection, now: int) -> int:
    """Forget events of some of the runs that ended long ago; return how many rows went."""
    return _PRUNE.run(connection, before=now - EVENTS_TTL).rowcount


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
