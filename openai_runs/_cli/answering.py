"""A run that is streamed to a person: what is shown of it."""

import logging
import os
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

import anyio

from openai_runs import (
    AsyncClient,
    BadRequestError,
    OpenAIRunsError,
    PollPolicy,
    Run,
    RunError,
    RunResult,
    RunWaitTimeout,
)
from openai_runs._cli.connecting import ECHO, Place, echoes
from openai_runs._cli.functions import FORM
from openai_runs._cli.outputs import say
from openai_runs._cli.terminal.answer import AnswerDisplay
from openai_runs._client.streams.run_stream import RunStream

__all__ = [
    "POLL",
    "activity_of",
    "is_news",
    "next_step",
    "pass_on",
    "remove",
    "say_calls",
    "show_rest",
    "temporary_assistant",
    "unanswered",
    "warn_of_echo",
]

POLL: Final = PollPolicy(max_outage=10.0)
"""Somebody looks at a prompt and waits: ten seconds without a server are enough."""
_GRACE: Final = 5.0
"""Seconds for removing what was made for the command alone."""


def activity_of(stream: RunStream | None) -> str:
    """Return what is done now; an empty text where nothing is."""
    if stream is None or stream.run is None:
        return "connecting"
    if stream.is_reconnecting:
        return "reconnecting"
    if stream.run.tool_calls:
        return f"calling {', '.join(call.function.name for call in stream.run.tool_calls)}"
    return "" if stream.run.is_terminal else "thinking"


async def pass_on(stream: RunStream, display: AnswerDisplay) -> RunResult:
    """Write the words as they come; return the result, whatever the run's status is.

    Raises:
        OpenAIRunsError: There is no result.
        Closed: Nobody reads standard output any more.
        Stop: It cannot be written.
    """
    try:
        async for piece in stream.text_deltas():
            await display.write(piece)
    except RunWaitTimeout:
        raise
    except RunError:
        pass  # a run that did not complete: its status is shown when all is written
    return await stream.result()


def say_calls(run: Run) -> None:
    """Say which functions are called now, and with what."""
    for call in run.tool_calls:
        say(f"calls {call.function.name}({call.function.arguments})")


async def show_rest(result: RunResult, display: AnswerDisplay) -> None:
    """Write what the stream did not bring: nothing, unless the server crashed meanwhile."""
    written = display.text
    if written.split() == result.text.split():
        await display.end_line()
        return
    if written:
        await display.end_line()
        display.stop()
        say("the server began the answer anew; this is all of it:")
    await display.write(result.text)
    await display.end_line()


@asynccontextmanager
async def temporary_assistant(
    client: AsyncClient,
    *,
    model: str,
    name: str,
    instructions: str | None,
    timeout: float | None = None,
    is_removed: bool,
) -> AsyncIterator[str]:
    """Yield the id of an assistant for this command; `is_removed` afterwards, if others see it."""
    assistant = await client.assistants.create(
        model=model, name=name, instructions=instructions, timeout=timeout
    )
    try:
        yield assistant.id
    finally:
        if is_removed:
            await remove("assistant", assistant.id, client.assistants.delete)


async def remove(kind: str, object_id: str, delete: Callable[[str], Awaitable[object]]) -> None:
    """Remove what was made for this command, also when it is being cancelled."""
    with anyio.move_on_after(_GRACE, shield=True) as scope:
        try:
            await delete(object_id)
        except OpenAIRunsError as error:  # raised from here it would hide why we are here
            say(f"{kind} {object_id} could not be removed: {error}")
    if scope.cancelled_caught:
        say(f"{kind} {object_id} could not be removed within {_GRACE:g} s")


async def warn_of_echo(client: AsyncClient, model: str | None, place: Place) -> None:
    """Say so where a model was named and there is none."""
    if model in {None, ECHO} or place.model_url is not None:
        return
    if await echoes(client):
        say(
            f"echo: no model. The server repeats the text and does not ask {model}; one that "
            "asks a model is started with `openai-runs serve --model-url URL`",
            dim=False,
        )


def unanswered(run: Run) -> str:
    """Return what to do about a run that waits for the outputs of tools."""
    resume = f'`runs.resume("{run.id}", thread_id="{run.thread_id}", tools=[...])`'
    waits = f"this run waits until it expires, and {resume} in Python answers it"
    names = ", ".join(dict.fromkeys(call.function.name for call in run.tool_calls))
    if not names:  # what it waits for is no function of ours
        return waits
    return f"name the function that answers {names} with --tools {FORM}; {waits}"


def next_step(
    command: str, thread_id: str, place: Place, options: Iterable[tuple[str, str | None]]
) -> str:
    """Return how to continue a thread, as it can be typed."""
    if not place.is_lasting(os.environ):
        return "this thread is gone now; with --db FILE it is kept, and can be continued"
    given = "".join(f" {name} {shlex.quote(text)}" for name, text in options if text)
    there = place.options(models=True)
    return f"continue: openai-runs {command} --thread {thread_id}{given}{there}"


def is_news(record: logging.LogRecord) -> bool:
    """Return False of a run that could not be cancelled because it was over already."""
    return not any(isinstance(one, BadRequestError) for one in record.args or ())
