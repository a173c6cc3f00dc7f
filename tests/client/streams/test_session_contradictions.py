"""A stream whose events contradict their data, or each other: the run is polled."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openai_runs import AsyncClient, PollPolicy, RetryPolicy, RunResult
from openai_runs.types import RunEvent
from openai_runs.types.base import ACTIVE_STATUSES, TERMINAL_STATUSES
from tests.client.broadcaster import DONE, delta, frame, message_json
from tests.client.streams.test_session_tool_rounds import Asking, page, stream_of, waiting
from tests.samples import raw
from tests.support import Action, Answer, HostileServer, Received, run_json

AT_ONCE: dict[str, Any] = {
    "retry": RetryPolicy(initial=0, maximum=0),
    "poll": PollPolicy(initial=0, maximum=0),
}
STATUSES = sorted(ACTIVE_STATUSES | TERMINAL_STATUSES)


class Contradicting(Asking):
    """A run that waits for the output of one call, and then completes; its streams lie about it."""

    def __init__(self, *events: bytes, end: bytes = DONE) -> None:
        """Stream `events` before the outputs have come, and the truth after."""
        super().__init__([waiting("call_1")], _go_on)
        self._events = events
        self._end = end

    def __call__(self, request: Received) -> Action:
        """Carry the request out."""
        if request.method == "POST" and request.path.endswith("/runs"):
            return stream_of(frame("thread.run.created", run_json()), *self._events, self._end)
        return super().__call__(request)


def _go_on(asking: Asking) -> Action:
    asking.go_on()
    return stream_of(
        frame("thread.run.in_progress", run_json("in_progress")),
        frame("thread.message.delta", delta("Done.")),
        frame("thread.message.completed", message_json("Done.", "completed")),
        frame("thread.run.completed", run_json("completed")),
        DONE,
    )


def event_of(name: str, status: str) -> bytes:
    """Return an event whose name says one thing and whose data another."""
    data = waiting("call_1") if status == "requires_action" else run_json(status)
    return frame(f"thread.run.{name}", data)


async def streamed(handler: Asking) -> tuple[RunResult, list[str], list[str]]:
    """Return the result, the names of the run's events, and the cities the tool was asked for."""
    called: list[str] = []
    names: list[str] = []

    def peek(city: str = "") -> str:
        called.append(city)
        return "seen"

    async with (
        HostileServer(handler) as server,
        AsyncClient(base_url=server.url, api_key="k", **AT_ONCE) as client,
        client.runs.stream("thread_1", assistant_id="a", tools=[peek]) as stream,
    ):
        async for event in stream:
            if isinstance(event, RunEvent):
                names.append(event.event.rpartition(".")[2])
                if event.event != "thread.run.created":
                    assert names[-1] == event.data.status
        return await stream.result(), names, called


REAL = {
    "stray completed": [("requires_action", "requires_action"), ("completed", "requires_action")],
    "only the stray": [("completed", "requires_action")],
    "stray failed": [("requires_action", "requires_action"), ("failed", "requires_action")],
    "stray expired": [("requires_action", "requires_action"), ("expired", "requires_action")],
    "lagging data": [("requires_action", "in_progress")],
    "end over lagging data": [("completed", "in_progress")],
    "end in the data alone": [("in_progress", "completed")],
    "completed while it waits": [
        ("requires_action", "requires_action"),
        ("completed", "completed"),
    ],
    "backwards from the end": [("completed", "completed"), ("in_progress", "in_progress")],
}


@pytest.mark.parametrize("end", [DONE, b""], ids=["done", "cut"])
@pytest.mark.parametrize("pairs", REAL.values(), ids=REAL.keys())
async def test_tool_is_called_when_a_stream_contradicts_itself(
    pairs: list[tuple[str, str]], end: bytes
) -> None:
    """The run waits for an output, whatever the stream makes of it; then it completes."""
    handler = Contradicting(*(event_of(name, status) for name, status in pairs), end=end)

    result, names, called = await streamed(handler)

    assert (result.run.status, result.text) == ("completed", "Done.")
    assert handler.outputs == [["call_1"]]
    assert len(called) == 1
    assert names[-1] == "completed"


@given(
    pairs=st.lists(st.tuples(st.sampled_from(STATUSES), st.sampled_from(STATUSES)), max_size=5),
    last=st.tuples(st.sampled_from(STATUSES), st.sampled_from(STATUSES)).filter(
        lambda pair: pair[0] != pair[1]
    ),
    end=st.sampled_from([DONE, b""]),
)
@settings(max_examples=60, deadline=None)
def test_run_is_polled_whenever_its_last_event_contradicts_itself(
    pairs: list[tuple[str, str]], last: tuple[str, str], end: bytes
) -> None:
    """Any names over any data: what the server has stored decides, and the tool is called once."""
    handler = Contradicting(*(event_of(*pair) for pair in [*pairs, last]), end=end)

    result, _, called = anyio.run(streamed, handler)

    assert (result.run.status, result.text) == ("completed", "Done.")
    assert (handler.outputs, len(called)) == ([["call_1"]], 1)


