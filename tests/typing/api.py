"""What a user's type checker sees. Checked by mypy in `poe types`, never run.

An `assert_type` that does not hold is an error; so is a `type: ignore` that is not needed,
which is how the mistakes at the end are shown to be caught.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, assert_type

import msgspec
import pydantic

from openai_runs import (
    AsyncClient,
    LocalTool,
    LocalToolCall,
    OpenAIRunsError,
    PollPolicy,
    Run,
    RunMap,
    RunResult,
    RunStatus,
    RunStep,
    RunStepStatus,
    RunStream,
    ToolContext,
    await_run,
    tool,
)
from openai_runs.batch import BatchResult, read_results
from openai_runs.conversations import Conversations, SQLiteStore, Store
from openai_runs.text import split_message
from openai_runs.types import (
    Assistant,
    Deleted,
    Event,
    FunctionToolCall,
    HTTPInfo,
    Message,
    MessageDeltaEvent,
    Page,
    RequiredToolCall,
    Thread,
    UnknownTool,
    Usage,
)


class Mine(msgspec.Struct):
    """A caller's own answer type."""

    id: str


async def main_calls(client: AsyncClient) -> None:
    """Each call of the quick start has the type of what comes back."""
    assistant = await client.assistants.create(model="m", instructions="i", temperature=None)
    assert_type(assistant, Assistant)
    assert_type(await client.assistants.update(assistant.id, name="n"), Assistant)
    assert_type(await client.assistants.delete(assistant.id), Deleted)
    thread = await client.threads.create(metadata={"a": "b"})
    assert_type(thread, Thread)
    assert_type(await client.threads.create_and_run(assistant_id=assistant.id), Run)
    message = await client.messages.create(thread.id, role="user", content="Hi")
    assert_type(message, Message)
    assert_type(message.text, str)


async def runs(client: AsyncClient) -> None:
    """A run from its create to its result."""
    run = await client.runs.create(
        "thread_1",
        assistant_id="asst_1",
        additional_messages=[{"role": "user", "content": "Hi"}],
        tools=[{"type": "bing_grounding"}],
        on_active_run="wait",
        timeout=60,
    )
    assert_type(run, Run)
    assert_type(run.http, HTTPInfo | None)
    assert_type(run.usage, Usage | None)
    assert_type(run.tool_calls, list[RequiredToolCall])
    assert_type(await await_run(client, run, timeout=60, poll=PollPolicy(maximum=1)), Run)
    assert_type(await await_run(client, run.id, thread_id=run.thread_id), Run)
    assert_type(await client.runs.create_and_poll("thread_1", assistant_id="asst_1"), Run)
    outputs = [{"tool_call_id": call.id, "output": "4"} for call in run.tool_calls]
    submitted = await client.runs.submit_tool_outputs(
        run.id, thread_id=run.thread_id, tool_outputs=outputs
    )
    assert_type(submitted, Run)
    assert_type(run.raise_for_status(), Run)
    result = await client.runs.result(run)
    assert_type(result, RunResult)
    assert_type(result.text, str)
    assert_type(await client.runs.recover("thread_1", idempotency_key="k"), Run | None)


@tool(strict=True)
def weather(city: str) -> str:
    """Tell the weather."""
    return city


async def streams(client: AsyncClient) -> None:
    """A stream is entered and iterated; `stream=True` opens one, anything else is a run."""
    stream = client.runs.stream("t", assistant_id="a", tools=[weather, {"type": "file_search"}])
    assert_type(stream, RunStream)
    async with stream:
        async for event in stream:
            assert_type(event, Event)
            if isinstance(event, MessageDeltaEvent):
                assert_type(event.data.text, str)
        assert_type(await stream.result(), RunResult)
    async for piece in client.threads.create_and_run_stream(assistant_id="a").text_deltas():
        assert_type(piece, str)
    assert_type(await client.runs.create("t", assistant_id="a", stream=True), RunStream)
    assert_type(await client.runs.create("t", assistant_id="a", stream=False), Run)
    answered = await client.runs.submit_tool_outputs(
        "r", thread_id="t", tool_outputs=[], stream=True
    )
    assert_type(answered, RunStream)
    assert_type(client.runs.follow("r", thread_id="t", last_event_id="1-2"), RunStream)
    assert_type(weather("Oslo"), str)
    assert_type(await client.runs.run_tools("t", assistant_id="a", tools=[weather]), RunResult)


