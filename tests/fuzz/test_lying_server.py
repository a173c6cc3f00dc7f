"""Whatever a server answers, the client returns what was sent whole, or raises an error of ours."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from openai_runs import AsyncClient, OpenAIRunsError, PollPolicy, RetryPolicy, Run, RunResult
from tests.canaries import CANARY_KEY
from tests.fuzz.hammering import SECONDS, hammer
from tests.fuzz.honest_server import TEXT, HonestServer
from tests.fuzz.lying_server import LyingServer

pytestmark = pytest.mark.timeout(120 + 2 * SECONDS)

RUN: dict[str, Any] = {"thread_id": "thread_1", "assistant_id": "asst_1"}
ONE: dict[str, Any] = {"thread_id": "thread_1"}
LIMITS: dict[str, Any] = {"timeout": 3, "request_timeout": 0.5}


NO_ID = re.compile("cannot be an id|must not be empty|characters; at most")


def weather(city: str = "Bern") -> str:
    """Return the weather."""
    return f"sunny in {city}"


async def streamed(client: AsyncClient, **more: Any) -> RunResult:
    """Read the pieces of a stream, and return its result; the pieces add up to its text."""
    async with client.runs.stream(**RUN, **LIMITS, **more) as stream:
        async for _ in stream.text_deltas():
            pass
        return await stream.result()


async def snapshots(client: AsyncClient) -> RunResult:
    """Read the texts of a stream with tools."""
    async with client.runs.stream(**RUN, **LIMITS, tools=[weather]) as stream:
        async for _ in stream.text_snapshots(every=0.01):
            pass
        return await stream.result()


async def threaded(client: AsyncClient) -> RunResult:
    """Read the events of a run on a thread of its own."""
    calls = client.threads.create_and_run_stream(assistant_id="asst_1", **LIMITS, tools=[weather])
    async with calls as stream:
        await stream.until_done()
        return await stream.result()


async def followed(client: AsyncClient) -> RunResult:
    """Follow a run that was created before."""
    run = await client.runs.create(**RUN, **LIMITS)
    async with client.runs.follow(run.id, thread_id=run.thread_id, **LIMITS) as stream:
        await stream.until_done()
        return await stream.result()


async def polled(client: AsyncClient) -> RunResult:
    """Create, wait and gather."""
    run = await client.runs.create_and_poll(**RUN, **LIMITS)
    return await client.runs.result(run, **LIMITS)


async def submitted(client: AsyncClient) -> Run:
    """Answer the calls by hand."""
    run = await client.threads.create_and_run_poll(assistant_id="asst_1", **LIMITS)
    outputs = [{"tool_call_id": call.id, "output": "1"} for call in run.tool_calls]
    if not outputs:
        return run
    submit = client.runs.submit_tool_outputs_and_poll
    return await submit(run.id, thread_id="thread_1", tool_outputs=outputs, **LIMITS)


async def listed(client: AsyncClient) -> None:
    """Read every list."""
    async for _ in client.assistants.list(limit=2, **LIMITS):
        pass
    async for _ in client.runs.list("thread_1", **LIMITS):
        pass
    async for _ in client.messages.list("thread_1", **LIMITS):
        pass
    async for _ in client.runs.steps.list("run_1", thread_id="thread_1", **LIMITS):
        pass


async def managed(client: AsyncClient) -> None:
    """Make, read, change and delete."""
    await client.assistants.create(model="m", **LIMITS)
    await client.assistants.retrieve("asst_1", **LIMITS)
    await client.assistants.update("asst_1", name="n", **LIMITS)
    await client.threads.create(**LIMITS)
    await client.threads.update("thread_1", metadata={}, **LIMITS)
    await client.messages.create("thread_1", role="user", content="x", **LIMITS)
    await client.messages.retrieve("msg_1", thread_id="thread_1", **LIMITS)
    await client.runs.steps.retrieve("step_1", thread_id="thread_1", run_id="run_1", **LIMITS)
    await client.threads.delete("thread_1", **LIMITS)
    await client.assistants.delete("asst_1", **LIMITS)


FLOWS: dict[str, Callable[[AsyncClient], Awaitable[Any]]] = {
    "stream": streamed,
    "stream with tools": lambda client: streamed(client, tools=[weather]),
    "snapshots": snapshots,
    "create_and_run_stream": threaded,
    "follow": followed,
    "poll": polled,
    "submit": submitted,
    "run_tools": lambda client: client.runs.run_tools(**RUN, **LIMITS, tools=[weather]),
    "resume": lambda client: client.runs.resume("run_1", **ONE, **LIMITS, tools=[weather]),
    "wait_all": lambda client: client.runs.wait_all([("run_1", "thread_1")], **LIMITS),
    "cancel_and_wait": lambda client: client.runs.cancel_and_wait("run_1", **ONE, **LIMITS),
    "cancel": lambda client: client.runs.cancel("run_1", **ONE, **LIMITS),
    "update": lambda client: client.runs.update("run_1", **ONE, metadata={}, **LIMITS),
    "lists": listed,
    "objects": managed,
}


async def attempt(seed: int) -> str:
    """Let one server lie to one call; nothing but an error of ours, or the whole truth."""
    chance = Random(seed)
    name = chance.choice(list(FLOWS))
    honest = HonestServer(
        has_tools="tools" in name or chance.random() < 0.4, polls=chance.randint(0, 2)
    )
    lies, share = ({chance.randrange(4)}, 0.0) if chance.random() < 0.7 else (set[int](), 0.4)
    async with (
        LyingServer(chance, honest, lies, share) as server,
        AsyncClient(
            server.url,
            CANARY_KEY,
            retry=RetryPolicy(initial=0, maximum=0),
            poll=PollPolicy(initial=0, maximum=0.01, long_poll=0, max_outage=1),
        ) as client,
    ):
        try:
            result = await FLOWS[name](client)
            is_sure = not any(one.may_change_text for one in server.sent)
            if isinstance(result, RunResult) and result.run.status == "completed" and is_sure:
                assert result.text == TEXT, f"completed with the text {result.text[:200]!r}"
        except OpenAIRunsError as error:
            return type(error).__name__
        except ValueError as problem:
            if not NO_ID.search(str(problem)):
                problem.add_note(f"{name}: {[one.what for one in server.sent]} {server.asked}")
                raise
            return "no id"
        except Exception as problem:
            problem.add_note(f"{name}: {[one.what for one in server.sent]} {server.asked}")
            raise
    return "answered"


async def test_lies_are_errors_of_ours_or_make_no_difference() -> None:
    """No foreign exception, no hang, no half text of a completed run, nothing left behind."""
    loop, uncaught = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _, context: uncaught.append(str(context)))

    await hammer("sdk", attempt, count=400, at_once=16)

    assert uncaught == []
