"""Runs, as clients change them: made, cancelled, given outputs, removed with their thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import msgspec
from sqlalchemy import bindparam, delete, func, literal_column, select

from openai_runs.server.api_errors import (
    active_run,
    cannot_cancel,
    not_found,
    not_waiting,
    unexpected_outputs,
)
from openai_runs.server.objects import transitions
from openai_runs.server.objects.builders import NewRun
from openai_runs.server.objects.transitions import LostRace
from openai_runs.server.store import shared_json
from openai_runs.server.store.damage import DamagedRow
from openai_runs.server.store.database import Connection
from openai_runs.server.store.event_log import LoggedEvent
from openai_runs.server.store.moves import (
    RunRow,
    announce_move,
    close_step,
    find_run,
    moved,
    open_steps,
    retry_if_changed,
    write_run,
)
from openai_runs.server.store.rows import NOUNS, add, check, decode, find, lock, see
from openai_runs.server.store.schema import ACTIVE, messages, runs, steps, threads
from openai_runs.server.store.statements import Statement
from openai_runs.server.store.transaction import Edited, Removed, RunState, Transaction
from openai_runs.types.assistants import Assistant
from openai_runs.types.events import EventName
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run, RunStatus, ToolOutput
from openai_runs.types.steps import RunStep
from openai_runs.types.threads import Thread

__all__ = [
    "Counts",
    "History",
    "Unfinished",
    "active_run_id",
    "add_thread",
    "cancel",
    "count",
    "create",
    "create_with_thread",
    "delete_thread",
    "get",
    "history",
    "see_run",
    "short_history",
    "submit",
    "unfinished",
    "update_run",
]

Row: TypeAlias = tuple[Any, ...]

_BEGIN: Final = ("created", "queued")
"""What is logged of a new run."""
_FEW: Final = 32
"""Messages, or steps, that are read together with a claim: one trip to the store less."""
_FEW_CHARACTERS: Final = 64 * 1024
"""Of their JSON, all together: the claim holds up every other write meanwhile."""
_ACTIVE_RUN: Final = Statement(
    select(runs.c.id).where(runs.c.thread_id == bindparam("thread"), ACTIVE)
)
_NEW_RUN: Final = ("id", "body", "thread_id", "status", "deadline", "reasoning_effort")
_ADD_RUN: Final = Statement(
    lambda insert: insert(runs).on_conflict_do_nothing(
        index_elements=[runs.c.thread_id], index_where=ACTIVE
    ),
    _NEW_RUN,
)
"""Inserts nothing if the thread has an active run; the index decides, also between writers."""
_REMOVE_ACTIVE: Final = Statement(
    delete(runs).where(runs.c.thread_id == bindparam("thread"), ACTIVE).returning(runs.c.id)
)
_DELETE_THREAD: Final = Statement(delete(threads).where(threads.c.id == bindparam("key")))
_UNFINISHED: Final = Statement(
    select(runs.c.id, runs.c.status, runs.c.deadline, runs.c.attempts)
    .where(ACTIVE)
    .order_by(runs.c.seq)
)
_COUNTS: Final = Statement(
    select(runs.c.status, func.count()).where(ACTIVE).group_by(runs.c.status)
)
_OLDEST: Final = Statement(
    select(runs.c.body).where(ACTIVE).order_by(runs.c.seq).limit(literal_column("1"))
)
_STEPS: Final = Statement(
    select(steps.c.body, steps.c.echoed)
    .where(steps.c.run_id == bindparam("r"))
    .order_by(steps.c.seq)
)
_OF_THREAD = (
    select(messages.c.body)
    .where(messages.c.thread_id == bindparam("thread"))
    .order_by(messages.c.seq.desc())
)
_MESSAGES: Final = Statement(_OF_THREAD)
_LAST_MESSAGES: Final = Statement(_OF_THREAD.limit(bindparam("rows")))


class Unfinished(msgspec.Struct, frozen=True, kw_only=True):
    """An active run, as a starting server finds it."""

    run_id: str
    status: str
    deadline: int
    """Unix seconds at which it expires."""
    attempts: int
    """Crashes in a row, each in a trial of this run."""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What the health page says of the active runs."""

    by_status: dict[str, int]
    oldest_created_at: int | None
    """Unix seconds; None if no run is active."""


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What a model call is about: the thread before the run, and the run's own steps."""

    messages: list[Message]
    """Oldest first, without those the run wrote itself."""
    steps: list[RunStep]
    """Oldest first."""
    written: dict[str, Message]
    """The messages the run wrote itself, by id."""
    echoed: dict[str, str] = {}
    """JSON of what the model's endpoint wants back with a step, by its id."""


def active_run_id(connection: Connection, thread_id: str) -> str | None:
    """Return the id of the thread's active run."""
    found: str | None = _ACTIVE_RUN.value(connection, thread=thread_id)
    return found


