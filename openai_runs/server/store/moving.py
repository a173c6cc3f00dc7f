"""Writing a run and its steps back, together with what must happen at the same time.

The columns that repeat a part of an object are written here and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import select, update

from openai_runs.server.progress import Ending, ended_message, ended_step, step_message_id
from openai_runs.server.store.rows import add, decode, encode
from openai_runs.server.store.schema import messages, runs, steps
from openai_runs.server.store.writer import Moved, Transaction
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run, Usage
from openai_runs.types.steps import RunStep

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

__all__ = [
    "OpenStep",
    "add_step",
    "close_step",
    "end_parts",
    "move",
    "open_steps",
    "total",
    "write_run",
]


class OpenStep(msgspec.Struct, frozen=True):
    """A step in progress, with the tokens it will show when it is done."""

    step: RunStep
    usage: Usage


def write_run(connection: Connection, run: Run, **columns: Any) -> None:
    """Write the run; its status has not changed, or is announced by the caller."""
    values = {"status": run.status, "body": encode(run), **columns}
    connection.execute(update(runs).where(runs.c.id == run.id).values(values))


def move(tx: Transaction, run: Run, **columns: Any) -> Run:
    """Write the run in its new status, and have that announced."""
    write_run(tx.connection, run, **columns)
    tx.announce(Moved(run))
    return run


def add_step(connection: Connection, step: RunStep, usage: Usage | None = None) -> None:
    """Store a step that begins."""
    add(
        connection,
        step,
        run_id=step.run_id,
        status=step.status,
        prompt_tokens=usage.prompt_tokens if usage else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
    )


def open_steps(connection: Connection, run_id: str) -> list[OpenStep]:
    """Return the steps of the run that are in progress, oldest first."""
    query = select(steps.c.body, steps.c.prompt_tokens, steps.c.completion_tokens)
    query = query.where(steps.c.run_id == run_id, steps.c.status == "in_progress")
    return [
        OpenStep(decode(RunStep, body), total(prompt, completion))
        for body, prompt, completion in connection.execute(query.order_by(steps.c.seq)).all()
    ]


def total(prompt: int, completion: int) -> Usage:
    """Return the usage with its sum."""
    return Usage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )


def close_step(connection: Connection, step: RunStep) -> None:
    """Write a step that has ended."""
    values = {"status": step.status, "body": encode(step)}
    connection.execute(update(steps).where(steps.c.id == step.id).values(values))


def end_parts(connection: Connection, run_id: str, ending: Ending, now: int) -> None:
    """End the steps in progress, and the messages they write."""
    for open_step in open_steps(connection, run_id):
        usage = ending.usage or open_step.usage
        close_step(connection, ended_step(open_step.step, ending, usage, now))
        message_id = step_message_id(open_step.step)
        if message_id is not None:
            _end_message(connection, message_id, ending, now)


def _end_message(connection: Connection, message_id: str, ending: Ending, now: int) -> None:
    query = select(messages.c.body).where(messages.c.id == message_id)
    body = connection.execute(query).scalar_one_or_none()
    if body is not None:  # else somebody deleted it meanwhile
        message = ended_message(decode(Message, body), ending, now)
        values = {"body": encode(message)}
        connection.execute(update(messages).where(messages.c.id == message_id).values(values))
