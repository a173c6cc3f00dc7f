"""What an execution writes for its run: the claim, a message, tool calls, the end.

Everything names the epoch of its claim; a claim raises the epoch, so whoever held the run
before writes nothing any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Row, select, update

from openai_runs.config import MAX_RUN_ATTEMPTS
from openai_runs.server import progress
from openai_runs.server.progress import Ending, LostRace
from openai_runs.server.store.moving import add_step, end_parts, move, open_steps, total
from openai_runs.server.store.rows import add, decode, encode
from openai_runs.server.store.schema import runs
from openai_runs.server.store.writer import Moved, Transaction
from openai_runs.types.runs import Run, RunLastError, RunStatus, Usage
from openai_runs.types.steps import FunctionToolCall

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

__all__ = ["Claim", "begin_message", "claim", "end", "put_back", "require_action"]

_TAKEABLE = runs.c.status.in_([RunStatus.QUEUED, RunStatus.IN_PROGRESS])


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A run taken up for execution."""

    run: Run
    epoch: int
    spent: Usage
    """Tokens of the model calls before this one."""
    reasoning_effort: str | None
    message_id: str | None
    """The message an execution that was killed had begun; it is written on."""


def claim(tx: Transaction, run_id: str, now: int) -> Claim | None:
    """Take the run up for execution; None if there is nothing to execute.

    A run that was taken up too often without getting anywhere is failed instead.
    """
    query = select(runs).where(runs.c.id == run_id, _TAKEABLE)
    row = tx.connection.execute(query).one_or_none()
    if row is None or row.deadline <= now:
        return None
    if row.attempts >= MAX_RUN_ATTEMPTS:
        message = f"The server gave the run up after {row.attempts} attempts."
        error = RunLastError(code="server_error", message=message)
        end(tx, run_id, Ending(status="failed", error=error), now)
        return None
    run = decode(Run, row.body)
    if run.status == RunStatus.QUEUED:
        run = progress.moved(run, RunStatus.IN_PROGRESS, now)
        tx.announce(Moved(run))
    begun = [progress.step_message_id(each.step) for each in open_steps(tx.connection, run_id)]
    return Claim(
        run=run,
        epoch=_take(tx.connection, run, row.epoch),
        spent=_spent(row, None),
        reasoning_effort=row.reasoning_effort,
        message_id=next((message_id for message_id in begun if message_id), None),
    )


def _take(connection: Connection, run: Run, epoch: int) -> int:
    values = {
        "status": run.status,
        "body": encode(run),
        "epoch": runs.c.epoch + 1,
        "attempts": runs.c.attempts + 1,
    }
    taken = update(runs).where(runs.c.id == run.id, runs.c.epoch == epoch, _TAKEABLE)
    return int(connection.execute(taken.values(values).returning(runs.c.epoch)).scalar_one())


def begin_message(tx: Transaction, run_id: str, epoch: int, now: int) -> str:
    """Put an empty message on the thread, with the step of writing it; return its id.

    Raises:
        LostRace: The run has moved on without this execution.
    """
    run, _ = _mine(tx.connection, run_id, epoch)
    message = progress.new_message(run, now)
    add(tx.connection, message, thread_id=run.thread_id, run_id=run_id)
    add_step(tx.connection, progress.message_step(run, message, now))
    return message.id


def require_action(
    tx: Transaction,
    run_id: str,
    epoch: int,
    calls: list[FunctionToolCall],
    *,
    turn: Ending,
    now: int,
) -> Run:
    """End the turn: what was written is complete, and the run waits for these calls.

    Raises:
        LostRace: The run has moved on without this execution.
    """
    run, row = _mine(tx.connection, run_id, epoch)
    following = progress.waiting(run, calls, now)
    # The tokens are shown by the step of the calls; the text came with the same model call.
    end_parts(tx.connection, run_id, msgspec.structs.replace(turn, usage=None), now)
    add_step(tx.connection, progress.tool_step(run, calls, now), turn.usage)
    spent = _spent(row, turn.usage)
    return move(
        tx,
        following,
        attempts=0,  # this far is progress: the next turn has all its attempts
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
    )


def end(
    tx: Transaction, run_id: str, ending: Ending, now: int, *, epoch: int | None = None
) -> Run | None:
    """End the run, its open steps and messages; None if it was over before.

    Without `epoch` for those who end a run from outside: cancelling, expiry.
    """
    query = select(runs).where(runs.c.id == run_id)
    if epoch is not None:
        query = query.where(runs.c.epoch == epoch)
    row = tx.connection.execute(query).one_or_none()
    if row is None:
        return None
    spent = _spent(row, ending.usage)
    try:
        run = progress.ended_run(decode(Run, row.body), ending, spent, now)
    except LostRace:
        return None
    end_parts(tx.connection, run_id, ending, now)
    return move(
        tx, run, prompt_tokens=spent.prompt_tokens, completion_tokens=spent.completion_tokens
    )


def put_back(tx: Transaction, run_id: str, epoch: int, now: int) -> Run:
    """Queue the run again, as a stopping server does; the attempt does not count.

    Raises:
        LostRace: The run has moved on without this execution.
    """
    run, row = _mine(tx.connection, run_id, epoch)
    again = progress.moved(run, RunStatus.QUEUED, now)
    return move(tx, again, attempts=max(0, row.attempts - 1))


def _mine(connection: Connection, run_id: str, epoch: int) -> tuple[Run, Row[Any]]:
    query = select(runs).where(runs.c.id == run_id, runs.c.epoch == epoch)
    row = connection.execute(query).one_or_none()
    if row is None:
        message = f"{run_id}: epoch {epoch} is over"
        raise LostRace(message)
    if row.status != RunStatus.IN_PROGRESS:
        message = f"{run_id}: {row.status}"
        raise LostRace(message)
    return decode(Run, row.body), row


def _spent(row: Row[Any], more: Usage | None) -> Usage:
    """Return the tokens of the run's model calls so far, and of one more."""
    return total(
        row.prompt_tokens + (more.prompt_tokens if more else 0),
        row.completion_tokens + (more.completion_tokens if more else 0),
    )
