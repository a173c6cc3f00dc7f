"""Keeping what comes from elsewhere with its ids, times and order: whole threads, and assistants.

Theory of operation. `plan_thread` compares a thread with what is stored and says what is to be
added; it writes nothing, so that a dry run is a read. `add_thread` makes the same plan and carries
it out, in one transaction: a thread comes whole or not at all. What is there with the same content
is passed over, so that a second time does no harm; where anything is there with other content,
nothing is written. New messages and runs are added behind those that are stored, and only if the
thread has no others: `seq` is their order, and it never changes.

Runs come ended, so no execution claims them, and no events are logged of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import bindparam, select

from openai_runs.server.objects.incoming import IncomingAssistant, IncomingRun, IncomingThread
from openai_runs.server.store import shared_json
from openai_runs.server.store.database import Connection
from openai_runs.server.store.rows import NOUNS, TABLES, add, decode, lock_if_there
from openai_runs.server.store.runs import active_run_id
from openai_runs.server.store.schema import assistants, messages, runs, steps, threads
from openai_runs.server.store.statements import Statement, inserting
from openai_runs.server.store.transaction import Transaction
from openai_runs.types.assistants import Assistant
from openai_runs.types.imports import ImportOutcome
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run
from openai_runs.types.steps import RunStep
from openai_runs.types.threads import Thread

__all__ = ["add_assistant", "add_thread", "plan_assistant", "plan_thread"]

T = TypeVar("T", Message, Run, RunStep)

_ASSISTANT: Final = Statement(select(assistants.c.body).where(assistants.c.id == bindparam("key")))
_THREAD: Final = Statement(select(threads.c.body).where(threads.c.id == bindparam("key")))
_MESSAGES: Final = Statement(
    select(messages.c.body).where(messages.c.thread_id == bindparam("key")).order_by(messages.c.seq)
)
_RUNS: Final = Statement(
    select(runs.c.body).where(runs.c.thread_id == bindparam("key")).order_by(runs.c.seq)
)
_STEPS: Final = Statement(
    select(steps.c.body).where(steps.c.run_id == bindparam("key")).order_by(steps.c.seq)
)
_IS_THERE: Final = {
    kind: Statement(select(table.c.seq).where(table.c.id == bindparam("key")))
    for kind, table in TABLES.items()
}


class _Conflict(Exception):  # noqa: N818 - an outcome
    """Something else is stored under the same ids."""


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be added of a thread."""

    is_new: bool
    messages: list[Message]
    runs: list[IncomingRun]


def plan_assistant(connection: Connection, incoming: IncomingAssistant) -> ImportOutcome:
    """Return what would become of the assistant."""
    assistant = incoming.assistant
    body = _ASSISTANT.value(connection, key=assistant.id)
    outcome, reason = "created", None
    if body is not None:
        outcome = "unchanged"
        if decode(Assistant, body, assistant.id) != assistant:
            outcome, reason = "conflict", f"assistant {assistant.id} has other content here"
    return ImportOutcome(
        id=assistant.id,
        object="assistant",
        outcome=outcome,
        reason=reason,
        left_out=incoming.left_out,
    )


def add_assistant(tx: Transaction, incoming: IncomingAssistant) -> ImportOutcome:
    """Store the assistant, if it is not there."""
    outcome = plan_assistant(tx.connection, incoming)
    if outcome.outcome == "created":
        add(tx.connection, incoming.assistant)
    return outcome


def plan_thread(connection: Connection, incoming: IncomingThread) -> ImportOutcome:
    """Return what would become of the thread."""
    return _outcome(incoming, _plan_or_conflict(connection, incoming))


def add_thread(tx: Transaction, incoming: IncomingThread) -> ImportOutcome:
    """Store what is new of the thread, or nothing if anything else is there under its ids."""
    lock_if_there(tx.connection, incoming.thread.id)
    plan = _plan_or_conflict(tx.connection, incoming)
    if isinstance(plan, _Plan):
        _carry_out(tx.connection, incoming.thread, plan)
    return _outcome(incoming, plan)


def _outcome(incoming: IncomingThread, plan: _Plan | _Conflict) -> ImportOutcome:
    if isinstance(plan, _Conflict):
        return ImportOutcome(id=incoming.thread.id, outcome="conflict", reason=str(plan))
    added = bool(plan.messages or plan.runs)
    return ImportOutcome(
        id=incoming.thread.id,
        outcome="created" if plan.is_new else "extended" if added else "unchanged",
        messages=len(plan.messages),
        runs=len(plan.runs),
        steps=sum(len(run.steps) for run in plan.runs),
        ended=incoming.ended,
        left_out=incoming.left_out,
    )


