"""Writing a run and its steps back, together with what must happen at the same time.

The columns that repeat a part of an object are written here and nowhere else, and the
events that tell of it.

Theory of operation: the fence. Whatever writes to a run writes the run's row first, by an
update that matches the row only as it was read (`write_run`), or only in the epoch and a
status in which an execution may write (`hold`). If the row has changed since, the update
matches nothing, and the work begins again with what is there now (`retry_if_changed`). From
that update to the commit no other transaction writes to the row, so the run's steps,
messages and events belong to this one. All of it
holds for any number of writers whose reads see what others have committed, and not because
SQLite lets only one of them write. Where the log ends is read by a statement of its own, after
the update: one that waited for another transaction would read what was there before that.

Who adds to a thread holds the row of the thread first (`rows.lock`), and that of a run after it,
so that nobody waits in a circle.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

import msgspec
from sqlalchemy import ColumnElement, bindparam, literal_column, select, update

from openai_runs.server.objects.transitions import (
    Delta,
    Ending,
    Opening,
    Writing,
    ended_message,
    ended_step,
    step_message_id,
    with_calls,
)
from openai_runs.server.store import event_log, shared_json
from openai_runs.server.store.database import Connection
from openai_runs.server.store.event_log import LoggedEvent
from openai_runs.server.store.rows import add, decode, encode, replace_body
from openai_runs.server.store.schema import messages, runs, steps
from openai_runs.server.store.statements import Statement, updating
from openai_runs.server.store.transaction import Moved, Transaction
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run, RunStatus, Usage
from openai_runs.types.steps import RunStep

__all__ = [
    "OpenStep",
    "RunChanged",
    "RunRow",
    "announce_move",
    "close_step",
    "end_parts",
    "fill_calls",
    "find_run",
    "hold",
    "moved",
    "open_steps",
    "put",
    "retry_if_changed",
    "total",
    "write_run",
]

P = ParamSpec("P")
T = TypeVar("T")


_RETRIES: Final = 20
"""Times that work begins again; more would be a fault of ours, and must not hang the writer."""


class RunChanged(Exception):  # noqa: N818 - an outcome, not a fault
    """The run's row is not as it was read; nothing was written."""


class RunRow(NamedTuple):
    """A run's row, as it was read."""

    thread_id: str
    status: str
    deadline: int
    epoch: int
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    reasoning_effort: str | None
    body: str
    worker: str | None


_OPEN_STEPS: Final = Statement(
    select(steps.c.body, steps.c.prompt_tokens, steps.c.completion_tokens)
    .where(steps.c.run_id == bindparam("r"), steps.c.status == literal_column("'in_progress'"))
    .order_by(steps.c.seq)
)
_MESSAGE: Final = Statement(select(messages.c.body).where(messages.c.id == bindparam("key")))
_MINE = runs.c.id == bindparam("key")
_AT_EPOCH = runs.c.epoch == bindparam("held")
_FIND_RUN: Final = Statement(select(*(runs.c[name] for name in RunRow._fields)).where(_MINE))
_WRITABLE: Final[ColumnElement[bool]] = runs.c.status.in_(
    [literal_column(f"'{status}'") for status in (RunStatus.IN_PROGRESS, RunStatus.CANCELLING)]
)
_HOLD: Final = Statement(
    update(runs).where(_MINE, _AT_EPOCH, _WRITABLE).values(epoch=runs.c.epoch), []
)
"""Changes nothing, but no other transaction changes the row before the commit."""


@lru_cache
def _writing(*columns: str) -> Statement:
    """Return the update of these columns, where the row is as it was read."""
    as_read = (_MINE, _AT_EPOCH, runs.c.body == bindparam("was_body"))
    return Statement(update(runs).where(*as_read), columns)


