"""Tool calls: waited for whole, answered once, and shown to the model again."""

from __future__ import annotations

import io
import json
from typing import Any

import anyio
import pytest

from openai_runs.server import Call, CallTools, ScriptedBackend
from openai_runs.types.runs import Usage
from tests.canaries import CANARY_PROMPT
from tests.server.conftest import Serve
from tests.server.support import run_path

pytestmark = pytest.mark.postgresql

CALLS = CallTools([Call("weather", {"city": "Oslo"}), Call("weather", {"city": "Rome"})])


async def test_tool_turn_waits_for_its_outputs(serve: Serve) -> None:
    """Parallel calls are one step, their outputs still open, and the run says what it wants."""
    caller = await serve(CALLS)

    run = await caller.settled(await caller.start())
    (step,) = await caller.steps(run)

    calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    arguments = [call["function"]["arguments"] for call in calls]
    assert run["status"] == "requires_action"
    assert run["required_action"]["type"] == "submit_tool_outputs"
    assert arguments == ['{"city":"Oslo"}', '{"city":"Rome"}']
    assert (step["type"], step["status"], step["usage"]) == ("tool_calls", "in_progress", None)
    asked = step["step_details"]["tool_calls"]
    assert [call["id"] for call in asked] == [call["id"] for call in calls]
    assert [call["function"]["output"] for call in asked] == [None, None]


async def test_run_goes_on_with_its_outputs(serve: Serve) -> None:
    """The step is completed with them, the model is shown them, and the run completes."""
    backend = ScriptedBackend([CALLS, "Both sunny."])
    caller = await serve(backend=backend)
    waiting = await caller.settled(await caller.start())

    submitted = await caller.submit(waiting, "sunny")
    run = await caller.settled(submitted.json)

    tools, message = await caller.steps(run)
    assert (submitted.json["status"], submitted.json["required_action"]) == ("queued", None)
    assert (run["status"], run["usage"]["total_tokens"]) == ("completed", 30)
    assert (tools["status"], message["type"]) == ("completed", "message_creation")
    assert tools["usage"]["total_tokens"] == 15
    outputs = [call["function"]["output"] for call in tools["step_details"]["tool_calls"]]
    shown = [call.function.output for call in backend.requests[1].turns[0].tool_calls]
    assert outputs == shown == ["sunny", "sunny"]


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
    assert texts == [CANARY_PROMPT, "Let me see.", "Sunny."]
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