def add_thread(tx: Transaction, thread: Thread, messages: list[Message]) -> Thread:
    """Store a new thread with its first messages."""
    add(tx.connection, thread)
    for message in messages:
        add(tx.connection, message, thread_id=thread.id)
    return thread


def create(
    tx: Transaction, thread_id: str, assistant_id: str, make: Callable[[Assistant], NewRun]
) -> RunState:
    """Store the run that `make` builds from the assistant, and its messages before it.

    Raises:
        Refusal: There is no such thread or assistant, or the thread is busy.
    """
    lock(tx.connection, thread_id)
    return _begin(tx, make(find(tx.connection, Assistant, assistant_id)))


def create_with_thread(
    tx: Transaction,
    thread: Thread,
    messages: list[Message],
    assistant_id: str,
    make: Callable[[Assistant], NewRun],
) -> RunState:
    """Store the same with the thread it is on; its log begins with that.

    Raises:
        Refusal: There is no such assistant.
    """
    add_thread(tx, thread, messages)
    made = LoggedEvent(EventName.THREAD_CREATED, msgspec.json.encode(thread))
    return _begin(tx, make(find(tx.connection, Assistant, assistant_id)), made)


def _begin(tx: Transaction, new: NewRun, *before: LoggedEvent) -> RunState:
    run, stored = new.run, _add_run(tx.connection, new)
    for message in new.messages:
        add(tx.connection, message, thread_id=new.run.thread_id, run_id=message.run_id)
    change = moved(run, stored)
    tx.announce(change)
    tx.log_ends_at(0, 0)
    logged = [LoggedEvent(f"thread.run.{what}", stored) for what in _BEGIN]
    tx.log_events(run.id, run.created_at, *before, *logged)
    return change


def _add_run(connection: Connection, new: NewRun) -> bytes:
    """Insert the run, and return its JSON as stored.

    Raises:
        Refusal: The thread has an active run.
    """
    run = new.run
    stored, texts = shared_json.split(run, new.base_instructions)
    values = (
        run.id,
        stored.decode(),
        run.thread_id,
        run.status,
        run.expires_at,
        new.reasoning_effort,
    )
    row = dict(zip(_NEW_RUN, values, strict=True))
    while not _ADD_RUN.run(connection, **row).rowcount:
        blocking = active_run_id(connection, run.thread_id)
        if blocking is not None:  # else it has ended just now
            raise active_run(run.thread_id, blocking)
    shared_json.keep(connection, run.id, texts, run.created_at)
    return stored


@retry_if_changed
def update_run(tx: Transaction, thread_id: str, run_id: str, changes: dict[str, Any]) -> RunState:
    """Change what is in no column: the metadata."""
    run, row = _read(tx.connection, thread_id, run_id)
    stored = write_run(tx, row, msgspec.structs.replace(run, **changes))
    change = Edited(id=run.id, thread_id=run.thread_id, status=run.status, stored=stored)
    tx.announce(change)
    return change


@retry_if_changed
def cancel(tx: Transaction, thread_id: str, run_id: str, now: int) -> RunState:
    """Move the run to `cancelling`; the engine does the rest.

    Raises:
        Refusal: There is no such run, or it is finished or being cancelled already.
    """
    run, row = _read(tx.connection, thread_id, run_id)
    try:
        cancelling = transitions.moved(run, RunStatus.CANCELLING, now)
    except LostRace:
        raise cannot_cancel(run.status) from None
    body = write_run(tx, row, cancelling)
    return announce_move(tx, cancelling, body, now)


@retry_if_changed
def submit(
    tx: Transaction, thread_id: str, run_id: str, outputs: list[ToolOutput], now: int
) -> RunState:
    """Fill in the outputs and queue the run.

    Raises:
        Refusal: The run does not wait, or these are not exactly the outputs it waits for.
    """
    run, row = _read(tx.connection, thread_id, run_id)
    if run.status != RunStatus.REQUIRES_ACTION:
        raise not_waiting(run.status)
    if row.deadline <= now:  # the timer is about to say so
        raise not_waiting(RunStatus.EXPIRED)
    expected = [call.id for call in run.tool_calls]
    sent = [output.tool_call_id for output in outputs]
    if sorted(expected) != sorted(sent):
        raise unexpected_outputs(expected, sent)
    queued = transitions.moved(run, RunStatus.QUEUED, now)
    body = write_run(tx, row, queued)
    given = {output.tool_call_id: output.output for output in outputs}
    for waiting in open_steps(tx.connection, run_id):
        done = transitions.answered_step(waiting.step, given, waiting.usage, now)
        close_step(tx, done, now)
    return announce_move(tx, queued, body, now)


