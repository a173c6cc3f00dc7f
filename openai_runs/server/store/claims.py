"""What an execution writes for its run: the claim, messages, tool calls, the end.

Everything names the epoch of its claim; a claim raises the epoch, so whoever held the run
before writes nothing any more. How that is kept stands in `moves`: each function here writes
the run's row before anything else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from openai_runs.config import MAX_RUN_ATTEMPTS
from openai_runs.server.objects import transitions
from openai_runs.server.objects.transitions import (
    Ending,
    LostRace,
    Opening,
    Writing,
    step_message_id,
)
from openai_runs.server.store import event_log, schema
from openai_runs.server.store.database import Connection
from openai_runs.server.store.moves import (
    OpenStep,
    RunChanged,
    RunRow,
    announce_move,
    end_parts,
    fill_calls,
    find_run,
    hold,
    open_steps,
    put,
    retry_if_changed,
    total,
    write_run,
)
from openai_runs.server.store.rows import decode, lock_if_there
from openai_runs.server.store.runs import History, short_history
from openai_runs.server.store.statements import updating
from openai_runs.server.store.transaction import RunState, Transaction
from openai_runs.types.runs import Run, RunLastError, RunStatus, Usage
from openai_runs.types.steps import RunStep

__all__ = [
    "Claim",
    "claim",
    "claim_row",
    "end",
    "pass_trial",
    "put_back",
    "require_action",
    "set_attempts",
    "write",
]

_SET_ATTEMPTS: Final = updating(schema.runs, "attempts")


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed run, and what its execution goes on from."""

    run: Run
    """Without its shared JSON, which `SharedJson.complete` adds."""
    stored: bytes
    """Its JSON as stored."""
    epoch: int
    spent: Usage
    """Tokens of the model calls before this one."""
    reasoning_effort: str | None
    message_id: str | None
    """The message an execution that was killed had begun; it is written on."""
    step: RunStep | None
    """The step of tool calls it had begun; they are made again."""
    history: History | None
    """What the model is to see; None: that is much, so it is to be read apart."""


@retry_if_changed
def claim(tx: Transaction, run_id: str, now: int, *, attempts: int | None = None) -> Claim | None:
    """Claim the run for an execution; None if there is nothing to execute.

    With `attempts` for a trial, after so many in which the server crashed; a run that has had
    too many of them is failed instead.
    """
    row = find_run(tx.connection, run_id)
    if row is None or row.status not in {RunStatus.QUEUED, RunStatus.IN_PROGRESS}:
        return None
    return claim_row(tx, run_id, row, now, attempts=attempts)


def claim_row(
    tx: Transaction,
    run_id: str,
    row: RunRow,
    now: int,
    *,
    attempts: int | None = None,
    worker: str | None = None,
) -> Claim | None:
    """Do the same with a row that was read, for this process where there are several.

    Raises:
        RunChanged: The row is another by now.
    """
    if row.deadline <= now:
        return None
    if attempts is not None and attempts >= MAX_RUN_ATTEMPTS:
        _give_up(tx, row, attempts, now)
        return None
    run, epoch = decode(Run, row.body, run_id), row.epoch + 1
    queued = run.status == RunStatus.QUEUED
    if queued:
        run = transitions.moved(run, RunStatus.IN_PROGRESS, now)
    # Counted before it begins: of a crash, nothing else is left.
    attempts = 0 if attempts is None else attempts + 1
    stored = write_run(tx, row, run, epoch=epoch, attempts=attempts, worker=worker)
    # Nothing stands open of a run that nobody has claimed before.
    begun = [each.step for each in open_steps(tx.connection, run_id)] if row.epoch else []
    if begun:
        _restart_turn(tx, run_id, epoch, now)
    if queued:
        announce_move(tx, run, stored, now)
    messages = [step_message_id(step) for step in begun]
    return Claim(
        run=run,
        stored=stored,
        epoch=epoch,
        spent=_spent(row, None),
        reasoning_effort=row.reasoning_effort,
        message_id=next((message_id for message_id in messages if message_id), None),
        step=next((step for step in begun if step_message_id(step) is None), None),
        history=short_history(tx.connection, run),
    )


def _give_up(tx: Transaction, row: RunRow, attempts: int, now: int) -> None:
    message = (
        f"The server crashed {attempts} times in a row within seconds of starting this run, "
        "so the run is not started again."
    )
    error = RunLastError(code="server_error", message=message)
    _end(tx, row, Ending(status="failed", error=error), now, writings=[])


def _restart_turn(tx: Transaction, run_id: str, epoch: int, now: int) -> None:
    """Take back what was logged of a turn that is made again, but for what it began."""
    found = event_log.cut_turn(tx.connection, run_id)
    if found is not None:
        cut, again = found
        tx.announce(cut)
        tx.log_ends_at(epoch, cut.last)
        tx.log_events(run_id, now, *again)


def write(tx: Transaction, run: Run, epoch: int, writings: list[Writing], now: int) -> None:
    """Store what the execution wrote since the last time.

    Raises:
        LostRace: The run has moved on without this execution.
    """
    _lock_to_add(tx, run.thread_id, writings)
    if not hold(tx, run.id, epoch):
        message = f"{run.id}: epoch {epoch} is over"
        raise LostRace(message)
    put(tx, run, writings, now)


def _lock_to_add(tx: Transaction, thread_id: str, writings: list[Writing]) -> None:
    """Lock the thread that messages are to be added to, before anything of the run is written."""
    if any(isinstance(writing, Opening) for writing in writings):
        lock_if_there(tx.connection, thread_id)