def _plan_or_conflict(connection: Connection, incoming: IncomingThread) -> _Plan | _Conflict:
    try:
        return _plan(connection, incoming)
    except _Conflict as conflict:
        return conflict.with_traceback(None)


def _plan(connection: Connection, incoming: IncomingThread) -> _Plan:
    """Return what is to be added.

    Raises:
        _Conflict: Anything is there with other content, or has no place behind what is there.
    """
    thread_id = incoming.thread.id
    body = _THREAD.value(connection, key=thread_id)
    if body is not None and decode(Thread, body, thread_id) != incoming.thread:
        message = f"thread {thread_id} has other content here"
        raise _Conflict(message)
    whole = _joining(connection)
    where = f"of '{thread_id}'"
    stored_messages = [
        decode(Message, row[0], where) for row in _MESSAGES.each(connection, key=thread_id)
    ]
    stored_runs = [
        decode(Run, whole(row[0]), where) for row in _RUNS.each(connection, key=thread_id)
    ]
    new_messages = _new(connection, stored_messages, incoming.messages)
    new_runs = {
        run.id for run in _new(connection, stored_runs, [each.run for each in incoming.runs])
    }
    for each in incoming.runs:
        _check_steps(connection, each, is_new=each.run.id in new_runs)
    active = active_run_id(connection, thread_id)
    if active is not None and (new_messages or new_runs):
        message = f"run {active} is active on thread {thread_id} here"
        raise _Conflict(message)
    return _Plan(
        is_new=body is None,
        messages=new_messages,
        runs=[each for each in incoming.runs if each.run.id in new_runs],
    )


def _new(connection: Connection, stored: Sequence[T], incoming: Sequence[T]) -> list[T]:
    """Return what of a list is not stored.

    Raises:
        _Conflict: Something has other content here, or is elsewhere, or its place is taken.
    """
    here = {thing.id: thing for thing in stored}
    new: list[T] = []
    for thing in incoming:
        noun = NOUNS[type(thing)]
        if thing.id not in here:
            if _IS_THERE[type(thing)].value(connection, key=thing.id) is not None:
                message = f"{noun} {thing.id} is elsewhere here"
                raise _Conflict(message)
            new.append(thing)
        elif here[thing.id] != thing:
            message = f"{noun} {thing.id} has other content here"
            raise _Conflict(message)
        elif new:
            message = f"{noun} {new[0].id} stands before others that are here already"
            raise _Conflict(message)
    if new and len(new) + len(stored) != len(incoming):
        message = f"others than {NOUNS[type(new[0])]} {new[0].id} were added here meanwhile"
        raise _Conflict(message)
    return new


def _check_steps(connection: Connection, incoming: IncomingRun, *, is_new: bool) -> None:
    """Check the steps of a run; those of a run that is here are all here."""
    run_id = incoming.run.id
    where = f"of '{run_id}'"
    stored = [decode(RunStep, row[0], where) for row in _STEPS.each(connection, key=run_id)]
    if _new(connection, stored, incoming.steps) and not is_new:
        message = f"run {run_id} has other steps here"
        raise _Conflict(message)


def _joining(connection: Connection) -> Callable[[str], str]:
    """Return what gives the whole JSON of a run, from what is stored of it."""
    texts: dict[str, bytes | None] = {}

    def find(name: str) -> bytes | None:
        if name not in texts:
            texts[name] = shared_json.find(connection, name)
        return texts[name]

    return lambda stored: shared_json.join(stored.encode(), find).decode()


def _carry_out(connection: Connection, thread: Thread, plan: _Plan) -> None:
    if plan.is_new:
        add(connection, thread)
    for message in plan.messages:
        add(connection, message, thread_id=thread.id, run_id=message.run_id)
    for each in plan.runs:
        _add_run(connection, each.run)
        for step in each.steps:
            add(connection, step, run_id=each.run.id, status=step.status)


def _add_run(connection: Connection, run: Run) -> None:
    stored, texts = shared_json.split(run, "")
    row: dict[str, Any] = {
        "id": run.id,
        "body": stored.decode(),
        "thread_id": run.thread_id,
        "status": run.status,
        "deadline": run.created_at,  # of no meaning once it is over
    }
    inserting(runs, *row).run(connection, **row)
    shared_json.keep(connection, run.id, texts, run.created_at)
