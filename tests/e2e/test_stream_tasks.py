"""Streams, the tasks that read and close them, and the time they are given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Literal

import anyio
import pytest

from openai_runs import APITimeoutError, AsyncClient, RunStream, RunWaitTimeout
from openai_runs.server import LocalServer, ScriptedBackend
from openai_runs.testing import Cut, Delay, Fault, FaultProxy, Stall
from openai_runs.types.events import Event, MessageDeltaEvent
from tests.canaries import CANARY_KEY
from tests.client.broadcaster import HEAD, Broadcaster
from tests.e2e.streamed_run import ON, text_of, turn_of
from tests.support import Action, HostileServer, Raw, Received

COUNT = 40
PATIENCE = 0.3
"""Seconds that a whole stream is given which would take longer."""


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    """Yield a way to a server whose model takes its time."""
    backend = ScriptedBackend(partial(turn_of, pause=0.005))
    async with LocalServer(None, backend) as server, FaultProxy(server.url) as one:
        yield one


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[AsyncClient]:
    """Yield a client."""
    async with AsyncClient(proxy.url, api_key=CANARY_KEY) as one:
        yield one


class Tool:
    """A tool that can be held up."""

    def __init__(self) -> None:
        """Answer at once."""
        self.asked = anyio.Event()
        self.released = anyio.Event()
        self.released.set()
        self.calls = 0

    async def look_up(self, city: str) -> str:
        """Look a city up."""
        self.calls += 1
        self.asked.set()
        await self.released.wait()
        return f"{city} is fine."


async def begin(client: AsyncClient, tool: Tool, *, count: int = COUNT, **given: Any) -> RunStream:
    """Return the stream of a run, not opened."""
    assistant = await client.assistants.create(model="m")
    thread = await client.threads.create()
    question = {"role": "user", "content": str(count)}
    given = {"tools": [tool.look_up], "additional_messages": [question], **given}
    return client.runs.stream(thread.id, assistant_id=assistant.id, **given)


# --- tasks


async def test_other_tasks_have_their_turn_when_very_many_events_come_at_once() -> None:
    """Counted, not timed: a turn for each few hundred events."""
    count, turns = 20_000, 0
    broadcaster = Broadcaster(["x"] * count)
    body = HEAD + b"\r\n" + broadcaster.stream

    def answer(request: Received) -> Action:
        return Raw(body) if request.method == "POST" else broadcaster(request)

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with (
        HostileServer(answer) as server,
        AsyncClient(server.url, api_key=CANARY_KEY) as client,
    ):
        async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
            other = asyncio.create_task(take_turns())
            events = [event async for event in stream]
        other.cancel()

    assert len(events) == count + 10
    assert turns > count / 300


async def test_stream_goes_on_when_a_second_task_has_tried_to_read_it(client: AsyncClient) -> None:
    """The second is told so at once, also while tools run, and every event comes once."""
    tool, events, refused = Tool(), list[Event](), 0
    async with await begin(client, tool) as stream:
        both: Sequence[Event | BaseException] = []
        while not any(isinstance(outcome, StopAsyncIteration) for outcome in both):
            both = await asyncio.gather(anext(stream), anext(stream), return_exceptions=True)
            for outcome in both:
                if isinstance(outcome, StopAsyncIteration):
                    pass
                elif isinstance(outcome, BaseException):
                    assert "another task is reading" in str(outcome)
                    refused += 1
                else:
                    events.append(outcome)
        result = await stream.result()

    told = "".join(e.data.text for e in events if isinstance(e, MessageDeltaEvent))
    assert told == result.text == text_of(COUNT)
    assert refused > 0
    assert tool.calls == 1
    assert len({event.id for event in events}) == len(events)


@pytest.mark.parametrize("on_cancel", ["leave", "cancel"])
async def test_reading_ends_when_another_task_closes_the_stream(
    client: AsyncClient, on_cancel: Literal["leave", "cancel"]
) -> None:
    """In the middle of the text; the result can be had all the same."""
    stream = await begin(client, Tool(), on_cancel=on_cancel)
    async with stream:
        begun = anyio.Event()

        async def read() -> None:
            async for event in stream:
                if isinstance(event, MessageDeltaEvent):
                    begun.set()

        reading = asyncio.create_task(read())
        await begun.wait()

        await stream.aclose()
        with anyio.fail_after(20):
            await reading

    result = await stream.result()
    assert result.run.status == {"leave": "completed", "cancel": "cancelled"}[on_cancel]


async def test_run_is_cancelled_when_another_task_closes_the_stream_under_its_tools(
    client: AsyncClient,
) -> None:
    """Nobody reads the connection at that moment, and yet the run is not at its end."""
    tool = Tool()
    tool.released = anyio.Event()
    stream = await begin(client, tool, on_cancel="cancel")
    async with stream:
        reading = asyncio.create_task(stream.until_done())
        await tool.asked.wait()

        await stream.aclose()
        tool.released.set()
        with anyio.fail_after(20):
            await reading

    assert (await stream.result()).run.status == "cancelled"


# --- time


@pytest.mark.parametrize("on_timeout", ["leave", "cancel"])
@pytest.mark.parametrize(
    ("fault", "on"),
    [
        pytest.param(Delay(60), ON["create"], id="create hangs"),
        pytest.param(Stall(0), ON["create"], id="create stalls"),
        pytest.param(Delay(60), ON["submit"], id="submit hangs"),
        pytest.param(Stall(0), ON["submit"], id="submit stalls"),
        pytest.param(Cut(4000), ON["submit"], id="recovery stalls"),
        pytest.param(Stall(4000), ON["submit"], id="text stalls"),
        pytest.param(None, "", id="text takes long"),
        pytest.param(None, "tool", id="tool takes long"),
    ],
)
async def test_timeout_holds_in_each_phase_of_a_stream(
    client: AsyncClient,
    proxy: FaultProxy,
    fault: Fault | None,
    on: str,
    on_timeout: Literal["leave", "cancel"],
) -> None:
    """The call ends about when it should, and the run is cancelled if that was asked for."""
    tool = Tool()
    if on == "tool":
        tool.released = anyio.Event()
    if fault is not None:
        proxy.plan(fault, on=on)
    if isinstance(fault, Cut):
        proxy.plan(Stall(0), on="/stream HTTP")
        proxy.plan(Stall(0), on="GET ")
    stream = await begin(client, tool, count=4000, timeout=PATIENCE, on_timeout=on_timeout)

    with anyio.fail_after(15), pytest.raises((RunWaitTimeout, APITimeoutError)):
        async with stream:
            await stream.until_done()

    thread_id = proxy.seen("POST", "/threads/*/runs")[0].path.split("/")[2]
    (run,) = [run async for run in client.runs.list(thread_id)]
    assert run.status in {"cancelling", "cancelled"} or on_timeout == "leave"
