"""Writing a run and its steps back, together with what must happen at the same time.

The columns that repeat a part of an object are written here and nowhere else, and the
events that tell of it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import bindparam, literal_column, select

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
from openai_runs.server.store.database import Connection
from openai_runs.server.store.event_log import LoggedEvent
from openai_runs.server.store.rows import add, decode, encode
from openai_runs.server.store.schema import messages, runs, steps
from openai_runs.server.store.sqlite.writer import Moved, Transaction
from openai_runs.server.store.statements import Statement, updating
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run, Usage
from openai_runs.types.steps import FunctionToolCall, RunStep

__all__ = [
    "OpenStep",
    "close_step",
    "end_parts",
    "fill_calls",
    "move",
    "open_steps",
    "put",
    "total",
    "write_run",
]


_OPEN_STEPS: Final = Statement(
    select(steps.c.body, steps.c.prompt_tokens, steps.c.completion_tokens)
    .where(steps.c.run_id == bindparam("r"), steps.c.status == literal_column("'in_progress'"))
    .order_by(steps.c.seq)
)
_MESSAGE: Final = Statement(select(messages.c.body).where(messages.c.id == bindparam("key")))


class OpenStep(msgspec.Struct, frozen=True):
    """A step in progress, with the tokens it will show when it is done."""

    step: RunStep
    usage: Usage


def write_run(connection: Connection, run: Run, **columns: Any) -> str:
    """Write the run, and return its JSON; its status has not changed, or the caller tells."""
    body = encode(run)
    values = {"status": run.status, "body": body, **columns}
    updating(runs, *values).run(connection, key=run.id, **values)
    return body


def move(tx: Transaction, run: Run, now: int, **columns: Any) -> Run:
    """Write the run in its new status, and have that announced."""
    body = write_run(tx.connection, run, **columns).encode()
    tx.announce(Moved(run, body))
    tx.tell(run.id, now, LoggedEvent(f"thread.run.{run.status}", body))
    return run


def put(tx: Transaction, run: Run, writings: list[Writing], now: int) -> None:
    """Store what an execution wrote: steps and messages that begin, and pieces of them."""
    for writing in writings:
        match writing:
            case Opening():
                _add_opening(tx, run, writing, now)
            case Delta():
                tx.tell(run.id, now, LoggedEvent(writing.event, writing.data))


def _add_opening(tx: Transaction, run: Run, opening: Opening, now: int) -> None:
    step, message = opening.step, opening.message
    body = add(tx.connection, step, run_id=run.id, status=step.status)
    _tell_begun(tx, run, "thread.run.step", body, now)
    if message is not None:
        body = add(tx.connection, message, thread_id=run.thread_id, run_id=run.id)
        _tell_begun(tx, run, "thread.message", body, now)


def _tell_begun(tx: Transaction, run: Run, kind: str, body: str, now: int) -> None:
    data = body.encode()
    told = [LoggedEvent(f"{kind}.{what}", data) for what in ("created", "in_progress")]
    tx.tell(run.id, now, *told)


def open_steps(connection: Connection, run_id: str) -> list[OpenStep]:
    """Return the steps of the run that are in progress, oldest first."""
    return [
        OpenStep(decode(RunStep, body), total(prompt, completion))
        for body, prompt, completion in _OPEN_STEPS.all(connection, r=run_id)
    ]


def total(prompt: int, completion: int) -> Usage:
    """Return the usage with its sum."""
    return Usage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )


def fill_calls(
    connection: Connection, step: RunStep, calls: list[FunctionToolCall], usage: Usage | None
) -> None:
    """Write the calls of a step that goes on until their outputs come."""
    values = {
        "body": encode(with_calls(step, calls)),
        "prompt_tokens": usage.prompt_tokens if usage else 0,
        "completion_tokens": usage.completion_tokens if usage else 0,
    }
    updating(steps, *values).run(connection, key=step.id, **values)


def close_step(tx: Transaction, step: RunStep, now: int) -> None:
    """Write a step that has ended, and tell of it."""
    body = encode(step)
    values = {"status": step.status, "body": body}
    updating(steps, *values).run(tx.connection, key=step.id, **values)
    tx.tell(step.run_id, now, LoggedEvent(f"thread.run.step.{step.status}", body.encode()))


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
    found = _MESSAGE.value(tx.connection, key=message_id)
    if found is not None:  # else somebody deleted it meanwhile
        message = ended_message(decode(Message, found), ending, now)
        body = encode(message)
        updating(messages, "body").run(tx.connection, key=message_id, body=body)
        tx.tell(run_id, now, LoggedEvent(f"thread.message.{message.status}", body.encode()))
