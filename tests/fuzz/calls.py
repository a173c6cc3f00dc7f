"""What callers do with the client, through its public names, each with a deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from openai_runs import AsyncClient, OpenAIRunsError, Run, RunResult

__all__ = ["CALLS"]

RUN: dict[str, Any] = {"thread_id": "thread_1", "assistant_id": "asst_1"}
ONE: dict[str, Any] = {"thread_id": "thread_1"}
LIMITS: dict[str, Any] = {"timeout": 4, "request_timeout": 1}


def weather(city: str = "Bern") -> str:
    """Return the weather."""
    return f"sunny in {city}"


async def streamed(client: AsyncClient, **more: Any) -> tuple[RunResult, str]:
    """Return the result of a stream, and its pieces together."""
    async with client.runs.stream(**RUN, **LIMITS, **more) as stream:
        pieces = [piece async for piece in stream.text_deltas()]
        return await stream.result(), "".join(pieces)


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


async def mapped(client: AsyncClient) -> None:
    """Start three runs at once."""
    items: list[tuple[int, Any]] = [(number, RUN) for number in range(3)]
    async with client.runs.map(items, concurrency=2, tools=[weather], **LIMITS) as outcomes:
        async for _, outcome in outcomes:
            assert isinstance(outcome, RunResult | OpenAIRunsError), repr(outcome)


async def completed(client: AsyncClient) -> None:
    """Wait for two runs at once."""
    runs = [("run_1", "thread_1"), ("run_1", "thread_1")]
    async with client.runs.as_completed(runs, **LIMITS) as ended:
        async for outcome in ended:
            assert isinstance(outcome, Run | OpenAIRunsError), repr(outcome)


CALLS: dict[str, Callable[[AsyncClient], Awaitable[Any]]] = {
    "stream": streamed,
    "stream with tools": lambda client: streamed(client, tools=[weather]),
    "snapshots": snapshots,
    "create_and_run_stream": threaded,
    "follow": followed,
    "poll": polled,
    "submit": submitted,
    "run_tools": lambda client: client.runs.run_tools(**RUN, **LIMITS, tools=[weather]),
    "ask": lambda client: client.runs.ask("Hello", **RUN, **LIMITS, tools=[weather]),
    "resume": lambda client: client.runs.resume("run_1", **ONE, **LIMITS, tools=[weather]),
    "wait_all": lambda client: client.runs.wait_all([("run_1", "thread_1")], **LIMITS),
    "cancel_and_wait": lambda client: client.runs.cancel_and_wait("run_1", **ONE, **LIMITS),
    "cancel": lambda client: client.runs.cancel("run_1", **ONE, **LIMITS),
    "update": lambda client: client.runs.update("run_1", **ONE, metadata={}, **LIMITS),
    "recover": lambda client: client.runs.recover("thread_1", idempotency_key="k", timeout=3),
    "map": mapped,
    "as_completed": completed,
    "lists": listed,
    "objects": managed,
}