def _read(connection: Connection, thread_id: str, run_id: str) -> tuple[Run, RunRow]:
    """Return the run, but for its shared JSON, and its row.

    Raises:
        Refusal: There is no such run, or no such thread.
    """
    row = _find(connection, thread_id, run_id)
    return decode(Run, row.body, run_id), row


def _find(connection: Connection, thread_id: str, run_id: str) -> RunRow:
    see(connection, Thread, thread_id)
    row = find_run(connection, run_id)
    if row is None or row.thread_id != thread_id:
        raise not_found(NOUNS[Run], run_id)
    return row


def delete_thread(tx: Transaction, thread_id: str) -> None:
    """Delete the thread with all that is on it; an active run goes too.

    Raises:
        Refusal: There is no such thread.
    """
    lock(tx.connection, thread_id)
    removed = _REMOVE_ACTIVE.all(tx.connection, thread=thread_id)
    _DELETE_THREAD.run(tx.connection, key=thread_id)
    for (run_id,) in removed:
        tx.announce(Removed(run_id))


def unfinished(connection: Connection) -> list[Unfinished]:
    """Return the active runs, oldest first."""
    return [
        Unfinished(run_id=run_id, status=status, deadline=deadline, attempts=attempts)
        for run_id, status, deadline, attempts in _UNFINISHED.all(connection)
    ]


def count(connection: Connection) -> Counts:
    """Return how many runs are in each active status, and the age of the oldest."""
    by_status = {str(status): int(number) for status, number in _COUNTS.all(connection)}
    return Counts(by_status=by_status, oldest_created_at=_oldest(connection))


class _Created(msgspec.Struct):
    created_at: int


_created_decoder: Final = msgspec.json.Decoder(_Created)


def _oldest(connection: Connection) -> int | None:
    try:
        return _created_decoder.decode(_OLDEST.value(connection) or b"{}").created_at
    # Of a row that is damaged, none: it must not hide how all others are.
    except (DamagedRow, msgspec.MsgspecError, TypeError, UnicodeError):
        return None


def history(connection: Connection, run: Run) -> History:
    """Return what the model is to see; of the thread's own, what the run's strategy leaves."""
    stored, last = _STEPS.all(connection, r=run.id), _last_messages(run)
    done = _as_steps(stored, run)
    if last is None:
        rows = _MESSAGES.all(connection, thread=run.thread_id)
    else:  # those of the run itself may be among them
        rows = _LAST_MESSAGES.all(connection, thread=run.thread_id, rows=last + len(done))
    return _history(run, done, rows, stored)


def short_history(connection: Connection, run: Run) -> History | None:
    """Return the same where it is short; None if there is more."""
    steps = _few(_STEPS.each(connection, r=run.id))
    if steps is None:
        return None
    done, last = _as_steps(steps, run), _last_messages(run)
    wanted = _FEW + 1 if last is None else last + len(done)
    rows = _few(_LAST_MESSAGES.each(connection, thread=run.thread_id, rows=wanted))
    return None if rows is None else _history(run, done, rows, steps)


def _few(rows: Iterable[Row]) -> list[Row] | None:
    """Return the rows, which are read one by one; None if they are many or large."""
    found: list[Row] = []
    size = 0
    for row in rows:
        size += sum(len(text or "") for text in row)
        if len(found) == _FEW or size > _FEW_CHARACTERS:
            return None
        found.append(row)
    return found


def _as_steps(rows: list[Row], run: Run) -> list[RunStep]:
    return [decode(RunStep, row[0], f"of '{run.id}'") for row in rows]


def _last_messages(run: Run) -> int | None:
    strategy = run.truncation_strategy
    return strategy.last_messages if strategy and strategy.kind == "last_messages" else None


def _history(run: Run, done: list[RunStep], newest_first: list[Row], steps: list[Row]) -> History:
    own = {transitions.step_message_id(step) for step in done} - {None}
    thread = [decode(Message, row[0], f"of '{run.thread_id}'") for row in reversed(newest_first)]
    before = [message for message in thread if message.id not in own]
    last = _last_messages(run)
    return History(
        messages=before if last is None else before[-last:],
        steps=done,
        written={message.id: message for message in thread if message.id in own},
        echoed={step.id: row[1] for step, row in zip(done, steps, strict=True) if row[1]},
    )


def see_run(connection: Connection, thread_id: str, run_id: str) -> None:
    """See that there is such a run.

    Raises:
        Refusal: There is none, or no such thread.
    """
    see(connection, Thread, thread_id)
    see(connection, Run, run_id, thread_id=thread_id)


def get(connection: Connection, thread_id: str, run_id: str) -> RunState:
    """Return the run.

    Raises:
        Refusal: There is no such run, or no such thread.
    """
    row = _find(connection, thread_id, run_id)
    stored = check(Run, row.body, run_id).encode()
    return RunState(id=run_id, thread_id=thread_id, status=row.status, stored=stored)
