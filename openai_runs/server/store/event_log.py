"""The log of each run: its events as they are sent, numbered in the order of their commits.

Theory of operation. A row is what one piece of work logged, written in the transaction of
what it tells of, so nothing is sent that is not on disk, and nothing that was rolled back
was ever logged. An event's id is `{epoch}-{seq}`: `seq` rises by one over the whole run, and
`epoch` tells apart what an execution wrote that was killed, and what the next one wrote in
its place. What is sent is the stored bytes, with what runs share in its place (`shared_json`), so
all readers see the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import (
    BindParameter,
    bindparam,
    delete,
    exists,
    literal_column,
    select,
    update,
)

from openai_runs._protocol import sse
from openai_runs.config import EVENTS_TTL
from openai_runs.server.store.damage import DamagedRow, describe_damage
from openai_runs.server.store.database import Connection
from openai_runs.server.store.schema import ACTIVE, events, runs
from openai_runs.server.store.statements import Statement, inserting
from openai_runs.types.base import TERMINAL_STATUSES
from openai_runs.types.deltas import MessageDelta
from openai_runs.types.events import EventName

__all__ = [
    "Chunk",
    "Cut",
    "Logged",
    "LoggedEvent",
    "Position",
    "append",
    "cut_turn",
    "last_seq",
    "prune",
    "written_text",
]

_ENDS: Final = tuple(
    f"event: thread.run.{status}\n".encode()
    for status in sorted({*TERMINAL_STATUSES, "requires_action"})
)
"""How the events begin that end a stream."""
_DELTAS: Final = tuple(
    f"event: {name}\n".encode() for name in (EventName.MESSAGE_DELTA, EventName.STEP_DELTA)
)
_TURN: Final = f"event: {EventName.RUN_IN_PROGRESS}\n".encode()
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
    epoch: int
    """That of the last one."""

    @property
    def ends_stream(self) -> bool:
        """Return whether it ends a stream: the run is over, or waits."""
        begin = self.body.rfind(b"\n\n", 0, -2)
        return self.body.startswith(_ENDS, begin + 2 if begin >= 0 else 0)

    def after(self, seq: int) -> Chunk:
        """Return what of it comes after this event."""
        if seq < self.first:
            return self
        kept = _frames(self.body)[seq - self.first + 1 :]
        return Chunk(seq + 1, self.last, b"".join(kept), self.epoch)


class Logged(msgspec.Struct, frozen=True):
    """Events that were committed."""

    run_id: str
    chunk: Chunk


class Cut(msgspec.Struct, frozen=True):
    """The events after `last` were taken back: what they tell of begins again."""

    run_id: str
    last: int


def _frames(body: bytes) -> list[bytes]:
    return [frame + b"\n\n" for frame in body.split(b"\n\n")[:-1]]


_MINE = events.c.run_id == bindparam("r")
_LAST: Final = Statement(
    select(events.c.last).where(_MINE).order_by(events.c.last.desc()).limit(literal_column("1"))
)
_BACKWARDS: Final = Statement(
    select(*(events.c[name] for name in Chunk._fields)).where(_MINE).order_by(events.c.last.desc())
)
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


def append(
    connection: Connection, run_id: str, at: int, logged: Iterable[LoggedEvent], end: Position
) -> Logged:
    """Write events at the `end` of the run's log, and return what is to be announced."""
    epoch, first = end.epoch, end.seq + 1
    frames = [
        sse.encode(event.name, event.data, id=f"{epoch}-{seq}")
        for seq, event in enumerate(logged, first)
    ]
    chunk = Chunk(first, first + len(frames) - 1, b"".join(frames), epoch)
    row = {
        "run_id": run_id,
        "first": chunk.first,
        "last": chunk.last,
        "epoch": epoch,
        "created_at": at,
        "body": chunk.body,
    }
    inserting(events, *row).run(connection, **row)
    return Logged(run_id, chunk)


def last_seq(connection: Connection, run_id: str) -> int:
    """Return the sequence number of the newest event; 0 if there is none."""
    return _LAST.value(connection, r=run_id) or 0


def _turn_rows(connection: Connection, run_id: str) -> list[Chunk]:
    """Return the rows of the turn under way, from the one in which it began, oldest first."""
    rows: list[Chunk] = []
    for first, last, body, epoch in _BACKWARDS.each(connection, r=run_id):
        if not isinstance(body, bytes):
            raise DamagedRow(events.name, f"of '{run_id}'", "it is not bytes")
        rows.append(Chunk(first, last, body, epoch))
        if _TURN in body:
            break
    return rows[::-1]


def cut_turn(connection: Connection, run_id: str) -> tuple[Cut, list[LoggedEvent]] | None:
    """Take back the deltas of the turn under way, and all after them; None: there are none.

    The turn is made again from its beginning, so whoever reads the log must not see the
    text twice.

    Returns:
        The cut, and what must be logged again: steps and messages that began behind it.
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
    """Return the text that the deltas of the turn under way have of the message."""
    texts = []
    for row in _turn_rows(connection, run_id):
        for frame in _frames(row.body):
            if frame.startswith(_DELTAS[0]):
                delta = _decode_delta(frame, run_id)
                texts.append(delta.text if delta.id == message_id else "")
    return "".join(texts)


def _decode_delta(frame: bytes, run_id: str) -> MessageDelta:
    try:
        return _delta_decoder.decode(_event(frame).data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        damage = describe_damage(error)
    raise DamagedRow(events.name, f"of '{run_id}'", damage)


def prune(connection: Connection, now: int) -> int:
    """Forget events of some of the runs that ended long ago; return how many rows went."""
    return _PRUNE.run(connection, before=now - EVENTS_TTL).rowcount
