"""The tool rounds of a stream: each call answered once, whatever the server makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient, PollPolicy, RetryPolicy
from openai_runs.errors import ToolError
from tests.canaries import CANARY_KEY
from tests.client.broadcaster import DONE, HEAD, frame, message_json
from tests.support import Action, Answer, HostileServer, Raw, Received, run_json

AT_ONCE: dict[str, Any] = {
    "retry": RetryPolicy(initial=0, maximum=0),
    "poll": PollPolicy(initial=0, maximum=0),
}


def waiting(call_id: str, arguments: str = "{}") -> dict[str, Any]:
    """Return a run that waits for the output of one call."""
    call = {
        "id": call_id,
        "type": "function",
        "function": {"name": "peek", "arguments": arguments},
    }
    action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [call]}}
    return run_json("requires_action", required_action=action)


def stream_of(*frames: bytes) -> Action:
    """Return an answer that is a stream of these frames."""
    return Raw(HEAD + b"\r\n" + b"".join(frames))


class Asking:
    """A handler for `HostileServer`: a run that asks for tools, round after round."""

    def __init__(self, rounds: list[dict[str, Any]], submit: Callable[[Asking], Action]) -> None:
        """Ask with each of `rounds` in turn, then complete; `submit` says how that is answered."""
        self.rounds = rounds
        self.state = rounds[0]
        self.submit = submit
        self.outputs: list[list[str]] = []
        """The call ids of each submit."""
        self.polls = 0

    def __call__(self, request: Received) -> Action:
        """Carry the request out."""
        match request.method, request.path.rpartition("/")[2]:
            case "POST", "runs":
                asks = frame("thread.run.requires_action", self.state)
                return stream_of(frame("thread.run.created", run_json()), asks, DONE)
            case "POST", "submit_tool_outputs":
                self.outputs.append([one["tool_call_id"] for one in request.json["tool_outputs"]])
                return self.submit(self)
            case "GET", "messages":
                return page(message_json("Done.", "completed"))
            case "GET", "steps":
                return page()
        self.polls += 1
        return Answer(json=self.state)

    def go_on(self) -> None:
        """Ask for the next round, or complete."""
        self.rounds = self.rounds[1:]
        self.state = self.rounds[0] if self.rounds else run_json("completed")


def page(*items: dict[str, Any]) -> Answer:
    """Return a list with these items."""
    return Answer(json={"object": "list", "data": list(items), "has_more": False})


async def streamed(asking: Asking, **arguments: Any) -> tuple[str, list[int]]:
    """Return the result's text and, for each call of the tool, how many there were before."""
    called: list[int] = []

    def peek() -> str:
        called.append(len(called))
        return "seen"

    async with (
        HostileServer(asking) as server,
        AsyncClient(base_url=server.url, api_key=CANARY_KEY, **AT_ONCE) as client,
        client.runs.stream("thread_1", assistant_id="a", tools=[peek], **arguments) as stream,
    ):
        return (await stream.result()).text, called


def as_json(asking: Asking) -> Action:
    """Accept the outputs, and answer with the run as JSON."""
    asking.go_on()
    return Answer(json=run_json("queued"))


def cut(asking: Asking) -> Action:
    """Accept the outputs, and cut the stream before its first event."""
    asking.go_on()
    return stream_of()


@pytest.mark.parametrize("submit", [as_json, cut])
async def test_second_round_is_seen_when_the_first_was_not_streamed(submit: Any) -> None:
    """The run waits before and after, but for another call: that is a new call."""
    asking = Asking([waiting("call_1"), waiting("call_2")], submit)

    text, called = await streamed(asking)

    assert text == "Done."
    assert asking.outputs == [["call_1"], ["call_2"]]
    assert called == [0, 1]


async def test_same_call_in_a_later_round_is_a_call_of_its_own() -> None:
    """A server that numbers its calls anew gets a new output, as the run has gone on."""

    def again(asking: Asking) -> Action:
        asking.go_on()
        name = f"thread.run.{asking.state['status']}"
        moved = frame("thread.run.in_progress", run_json("in_progress"))
        return stream_of(moved, frame(name, asking.state), DONE)

    asking = Asking([waiting("call_0")] * 3, again)

    _, called = await streamed(asking)

    assert asking.state["status"] == "completed"
    assert called == [0, 1, 2]


