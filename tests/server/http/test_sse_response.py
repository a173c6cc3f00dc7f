"""Streams: which events come, in which order, and that each is what the description says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import anyio
import pytest

from openai_runs.server import Call, CallTools, Cut, Fail, FinishReason, Hang, Say
from tests.openapi import problems
from tests.server.conftest import Serve
from tests.server.support import (
    FUNCTION,
    Caller,
    Event,
    ManualClock,
    Streamed,
    read_events,
    run_path,
    told_text,
)

BEGIN = ["run.created", "run.queued", "run.in_progress"]
STEP = ["run.step.created", "run.step.in_progress"]
MESSAGE = [*STEP, "message.created", "message.in_progress"]
TEXT = [*MESSAGE, "message.delta", "message.completed", "run.step.completed"]
CALLS = [*STEP, "run.step.delta"]


def assert_valid(events: Iterable[Event]) -> None:
    """Fail the test unless each event is one of the description's, unamended."""
    for event in events:
        wire = {"event": event.name, "data": event.data}
        assert problems("AssistantStreamEvent", wire, published=True) == [], event.name


def outputs_of(run: Any, output: str = "sunny") -> dict[str, Any]:
    """Return the body that answers all calls the run waits for."""
    calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    return {"tool_outputs": [{"tool_call_id": call["id"], "output": output} for call in calls]}


async def test_text_is_streamed_in_the_order_of_the_description(serve: Serve) -> None:
    """From created to completed, each delta by itself, ids rising by one, and `done`."""
    caller = await serve(Say(["Hel", "lo ", "you."]))

    streamed = await caller.start_stream()

    events = streamed.events
    assert streamed.status == 200
    assert streamed.names == [*BEGIN, *TEXT, "run.completed"]
    assert streamed.done
    assert [event.id.partition("-")[2] for event in events] == [
        str(number) for number in range(1, len(events) + 1)
    ]
    assert [e.name for e in events].count("thread.message.delta") == 3
    assert told_text(events) == "Hello you."
    assert_valid(events)


async def test_stored_objects_are_those_of_the_events(serve: Serve) -> None:
    """What the last events say is what a GET says."""
    caller = await serve(Say(["Hel", "lo."]))

    events = (await caller.start_stream()).events

    last = {event.name: event.data for event in events}
    run = last["thread.run.completed"]
    assert run == await caller.get(run_path(run))
    assert [last["thread.run.step.completed"]] == await caller.steps(run)
    assert last["thread.message.completed"] == (await caller.messages(run))[-1]


async def test_headers_are_those_of_all_answers_and_of_a_stream(serve: Serve) -> None:
    """No proxy may hold it back; the request id and the features are there from the start."""
    caller = await serve("Hi.")

    headers = (await caller.start_stream()).headers

    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-request-id"].startswith("req_")
    assert headers["openai-runs-features"] == "idempotency, prefer-wait, resume"
    assert "openai-processing-ms" in headers


async def test_new_thread_is_told_first_when_it_comes_with_the_run(serve: Serve) -> None:
    """Only create-thread-and-run begins with `thread.created`."""
    caller = await serve("Hi.")
    thread = {"messages": [{"role": "user", "content": "Hello"}], "metadata": {"a": "b"}}
    body = {"assistant_id": await caller.assistant(), "thread": thread}

    streamed = await caller.stream("/threads/runs", body)

    events = streamed.events
    assert [event.name for event in events][:2] == ["thread.created", "thread.run.created"]
    assert streamed.names[1:] == [*BEGIN, *TEXT, "run.completed"]
    assert events[0].data == await caller.get(f"/threads/{events[0].data['id']}")
    assert_valid(events)


