"""Tool calls: waited for whole, answered once, and shown to the model again."""

from __future__ import annotations

import io
import json
from typing import Any

import anyio
import pytest

from openai_runs.server import Call, CallTools, ModelRequest, Say, ScriptedBackend
from openai_runs.types.runs import Usage
from tests.server.conftest import Serve
from tests.server.support import run_path

CALLS = CallTools([Call("weather", {"city": "Oslo"}), Call("weather", {"city": "Rome"})])


async def test_tool_turn_waits_for_outputs_and_goes_on_with_them(serve: Serve) -> None:
    """Parallel calls are one step; their outputs reach the model; the run completes."""
    requests: list[ModelRequest] = []

    def script(request: ModelRequest) -> Any:
        requests.append(request)
        return Say("Both sunny.") if request.turns else CALLS

    caller = await serve(backend=ScriptedBackend(script))
    waiting = await caller.settled(await caller.start())
    (open_step,) = await caller.steps(waiting)

    submitted = await caller.submit(waiting, "sunny")
    run = await caller.settled(submitted.json)

    calls = waiting["required_action"]["submit_tool_outputs"]["tool_calls"]
    assert waiting["status"] == "requires_action"
    assert waiting["required_action"]["type"] == "submit_tool_outputs"
    assert [call["function"]["arguments"] for call in calls] == [
        '{"city":"Oslo"}',
        '{"city":"Rome"}',
    ]
    assert (open_step["type"], open_step["status"], open_step["usage"]) == (
        "tool_calls",
        "in_progress",
        None,
    )
    assert [c["function"]["output"] for c in open_step["step_details"]["tool_calls"]] == [
        None,
        None,
    ]
    assert submitted.json["status"] == "queued"
    assert submitted.json["required_action"] is None
    assert run["status"] == "completed"
    assert run["usage"]["total_tokens"] == 30
    tools, message = await caller.steps(run)
    assert (tools["id"], tools["status"], message["type"]) == (
        open_step["id"],
        "completed",
        "message_creation",
    )
    assert [c["function"]["output"] for c in tools["step_details"]["tool_calls"]] == ["sunny"] * 2
    assert [c.function.output for c in requests[1].turns[0].tool_calls] == ["sunny"] * 2


async def test_many_tool_rounds_are_no_failed_attempts(serve: Serve) -> None:
    """A run may call tools more often than the server would restart it."""
    caller = await serve(*[CallTools([Call("weather")])] * 6, "Done.")

    run = await caller.settled(await caller.start())
    for _ in range(6):
        assert run["status"] == "requires_action"
        run = await caller.settled((await caller.submit(run)).json)

    assert run["status"] == "completed"
    assert len(await caller.steps(run)) == 7


async def test_text_along_with_tool_calls_is_a_message_of_its_own(serve: Serve) -> None:
    """What the model says while it calls is kept, and shown to it again."""
    caller = await serve(CallTools([Call("weather", id="call_a")], text="Let me see."), "Sunny.")

    waiting = await caller.settled(await caller.start())
    run = await caller.settled((await caller.submit(waiting)).json)

    assert waiting["required_action"]["submit_tool_outputs"]["tool_calls"][0]["id"] == "call_a"
    assert [step["type"] for step in await caller.steps(run)] == [
        "message_creation",
        "tool_calls",
        "message_creation",
    ]
    texts = [m["content"][0]["text"]["value"] for m in await caller.messages(run)]
    assert texts == ["Hello", "Let me see.", "Sunny."]
    assert run["usage"]["total_tokens"] == 30


async def test_token_limit_is_kept_over_all_turns(serve: Serve) -> None:
    """A run whose earlier calls used its tokens up is not given another one."""
    spent = Usage(prompt_tokens=10, completion_tokens=300, total_tokens=310)
    caller = await serve(CallTools([Call("weather")], usage=spent), "Never said.")

    waiting = await caller.settled(await caller.start(max_completion_tokens=256))
    run = await caller.settled((await caller.submit(waiting)).json)

    assert (run["status"], run["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_completion_tokens"},
    )
    assert run["usage"]["completion_tokens"] == 300


OUTPUTS: dict[str, Any] = {
    "partial": lambda ids: [{"tool_call_id": ids[0], "output": "x"}],
    "none": lambda ids: [],
    "twice": lambda ids: [{"tool_call_id": ids[0], "output": "x"}] * 2,
    "unknown": lambda ids: [{"tool_call_id": i, "output": "x"} for i in (*ids, "call_no")],
}


@pytest.mark.parametrize("choose", OUTPUTS.values(), ids=OUTPUTS)
async def test_outputs_must_be_exactly_those_that_are_waited_for(serve: Serve, choose: Any) -> None:
    """Both lists of ids are in the text, and the run goes on waiting."""
    caller = await serve(CALLS)
    run = await caller.settled(await caller.start())
    ids = [c["id"] for c in run["required_action"]["submit_tool_outputs"]["tool_calls"]]
    outputs = choose(ids)

    reply = await caller.send(
        "POST", f"{run_path(run)}/submit_tool_outputs", json={"tool_outputs": outputs}
    )

    sent = ", ".join(output["tool_call_id"] for output in outputs)
    text = f"Expected tool outputs for call_ids [{', '.join(ids)}], got [{sent}]"
    assert (reply.status, reply.message) == (400, text)
    assert (await caller.get(run_path(run)))["status"] == "requires_action"


async def test_outputs_are_taken_once(serve: Serve) -> None:
    """Twenty submits at once: one goes on, nineteen are told the status."""
    caller = await serve(CALLS, "Done.")
    run = await caller.settled(await caller.start())
    replies: list[Any] = []

    async def submit() -> None:
        replies.append(await caller.submit(run))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(submit)

    refused = [reply for reply in replies if reply.status == 400]
    assert len(refused) == 19
    assert all("do not accept tool outputs" in reply.message for reply in refused)
    assert (await caller.settled(run | {"status": "queued"}))["status"] == "completed"
    assert len(await caller.steps(run)) == 2


async def test_output_of_ten_megabytes_is_taken(serve: Serve) -> None:
    """As large as a body may be."""
    caller = await serve(CallTools([Call("weather")]), "Done.")
    waiting = await caller.settled(await caller.start())
    (call,) = waiting["required_action"]["submit_tool_outputs"]["tool_calls"]
    outputs = [{"tool_call_id": call["id"], "output": "x" * 10_000_000}]
    body = io.BytesIO(json.dumps({"tool_outputs": outputs}).encode())

    submitted = await caller.send("POST", f"{run_path(waiting)}/submit_tool_outputs", data=body)
    run = await caller.settled(submitted.json)

    assert run["status"] == "completed"


async def test_broken_arguments_are_passed_on_as_they_are(serve: Serve) -> None:
    """The caller decides what to do with them."""
    caller = await serve(CallTools([Call("weather", '{"city": ')]))

    run = await caller.settled(await caller.start())

    (call,) = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    assert call["function"]["arguments"] == '{"city": '
