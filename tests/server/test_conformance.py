"""Every answer is what the vendor's OpenAPI description says it is."""

from __future__ import annotations

from typing import Any

from openai_runs.server import Call, CallTools, Cut, Fail
from tests.openapi import OPERATIONS, is_valid, problems
from tests.server.conftest import Serve
from tests.server.support import FUNCTION, Caller, run_path

FULL_ASSISTANT = {
    "model": "m",
    "name": "n",
    "tools": [
        FUNCTION,
        {"type": "code_interpreter"},
        {
            "type": "file_search",
            "file_search": {"max_num_results": 5, "ranking_options": {"score_threshold": 0}},
        },
    ],
    "tool_resources": {"file_search": {"vector_store_ids": ["vs_1"]}},
    "response_format": {"type": "json_object"},
}


class Checked(Caller):
    """Holds each answer against the description."""

    async def call(self, operation: str, body: Any = None, **ids: str) -> Any:
        """Return the answer of one operation, which must be a valid one."""
        described = OPERATIONS[operation]
        reply = await self.send(described.method, described.path.format(**ids), json=body)
        assert reply.status == 200, reply.text
        assert problems(described.answer, reply.json) == []
        self.seen.add(operation)
        return reply.json

    seen: set[str] = set()


async def test_answers_of_all_operations_are_valid(serve: Serve) -> None:
    """All 23, with the fields full, the fields empty, and runs in every state."""
    plain = await serve(
        CallTools([Call("weather")], text="Let me see."),
        "Sunny.",
        Fail("No.", code="invalid_prompt"),
        Cut("Half"),
        CallTools([Call("weather")]),
    )
    caller = Checked(plain.session, plain.url)
    assistant = await caller.call("createAssistant", FULL_ASSISTANT)
    await caller.call("getAssistant", assistant_id=assistant["id"])
    changed = {"tools": [FUNCTION], "response_format": None}
    await caller.call("modifyAssistant", changed, assistant_id=assistant["id"])
    await caller.call("listAssistants")
    thread = await caller.call("createThread", {"messages": [{"role": "user", "content": "Hi"}]})
    path = {"thread_id": thread["id"]}
    await messages_are_valid(caller, path)
    await runs_are_valid(caller, path, assistant["id"])
    for operation in ("modifyThread", "getThread", "deleteThread"):
        await caller.call(operation, {} if operation == "modifyThread" else None, **path)
    await caller.call("listAssistants")
    await caller.call("deleteAssistant", assistant_id=assistant["id"])

    assert caller.seen == set(OPERATIONS)


async def messages_are_valid(caller: Checked, path: dict[str, str]) -> None:
    """Call the operations of messages."""
    content = [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]
    attachments = [{"file_id": "file_1", "tools": [{"type": "file_search"}]}]
    body = {"role": "user", "content": content, "attachments": attachments}
    message = await caller.call("createMessage", body, **path)
    ids = {**path, "message_id": message["id"]}
    await caller.call("getMessage", **ids)
    await caller.call("modifyMessage", {"metadata": {"a": "b"}}, **ids)
    await caller.call("listMessages", **path)
    await caller.call("deleteMessage", **ids)


async def runs_are_valid(caller: Checked, path: dict[str, str], assistant_id: str) -> None:
    """Call the operations of runs and steps: waiting, completed, failed, cut, cancelled."""
    body = {"assistant_id": assistant_id}
    run = await caller.call("createRun", body, **path)
    ids = {**path, "run_id": run["id"]}
    waiting = await caller.settled(run)
    assert is_valid("RunObject", waiting)
    await caller.call("listRunSteps", **ids)
    calls = waiting["required_action"]["submit_tool_outputs"]["tool_calls"]
    outputs = [{"tool_call_id": call["id"], "output": "x"} for call in calls]
    await caller.call("submitToolOuputsToRun", {"tool_outputs": outputs}, **ids)
    await caller.settled(waiting | {"status": "queued"})
    await caller.call("getRun", **ids)
    await caller.call("modifyRun", {"metadata": {"a": "b"}}, **ids)
    steps = await caller.call("listRunSteps", **ids)
    await caller.call("getRunStep", **ids, step_id=steps["data"][0]["id"])
    for _ in range(2):
        await caller.settled(await caller.call("createRun", body, **path))
    cancelled = await caller.settled(await caller.call("createThreadAndRun", body))
    cancelled_ids = {"thread_id": cancelled["thread_id"], "run_id": cancelled["id"]}
    await caller.call("cancelRun", **cancelled_ids)
    await caller.reaches(cancelled, "cancelled")
    for run_ids in (cancelled_ids, ids):
        await caller.call("listRuns", thread_id=run_ids["thread_id"])
        await caller.call("listRunSteps", **run_ids)
        await caller.call("listMessages", thread_id=run_ids["thread_id"])


async def test_errors_are_valid(caller: Caller) -> None:
    """Whatever goes wrong, the body is an ErrorResponse."""
    run = await caller.settled(await caller.start())

    replies = [
        await caller.send("POST", "/threads", json={"nope": 1}),
        await caller.send("GET", "/threads/nope"),
        await caller.send("GET", "/nowhere"),
        await caller.send("PATCH", "/threads"),
        await caller.send("POST", f"{run_path(run)}/cancel"),
        await caller.send("GET", "/assistants?limit=0"),
    ]

    assert [reply.status for reply in replies] == [400, 404, 404, 405, 400, 400]
    assert all(is_valid("ErrorResponse", reply.json) for reply in replies)