@tool
def bare(city: str, context: ToolContext) -> int:
    """Keep its signature."""
    return len(city)


@tool(name="named", timeout=None)
async def named(city: str) -> int:
    """Keep its signature."""
    return len(city)


class Desk:
    """Somebody with a tool."""

    @tool
    def ask(self, city: str) -> int:
        """Be bound to its instance."""
        return len(city)


async def tools(client: AsyncClient) -> None:
    """A tool stays the function it was, and every call that takes tools takes functions."""
    assert_type(await named("Oslo"), int)
    assert_type(bare.definition, dict[str, Any])
    assert_type(Desk().ask, LocalTool[..., int])

    def approve(call: LocalToolCall) -> bool | str:
        return call.name != "pay" or f"{call.arguments} is too much"

    await client.assistants.create(model="m", tools=[bare, len], response_format=Mine)
    await client.runs.create("thread_1", assistant_id="asst_1", tools=[bare, named])
    result = await client.runs.run_tools(
        "thread_1",
        assistant_id="asst_1",
        tools=[bare, named, Desk().ask, {"type": "file_search"}, len],
        approve=approve,
        max_parallel=3,
        response_format=Mine,
        timeout=60,
    )
    assert_type(result, RunResult[Mine])
    mine: Mine = result.parsed
    assert_type(mine, Mine)
    assert_type(result.parsed, Mine)
    resumed = await client.runs.resume("run_1", thread_id="thread_1", tools=[bare])
    assert_type(resumed, RunResult)
    assert_type(await client.runs.result(resumed.run, response_format=Mine), RunResult[Mine])
    assert_type(await client.runs.result(resumed.run), RunResult)


class Place(pydantic.BaseModel):
    """A caller's own model."""

    city: str


async def models(client: AsyncClient) -> None:
    """What is parsed has the type that was asked for, in each call that takes one."""
    result = await client.runs.ask("Where?", assistant_id="a", response_format=Place, timeout=9)
    assert_type(result.parsed, Place)
    again = await client.runs.ask("Where?", assistant_id="a", thread_id=result.run.thread_id)
    assert_type(again, RunResult)
    assert_type(again.parsed, Any)
    text = await client.runs.ask("?", assistant_id="a", response_format={"type": "text"})
    assert_type(text.parsed, Any)
    resumed = await client.runs.resume("r", thread_id="t", tools=[], response_format=Place)
    assert_type(resumed.parsed, Place)
    async with client.runs.stream("t", assistant_id="a", response_format=Place) as stream:
        assert_type(stream, RunStream[Place])
        assert_type((await stream.result()).parsed, Place)
    created = client.threads.create_and_run_stream(assistant_id="a", response_format=Place)
    assert_type((await created.result()).parsed, Place)
    await client.threads.create(messages=[Place(city="Oslo")], metadata=Place(city="Oslo"))
    await client.assistants.create(model="m", response_format=Place)


async def batches(client: AsyncClient) -> None:
    """A batch keeps the type of its keys, and an outcome is a result or an error."""
    items = ((number, {"thread_id": "thread_1"}) for number in range(3))
    results = client.runs.map(items, concurrency=2, tools=[bare], assistant_id="a", timeout=60)
    assert_type(results, RunMap[int])
    async with results:
        async for key, outcome in results:
            assert_type(key, int)
            assert_type(outcome, RunResult | OpenAIRunsError)

    async def later() -> AsyncIterator[tuple[str, dict[str, str]]]:
        yield "a", {"thread_id": "thread_1"}

    assert_type(client.runs.map(later(), concurrency=2, model="m"), RunMap[str])
    for result in read_results("out.jsonl", errors=Path("errors.jsonl"), response_format=Place):
        assert_type(result, BatchResult[Place])
        assert_type(result.parsed, Place)
    assert_type(read_results("out.jsonl"), Iterator[BatchResult[Any]])