def retry_if_changed(work: Callable[P, T]) -> Callable[P, T]:
    """Return the same work, which begins again if the run has changed since it was read."""

    @wraps(work)
    def retrying(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(_RETRIES):
            try:
                return work(*args, **kwargs)
            except RunChanged:  # nothing was written
                continue
        return work(*args, **kwargs)

    return retrying


def find_run(connection: Connection, run_id: str) -> RunRow | None:
    """Return the run's row, if there is one."""
    row = _FIND_RUN.one(connection, key=run_id)
    return None if row is None else RunRow(*row)


def hold(tx: Transaction, run_id: str, epoch: int) -> bool:
    """Return whether an execution of this epoch may write, and if so keep it like that."""
    held = _HOLD.run(tx.connection, key=run_id, held=epoch).rowcount > 0
    if held:
        tx.log_ends_at(epoch, event_log.last_seq(tx.connection, run_id))
    return held


class OpenStep(msgspec.Struct, frozen=True):
    """A step in progress, with the tokens it will show when it is done."""

    step: RunStep
    usage: Usage


def write_run(tx: Transaction, row: RunRow, run: Run, **columns: Any) -> bytes:
    """Write the run where its row is as it was read, and return its JSON as stored.

    The first thing that is written of a piece of work; the caller logs it.

    Raises:
        RunChanged: The row is another by now, or gone.
    """
    stored = shared_json.encode_again(run, row.body.encode())
    values = {"status": run.status, "body": stored.decode(), **columns}
    was = {"held": row.epoch, "was_body": row.body}  # the body holds the status
    if not _writing(*values).run(tx.connection, key=run.id, **was, **values).rowcount:
        raise RunChanged
    last = event_log.last_seq(tx.connection, run.id)
    tx.log_ends_at(columns.get("epoch", row.epoch), last)
    return stored


def moved(run: Run, stored: bytes) -> Moved:
    """Return the change that the run has a new status."""
    return Moved(
        id=run.id,
        thread_id=run.thread_id,
        status=run.status,
        stored=stored,
        created_at=run.created_at,
        expires_at=run.expires_at,
        total_tokens=run.usage.total_tokens if run.usage else 0,
    )


def announce_move(tx: Transaction, run: Run, stored: bytes, now: int) -> Moved:
    """Have it announced that the run has a new status, after what was logged before."""
    change = moved(run, stored)
    tx.announce(change)
    tx.log_events(run.id, now, LoggedEvent(f"thread.run.{run.status}", stored))
    return change


def put(tx: Transaction, run: Run, writings: list[Writing], now: int) -> None:
    """Store what an execution wrote: steps and messages that begin, and pieces of them."""
    for writing in writings:
        match writing:
            case Opening():
                _add_opening(tx, run, writing, now)
            case Delta():
                tx.log_events(run.id, now, LoggedEvent(writing.event, writing.data))


def _add_opening(tx: Transaction, run: Run, opening: Opening, now: int) -> None:
    step, message = opening.step, opening.message
    body = add(tx.connection, step, run_id=run.id, status=step.status)
    _log_begun(tx, run, "thread.run.step", body, now)
    if message is not None:
        body = add(tx.connection, message, thread_id=run.thread_id, run_id=run.id)
        _log_begun(tx, run, "thread.message", body, now)


def _log_begun(tx: Transaction, run: Run, kind: str, body: str, now: int) -> None:
    data = body.encode()
    logged = [LoggedEvent(f"{kind}.{what}", data) for what in ("created", "in_progress")]
    tx.log_events(run.id, now, *logged)


def open_steps(connection: Connection, run_id: str) -> list[OpenStep]:
    """Return the steps of the run that are in progress, oldest first."""
    return [
        OpenStep(decode(RunStep, body, f"of '{run_id}'"), total(prompt, completion))
        for body, prompt, completion in _OPEN_STEPS.all(connection, r=run_id)
    ]


def total(prompt: int, completion: int) -> Usage:
    """Return the usage with its sum."""
    return Usage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )


def fill_calls(connection: Connection, step: RunStep, turn: Ending) -> None:
    """Write the calls of a step that goes on until their outputs come."""
    usage = turn.usage
    values = {
        "body": encode(with_calls(step, turn.calls)),
        "echoed": turn.echoed,
        "prompt_tokens": usage.prompt_tokens if usage else 0,
        "completion_tokens": usage.completion_tokens if usage else 0,
    }
    updating(steps, *values).run(connection, key=step.id, **values)


def close_step(tx: Transaction, step: RunStep, now: int) -> None:
    """Write a step that has ended, and tell of it."""
    body = encode(step)
    values = {"status": step.status, "body": body}
    updating(steps, *values).run(tx.connection, key=step.id, **values)
    tx.log_events(step.run_id, now, LoggedEvent(f"thread.run.step.{step.status}", body.encode()))


def end_parts(tx: Transaction, parts: list[OpenStep], ending: Ending, now: int) -> None:
    """End these steps in progress, and the messages they write."""
    for part in parts:
        message_id = step_message_id(part.step)
        if message_id is not None:
            _end_message(tx, part.step.run_id, message_id, ending, now)
        # The tokens are those of one model call, so only one of its steps shows them.
        usage = (ending.usage if part is parts[0] else None) or part.usage
        close_step(tx, ended_step(part.step, ending, usage, now), now)


def _end_message(tx: Transaction, run_id: str, message_id: str, ending: Ending, now: int) -> None:
    # A client may change its metadata, or delete it, at any time.
    while (found := _MESSAGE.value(tx.connection, key=message_id)) is not None:
        message = ended_message(decode(Message, found, message_id), ending, now)
        body = replace_body(tx.connection, message, found)
        if body is not None:
            tx.log_events(
                run_id, now, LoggedEvent(f"thread.message.{message.status}", body.encode())
            )
            return