@retry_if_changed
def require_action(
    tx: Transaction,
    run_id: str,
    epoch: int,
    writings: list[Writing],
    *,
    turn: Ending,
    now: int,
) -> RunState | None:
    """End the turn: what was written is complete, and the run waits for the turn's calls.

    A run that is being cancelled does not move; what was written of it is logged all the same.
    The answer is then None.

    Raises:
        LostRace: The run has moved on without this execution.
    """
    run, row = _mine(tx.connection, run_id, epoch, {RunStatus.IN_PROGRESS, RunStatus.CANCELLING})
    _lock_to_add(tx, row.thread_id, writings)
    if run.status == RunStatus.CANCELLING:  # whoever ends it knows the whole, but not these
        if not hold(tx, run_id, epoch):
            raise RunChanged
        put(tx, run, writings, now)
        return None
    following = transitions.waiting(run, turn.calls, now)
    spent = _spent(row, turn.usage)
    body = write_run(
        tx,
        row,
        following,
        attempts=0,  # this far is progress: the next turn has had no trial
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
    )
    put(tx, run, writings, now)
    messages, calls = _parted(open_steps(tx.connection, run_id))
    # The tokens are shown by the step of the calls; the text came with the same model call.
    end_parts(tx, messages, msgspec.structs.replace(turn, usage=None), now)
    for part in calls:
        fill_calls(tx.connection, part.step, turn)
    return announce_move(tx, following, body, now)


def _parted(parts: list[OpenStep]) -> tuple[list[OpenStep], list[OpenStep]]:
    """Return the steps that write messages, and those that call tools."""
    messages = [part for part in parts if step_message_id(part.step) is not None]
    return messages, [part for part in parts if step_message_id(part.step) is None]


@retry_if_changed
def end(
    tx: Transaction,
    run_id: str,
    ending: Ending,
    now: int,
    *,
    writings: list[Writing],
    epoch: int | None = None,
    written_in: int | None = None,
) -> RunState | None:
    """End the run, its open steps and messages; None if it was over before.

    Without `epoch` for those who end a run from outside: cancelling, expiry. `written_in` is then
    the epoch of what was written: of another than the run's, nothing is stored.
    """
    row = find_run(tx.connection, run_id)
    if row is None or row.epoch != (row.epoch if epoch is None else epoch):
        return None
    if written_in not in {None, row.epoch}:  # another execution has the run, and its text is logged
        ending, writings = Ending(status=ending.status), []
    return _end(tx, row, ending, now, writings=writings)


def _end(
    tx: Transaction, row: RunRow, ending: Ending, now: int, *, writings: list[Writing]
) -> RunState | None:
    _lock_to_add(tx, row.thread_id, writings)
    spent = _spent(row, ending.usage)
    try:
        run = transitions.ended_run(
            decode(Run, row.body, f"of '{row.thread_id}'"), ending, spent, now
        )
    except LostRace:
        return None
    body = write_run(
        tx,
        row,
        run,
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
    )
    put(tx, run, writings, now)
    parts = open_steps(tx.connection, run.id)
    end_parts(tx, parts, _with_text(tx.connection, ending, parts), now)
    return announce_move(tx, run, body, now)


def _with_text(connection: Connection, ending: Ending, parts: list[OpenStep]) -> Ending:
    """Return the ending with the text of an execution that was killed, as far as it was logged."""
    ids = [step_message_id(part.step) for part in parts]
    message_id = next((message_id for message_id in ids if message_id), None)
    if ending.text is not None or message_id is None:
        return ending
    text = event_log.written_text(connection, parts[0].step.run_id, message_id)
    return msgspec.structs.replace(ending, text=text)


@retry_if_changed
def put_back(tx: Transaction, run_id: str, epoch: int, now: int) -> RunState:
    """Queue the run again, as a stopping server does; a trial of it does not count.

    Raises:
        LostRace: The run has moved on without this execution.
    """
    run, row = _mine(tx.connection, run_id, epoch, {RunStatus.IN_PROGRESS})
    again = transitions.moved(run, RunStatus.QUEUED, now)
    # A new epoch, lest the next event gets the place of one that was taken back.
    attempts = max(0, row.attempts - 1)
    body = write_run(tx, row, again, attempts=attempts, epoch=epoch + 1)
    _restart_turn(tx, run_id, epoch + 1, now)
    return announce_move(tx, again, body, now)


def set_attempts(tx: Transaction, run_ids: Iterable[str], attempts: int) -> None:
    """Have these runs count as runs in whose trials the server crashed so many times."""
    for run_id in run_ids:
        _SET_ATTEMPTS.run(tx.connection, key=run_id, attempts=attempts)


def pass_trial(tx: Transaction, run_id: str, epoch: int) -> None:
    """Forget the trials of a run which its execution has survived for long enough."""
    if hold(tx, run_id, epoch):
        _SET_ATTEMPTS.run(tx.connection, key=run_id, attempts=0)


def _mine(
    connection: Connection, run_id: str, epoch: int, statuses: set[str]
) -> tuple[Run, RunRow]:
    row = find_run(connection, run_id)
    if row is None or row.epoch != epoch:
        message = f"{run_id}: epoch {epoch} is over"
        raise LostRace(message)
    if row.status not in statuses:
        message = f"{run_id}: {row.status}"
        raise LostRace(message)
    return decode(Run, row.body, run_id), row


def _spent(row: RunRow, more: Usage | None) -> Usage:
    """Return the tokens of the run's model calls so far, and of one more."""
    return total(
        row.prompt_tokens + (more.prompt_tokens if more else 0),
        row.completion_tokens + (more.completion_tokens if more else 0),
    )