async def test_run_that_goes_on_asking_for_what_it_was_sent_is_given_up() -> None:
    """The tool is called once, the outputs are sent a few times, and then it is an error."""
    asking = Asking([waiting("call_1")], lambda asking: Answer(json=run_json("queued")))

    with pytest.raises(
        ToolError, match="still requests outputs that were submitted 3 times"
    ) as caught:
        await streamed(asking)

    assert caught.value.run_id == "run_1"
    assert len(asking.outputs) == 3


async def test_result_polls_when_a_run_was_given_up_and_cancelled() -> None:
    """What the last event said of the run is no longer true: the result is of the cancelled run."""

    def accepted(asking: Asking) -> Action:
        return Answer(json=run_json("queued"))

    class Cancelling(Asking):
        def __call__(self, request: Received) -> Action:
            if request.path.endswith("/cancel"):
                self.state = run_json("cancelled")
            return super().__call__(request)

    async with (
        HostileServer(Cancelling([waiting("call_1")], accepted)) as server,
        AsyncClient(base_url=server.url, api_key=CANARY_KEY, **AT_ONCE) as client,
    ):
        stream = client.runs.stream("thread_1", assistant_id="a", tools=[peek], on_timeout="cancel")
        with pytest.raises(ToolError):
            await stream.until_done()
        result = await stream.result()

    assert result.run.status == "cancelled"


def peek() -> str:
    """Return what is there."""
    return "seen"


@pytest.mark.parametrize("on_cancel", ["leave", "cancel"])
async def test_outputs_are_not_submitted_when_the_stream_was_closed_meanwhile(
    on_cancel: Any,
) -> None:
    """Another task closes the stream while tools run: the run is left waiting, or cancelled."""
    asking = Asking([waiting("call_1")], as_json)
    is_called, may_return = anyio.Event(), anyio.Event()

    async def slow() -> str:
        is_called.set()
        await may_return.wait()
        return "seen"

    slow.__name__ = "peek"
    async with (
        HostileServer(asking) as server,
        AsyncClient(base_url=server.url, api_key=CANARY_KEY, **AT_ONCE) as client,
    ):
        stream = client.runs.stream("thread_1", assistant_id="a", tools=[slow], on_cancel=on_cancel)
        async with anyio.create_task_group() as group:
            group.start_soon(stream.until_done)
            await is_called.wait()
            await stream.aclose()
            may_return.set()

        assert asking.outputs == []
        assert len(server.seen("POST", "/cancel")) == (on_cancel == "cancel")


async def test_replica_that_lags_behind_the_submit_is_waited_for() -> None:
    """The outputs were accepted, and for a while the run is shown as it was."""

    def accepted(asking: Asking) -> Action:
        if len(asking.outputs) > 1:
            text = 'Runs in status "queued" do not accept tool outputs.'
            return Answer(400, {"error": {"message": text}})
        return Answer(json=run_json("queued"))

    class Lagging(Asking):
        def __call__(self, request: Received) -> Action:
            if self.polls == 6:
                self.state = run_json("completed")
            return super().__call__(request)

    asking = Lagging([waiting("call_1")], accepted)

    text, called = await streamed(asking)

    assert text == "Done."
    assert called == [0]


async def test_extra_body_is_of_the_create_alone() -> None:
    """A submit does not repeat what was laid over the create's body."""
    bodies: list[Any] = []

    class Recording(Asking):
        def __call__(self, request: Received) -> Action:
            if request.method == "POST":
                bodies.append(request.json)
            return super().__call__(request)

    await streamed(Recording([waiting("call_1")], as_json), extra_body={"temperature": 0.5})

    assert bodies[0]["temperature"] == 0.5
    assert sorted(bodies[1]) == ["stream", "tool_outputs"]