async def test_tool_calls_are_streamed_in_pieces_and_end_the_leg(serve: Serve) -> None:
    """The first piece of a call has its id and name, the others more arguments only."""
    calls = [Call("weather", {"city": "Oslo"}), Call("weather", {"city": "Rome"}, id="call_r")]
    caller = await serve(CallTools(calls, chunk=6))

    streamed = await caller.start_stream()

    events = streamed.events
    assert streamed.names == [*BEGIN, *CALLS, "run.requires_action"]
    assert streamed.done
    begun = next(event.data for event in events if event.name == "thread.run.step.created")
    assert begun["step_details"] == {"type": "tool_calls", "tool_calls": []}
    deltas = [e.data["delta"]["step_details"]["tool_calls"][0] for e in events if "delta" in e.name]
    firsts = [delta for delta in deltas if "id" in delta]
    assert [delta["index"] for delta in deltas] == sorted(delta["index"] for delta in deltas)
    assert [delta["function"]["name"] for delta in firsts] == ["weather", "weather"]
    assert all(set(d["function"]) == {"arguments"} for d in deltas if d not in firsts)
    wanted = events[-1].data["required_action"]["submit_tool_outputs"]["tool_calls"]
    for index, call in enumerate(wanted):
        mine = [delta for delta in deltas if delta["index"] == index]
        told = "".join(delta["function"]["arguments"] for delta in mine)
        assert (mine[0]["id"], told) == (call["id"], call["function"]["arguments"])
    assert wanted[1]["id"] == "call_r"
    assert_valid(events)


async def test_text_before_tool_calls_is_complete_when_the_run_waits(serve: Serve) -> None:
    """Its message and step end before the leg does; the step of the calls goes on."""
    caller = await serve(CallTools([Call("weather")], text=["Let me ", "see."]))

    streamed = await caller.start_stream()

    ended = ["message.completed", "run.step.completed", "run.requires_action"]
    assert streamed.names == [*BEGIN, *MESSAGE, "message.delta", *CALLS, *ended]
    assert_valid(streamed.events)