async def lists(client: AsyncClient) -> None:
    """A list call gives a page when awaited and items when iterated."""
    page = await client.runs.list("thread_1", limit=2)
    assert_type(page, Page[Run])
    assert_type(await page.next_page(), Page[Run] | None)
    assert_type(page.data, list[Run])
    async for run in client.runs.list("thread_1", order="asc", max_items=5):
        assert_type(run, Run)
    async for step in client.runs.steps.list("run_1", thread_id="thread_1"):
        assert_type(step, RunStep)
        for call in step.tool_calls:
            if isinstance(call, FunctionToolCall):
                assert_type(call.function.output, str | None)
    async for message in client.messages.list("thread_1", run_id="run_1"):
        assert_type(message, Message)


async def requests(client: AsyncClient) -> None:
    """What has no method is read into the type that is asked for."""
    assert_type(await client.request("GET", "/files"), dict[str, Any])
    assert_type(await client.request("GET", "/files/f", into=Mine), Mine)


def unknown_kinds(assistant: Assistant) -> None:
    """A kind from the future is part of the type, so that it is not forgotten."""
    for one in assistant.tools:
        if isinstance(one, UnknownTool):
            assert_type(one.raw, dict[str, Any])
        assert_type(one.type, str)


async def chats(client: AsyncClient, store: Store) -> None:
    """A reply yields texts, and ends in a result; a store is any object with its methods."""
    async with Conversations(client, assistant_id="asst_1", store=store) as conversations:
        async with conversations.reply(("ada", 7), "Hello", when_busy="join") as reply:
            async for text in reply:
                assert_type(text, str)
        assert_type(await reply.result(), RunResult)
        await chats(client, SQLiteStore("bot.db"))
        conversations.reply(7, "Hello", when_busy="wait")  # type: ignore[arg-type]
        conversations.reply(7.5, "Hello")  # type: ignore[arg-type]
    assert_type(split_message("text", 4096), list[str])


async def mistakes(client: AsyncClient, run: Run, step: RunStep) -> None:
    """Each of these is caught before the program runs."""
    print(run.status == RunStatus.COMPLTED)  # type: ignore[attr-defined]  # noqa: T201
    print(step.status == RunStepStatus.QUEUED)  # type: ignore[attr-defined]  # noqa: T201
    run.status = "failed"  # type: ignore[misc]
    await client.runs.create("thread_1")  # type: ignore[call-overload]
    await client.runs.create("t", assistant_id="a", modle="m")  # type: ignore[call-overload]
    await client.runs.retrieve("run_1", "thread_1")  # type: ignore[call-arg]
    await client.runs.create("t", assistant_id="a", on_active_run="q")  # type: ignore[call-overload]
    bare(3)  # type: ignore[call-arg, arg-type]
    await client.runs.run_tools("thread_1", assistant_id="asst_1")  # type: ignore[call-overload]
    await client.runs.run_tools("t", assistant_id="a", tools=bare)  # type: ignore[call-overload]
    await client.runs.resume("r", thread_id="t", tools=[], max_round=3)  # type: ignore[call-overload]
    client.runs.map([], assistant_id="asst_1")  # type: ignore[call-arg]
    client.runs.map([], concurrency=3, modle="m")  # type: ignore[call-arg]
    client.runs.map([{"thread_id": "t"}], concurrency=3)  # type: ignore[arg-type]
    await await_run(client, run, on_timeout="stop")  # type: ignore[arg-type]