class Plain:
    """A run that has written one message; its stream and what is stored of it may differ."""

    def __init__(self, *events: bytes, stored: dict[str, Any]) -> None:
        """Stream these events and keep `stored`."""
        self._stream = stream_of(frame("thread.run.created", run_json()), *events, DONE)
        self._stored = stored
        self.polls = 0

    def __call__(self, request: Received) -> Action:
        """Carry the request out."""
        match request.method, request.path.rpartition("/")[2]:
            case "POST", "runs":
                return self._stream
            case "GET", "messages":
                return page(self._stored)
            case "GET", "steps":
                return page()
        self.polls += 1
        return Answer(json=run_json("completed"))


COMPLETED = frame("thread.run.completed", run_json("completed"))
HALF = frame("thread.message.completed", message_json("Hel"))
WHOLE = frame("thread.message.completed", message_json("Hello"))
AGREED = frame("thread.message.completed", message_json("Hello", "completed"))
MESSAGES = {
    "half of it": ([frame("thread.message.delta", delta("Hel")), HALF], True),
    "old status alone": ([frame("thread.message.delta", delta("Hello")), WHOLE], True),
    "agreed in the end": ([frame("thread.message.delta", delta("Hello")), WHOLE, AGREED], False),
    "another id": (
        [
            frame("thread.message.delta", delta("Hello")),
            frame("thread.message.completed", message_json("Hello", id="run_1")),
        ],
        True,
    ),
    "incomplete over completed": (
        [frame("thread.message.incomplete", message_json("Hello", "completed"))],
        True,
    ),
}


@pytest.mark.parametrize(("events", "is_polled"), MESSAGES.values(), ids=MESSAGES.keys())
async def test_stored_message_decides_when_its_last_event_contradicts_itself(
    events: list[bytes], is_polled: bool
) -> None:
    """Half a text does not pass for whole; a whole one is emitted once, by one event."""
    handler = Plain(*events, COMPLETED, stored=message_json("Hello", "completed"))

    async with (
        HostileServer(handler) as server,
        AsyncClient(base_url=server.url, api_key="k", **AT_ONCE) as client,
        client.runs.stream("thread_1", assistant_id="a") as stream,
    ):
        pieces = [piece async for piece in stream.text_deltas()]
        result = await stream.result()

    assert "".join(pieces) == result.text == "Hello"
    assert [one.id for one in result.messages] == ["msg_1"]
    assert result.messages[0].status == "completed"
    assert bool(handler.polls) == is_polled


async def test_result_polls_when_a_contradicting_stream_was_left() -> None:
    """Leaving after the stray event does not make its name the truth."""
    handler = Plain(event_of("in_progress", "failed"), stored=message_json("Hello", "completed"))

    async with (
        HostileServer(handler) as server,
        AsyncClient(base_url=server.url, api_key="k", **AT_ONCE) as client,
    ):
        async with client.runs.stream("thread_1", assistant_id="a") as stream:
            async for event in stream:
                if isinstance(event, RunEvent) and event.data.status == "failed":
                    break
        result = await stream.result()

    assert (result.run.status, result.text) == ("completed", "Hello")


async def test_tool_is_called_before_a_server_that_ends_each_stream_with_a_stray_event() -> None:
    """open-assistant-api's own stream, byte for byte."""
    called: list[str] = []

    def get_weather(city: str) -> str:
        called.append(city)
        return "sunny"

    def handler(request: Received) -> Action:
        is_answered = bool(called)
        match request.method, request.path.rpartition("/")[2]:
            case "POST", "runs":
                return stream_of(raw("streams/open_assistant_api_tool_call.sse"))
            case "POST", "submit_tool_outputs":
                return stream_of(raw("streams/open_assistant_api_message.sse"))
            case "GET", "messages":
                stored = [message_json("It is sunny in Bern.", "completed")]
                return page(*(stored if is_answered else []))
            case "GET", "steps":
                return page()
        call = {"name": "get_weather", "arguments": '{"city": "Bern"}'}
        wanted = waiting("call_1")
        wanted["required_action"]["submit_tool_outputs"]["tool_calls"][0]["function"] = call
        return Answer(json=run_json("completed") if is_answered else wanted)

    async with (
        HostileServer(handler) as server,
        AsyncClient(base_url=server.url, api_key="k", **AT_ONCE) as client,
        client.runs.stream("thread_1", assistant_id="a", tools=[get_weather]) as stream,
    ):
        result = await stream.result()

    assert (result.run.status, result.text) == ("completed", "It is sunny in Bern.")
    assert called == ["Bern"]
    assert len([one for one in server.requests if one.path.endswith("/submit_tool_outputs")]) == 1