async def test_submitted_outputs_begin_a_new_leg_of_the_same_run(serve: Serve) -> None:
    """The step of the calls ends with their outputs, then the run goes on."""
    caller = await serve(CallTools([Call("weather")]), Say(["Sun", "ny."]))
    first = (await caller.start_stream()).events
    waiting = first[-1].data
    path = f"{run_path(waiting)}/submit_tool_outputs"

    streamed = await caller.stream(path, outputs_of(waiting))

    events = streamed.events
    again = ["run.step.completed", "run.queued", "run.in_progress"]
    assert streamed.names == [*again, *TEXT, "run.completed"]
    assert streamed.done
    (call,) = events[0].data["step_details"]["tool_calls"]
    assert call["function"]["output"] == "sunny"
    numbers = [int(event.id.partition("-")[2]) for event in (*first, *events)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert_valid(events)


ENDINGS: dict[str, tuple[Any, list[str], str]] = {
    "failed": (
        Fail(text="Half a"),
        [*MESSAGE, "message.delta", "message.incomplete", "run.step.failed"],
        "failed",
    ),
    "failed at once": (Fail(), [], "failed"),
    "incomplete": (
        Cut(["Half ", "a"]),
        [*MESSAGE, "message.delta", "message.incomplete", "run.step.completed"],
        "incomplete",
    ),
    "filtered": (
        Cut("Half a", reason=FinishReason.CONTENT_FILTER),
        [*MESSAGE, "message.delta", "message.incomplete", "run.step.failed"],
        "failed",
    ),
    "silent": (Say(""), [*MESSAGE, "message.completed", "run.step.completed"], "completed"),
}


@pytest.mark.parametrize("how", ENDINGS)
async def test_end_of_a_run_is_the_last_event(serve: Serve, how: str) -> None:
    """What it had begun ends first, and nothing comes after."""
    turn, between, status = ENDINGS[how]
    caller = await serve(turn)

    streamed = await caller.start_stream()

    assert streamed.names == [*BEGIN, *between, f"run.{status}"]
    assert streamed.done
    assert_valid(streamed.events)


async def start_and_read(caller: Caller, until: str, text: str = "Hello") -> tuple[Any, Any]:
    """Return an open stream of a new run, and its events up to the one that holds `until`."""
    path = f"/threads/{await caller.thread(text)}/runs"
    body = {"assistant_id": await caller.assistant(tools=[FUNCTION]), "stream": True}
    response = await caller.session.post(caller.url + path, json=body)
    return response, await read_until(response, until)


async def read_until(response: Any, until: str) -> list[Event]:
    """Return the events of an open stream up to the one that holds `until`."""
    text = b""
    with anyio.fail_after(20):
        while until.encode() not in text or not text.endswith(b"\n\n"):
            text += await response.content.readany()
    return read_events(text)


async def rest_of(response: Any) -> Streamed:
    """Return what else a stream sends."""
    with anyio.fail_after(20):
        return Streamed(response.status, response.headers, await response.read())


async def test_cancelled_run_ends_its_stream(serve: Serve) -> None:
    """Cancelling, then the message and its step, then cancelled; the text so far is kept."""
    caller = await serve(Hang(["Half ", "a"]))
    response, before = await start_and_read(caller, '"a"')
    run = before[0].data

    await caller.post(f"{run_path(run)}/cancel")
    after = await rest_of(response)

    ended = ["message.incomplete", "run.step.cancelled", "run.cancelled"]
    assert after.names == ["run.cancelling", *ended]
    assert after.done
    message = after.events[1].data
    assert message["content"][0]["text"]["value"] == told_text(before) == "Half a"
    assert_valid([*before, *after.events])


async def test_waiting_run_that_is_cancelled_cancels_its_step(serve: Serve) -> None:
    """A reader that comes later sees all of it."""
    caller = await serve(CallTools([Call("weather")]))
    waiting = (await caller.start_stream()).events[-1].data

    await caller.post(f"{run_path(waiting)}/cancel")
    await caller.reaches(waiting, "cancelled")
    streamed = await caller.replay(waiting)

    ended = ["run.requires_action", "run.cancelling", "run.step.cancelled", "run.cancelled"]
    assert streamed.names == [*BEGIN, *CALLS, *ended]
    assert_valid(streamed.events)


async def test_expired_run_ends_its_stream(serve: Serve) -> None:
    """The message is incomplete, the step expired."""
    clock = ManualClock()
    caller = await serve(Hang("Half a"), clock=clock)
    response, before = await start_and_read(caller, "Half a")

    clock.advance(601)
    after = await rest_of(response)

    assert after.names == ["message.incomplete", "run.step.expired", "run.expired"]
    assert after.done
    assert_valid([*before, *after.events])


async def test_calls_cut_off_by_a_limit_are_cancelled(serve: Serve) -> None:
    """Nobody waits for their outputs; what had come of them stays readable."""
    from collections.abc import AsyncIterator

    from openai_runs.server import Finish, ModelEvent, ModelRequest, ToolCallDelta

    class CutOff:
        """Meets its limit in the middle of a call."""

        async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
            """Begin a call."""
            yield ToolCallDelta(name="weather", arguments='{"ci')
            yield Finish(reason=FinishReason.LENGTH)

    caller = await serve(backend=CutOff())

    streamed = await caller.start_stream()

    assert streamed.names == [*BEGIN, *CALLS, "run.step.cancelled", "run.incomplete"]
    (call,) = streamed.events[-2].data["step_details"]["tool_calls"]
    assert call["function"]["arguments"] == '{"ci'
    assert_valid(streamed.events)


async def test_stream_false_answers_json_and_the_events_are_there_all_the_same(
    serve: Serve,
) -> None:
    """Every run has its log, so that one can be followed that was not streamed."""
    caller = await serve("Hi.")
    run = await caller.settled(await caller.start(stream=False))

    streamed = await caller.replay(run)

    assert streamed.names == [*BEGIN, *TEXT, "run.completed"]
    assert streamed.done


async def test_refusal_of_a_stream_is_json(serve: Serve) -> None:
    """A busy thread, a run that does not wait, a run that is not there."""
    caller = await serve(Hang())
    run = await caller.start()
    path = f"/threads/{run['thread_id']}/runs"
    create = {"assistant_id": run["assistant_id"], "stream": True}
    submit = {"tool_outputs": [], "stream": True}

    replies = [
        await caller.send("POST", path, json=create),
        await caller.send("POST", f"{run_path(run)}/submit_tool_outputs", json=submit),
        await caller.send("GET", f"{path}/run_none/stream"),
        await caller.send("GET", f"/threads/thread_none/runs/{run['id']}/stream"),
    ]

    assert [reply.status for reply in replies] == [400, 400, 404, 404]
    assert "already has an active run" in replies[0].message
    assert "do not accept tool outputs" in replies[1].message
    assert replies[2].message == "No run found with id 'run_none'."
