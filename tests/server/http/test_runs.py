"""The life of a run, as a client sees it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from openai_runs.server import Call, CallTools, Cut, Fail, Hang, ModelRequest, Say, ScriptedBackend
from tests.canaries import CANARY_PROMPT
from tests.server.conftest import Serve
from tests.server.support import FUNCTION, Caller, run_path

pytestmark = pytest.mark.postgresql

CALLS = CallTools([Call("weather", {"city": "Oslo"}), Call("weather", {"city": "Rome"})])


async def test_run_copies_the_assistant_as_it_is_at_creation(caller: Caller) -> None:
    """Model, instructions and the rest come from the assistant, or from the defaults."""
    assistant_id = await caller.assistant(
        model="m1", instructions="Be brief.", tools=[FUNCTION], temperature=0.5
    )
    thread_id = await caller.thread()

    body = {
        "assistant_id": assistant_id,
        "additional_instructions": "Be kind.",
        "metadata": {"a": "b"},
    }
    run = await caller.post(f"/threads/{thread_id}/runs", body)

    assert (run["status"], run["model"]) == ("queued", "m1")
    assert run["instructions"] == "Be brief.\n\nBe kind."
    assert run["tools"] == [FUNCTION]
    assert (run["temperature"], run["top_p"]) == (0.5, 1.0)
    assert run["truncation_strategy"] == {"type": "auto", "last_messages": None}
    assert (run["tool_choice"], run["response_format"]) == ("auto", "auto")
    assert run["parallel_tool_calls"] is True
    assert run["expires_at"] == run["created_at"] + 600
    assert run["metadata"] == {"a": "b"}
    assert run["usage"] is None


async def test_run_overrides_what_it_says_itself(caller: Caller) -> None:
    """What is sent with the run wins over the assistant."""
    assistant_id = await caller.assistant(instructions="Be brief.", tools=[FUNCTION])
    sent = {
        "model": "m2",
        "instructions": "Be long.",
        "tools": [],
        "temperature": 0,
        "top_p": 0.1,
        "max_prompt_tokens": 1000,
        "max_completion_tokens": 500,
        "truncation_strategy": {"type": "last_messages", "last_messages": 3},
        "tool_choice": "none",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_object"},
    }

    run = await caller.post("/threads/runs", {"assistant_id": assistant_id, **sent})

    assert {name: run[name] for name in sent} == sent


async def test_text_turn_ends_completed_with_message_and_step(serve: Serve) -> None:
    """One message, one step, usage on both, and the times that belong to it."""
    caller = await serve("Hello back.")

    run = await caller.settled(await caller.start())

    message = (await caller.messages(run))[-1]
    (step,) = await caller.steps(run)
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    assert (run["status"], run["usage"], run["expires_at"]) == ("completed", usage, None)
    assert run["created_at"] <= run["started_at"] <= run["completed_at"]
    assert run["failed_at"] is run["cancelled_at"] is run["last_error"] is None
    assert message["content"][0]["text"]["value"] == "Hello back."
    assert (message["role"], message["status"]) == ("assistant", "completed")
    assert (message["run_id"], message["assistant_id"]) == (run["id"], run["assistant_id"])
    assert (step["type"], step["status"], step["usage"]) == ("message_creation", "completed", usage)
    assert step["step_details"]["message_creation"]["message_id"] == message["id"]
    assert await caller.get(f"{run_path(run)}/steps/{step['id']}") == step


ENDS = {
    "failed": (Fail("Broken.", code="rate_limit_exceeded"), "failed", "failed_at"),
    "cut": (Cut("Half a"), "incomplete", None),
    "prompt": (Cut(reason="prompt_length"), "incomplete", None),
    "filtered": (Cut("Half a", reason="content_filter"), "failed", "failed_at"),
    "failed-midway": (Fail("Broken.", text="Half a"), "failed", "failed_at"),
}


@pytest.mark.parametrize(("turn", "status", "stamp"), ENDS.values(), ids=ENDS)
async def test_unhappy_turn_ends_the_run_with_its_reason(
    serve: Serve, turn: Any, status: str, stamp: str | None
) -> None:
    """No message of such a run is left `completed`, and no step in progress."""
    caller = await serve(turn)

    run = await caller.settled(await caller.start())

    assert run["status"] == status
    assert (run["last_error"] is not None) == (status == "failed")
    assert (run["incomplete_details"] is not None) == (status == "incomplete")
    assert all((run[name] is not None) == (name == stamp) for name in ("failed_at", "completed_at"))
    assert run["usage"] is not None
    assert run["expires_at"] is None
    assert all(m["status"] == "incomplete" for m in (await caller.messages(run))[1:])
    assert all(step["status"] != "in_progress" for step in await caller.steps(run))


async def test_reasons_are_told_when_a_run_does_not_complete(serve: Serve) -> None:
    """Each limit and each failure has its word."""
    caller = await serve(*[turn for turn, _, _ in ENDS.values()])

    runs = [await caller.settled(await caller.start()) for _ in ENDS]

    assert runs[0]["last_error"] == {"code": "rate_limit_exceeded", "message": "Broken."}
    assert runs[1]["incomplete_details"] == {"reason": "max_completion_tokens"}
    assert runs[2]["incomplete_details"] == {"reason": "max_prompt_tokens"}
    assert runs[3]["last_error"]["code"] == "invalid_prompt"
    assert runs[4]["last_error"]["code"] == "server_error"
    cut, filtered = [(await caller.messages(runs[n]))[1] for n in (1, 3)]
    assert cut["incomplete_details"] == {"reason": "max_tokens"}
    assert cut["content"][0]["text"]["value"] == "Half a"
    assert filtered["incomplete_details"] == {"reason": "content_filter"}


async def test_exception_in_a_backend_fails_the_run_without_its_words(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug is a failed run and a logged traceback without its words, not a stuck run or a leak."""

    def script(request: ModelRequest) -> str:
        raise LookupError(request.question)

    caller = await serve(backend=ScriptedBackend(script))

    run = await caller.settled(await caller.start())

    assert run["status"] == "failed"
    assert run["last_error"] == {"code": "server_error", "message": "The server had an error."}
    assert "in script" in caplog.text
    assert "LookupError\n" in caplog.text
    assert CANARY_PROMPT not in caplog.text


async def test_metadata_can_be_changed_when_all_else_is_over(caller: Caller) -> None:
    """A finished run takes new metadata and nothing else."""
    run = await caller.settled(await caller.start())

    changed = await caller.post(run_path(run), {"metadata": {"k": "v"}})
    refused = await caller.send("POST", run_path(run), json={"status": "queued"})

    assert changed == {**run, "metadata": {"k": "v"}}
    assert await caller.get(run_path(run)) == changed
    assert (refused.status, refused.json["error"]["param"]) == (400, "status")


async def test_fifty_creates_on_one_thread_make_one_run(serve: Serve) -> None:
    """One 200 and 49 refusals that name the run in the way."""
    caller = await serve(Hang())
    assistant_id, thread_id = await caller.assistant(), await caller.thread()
    replies: list[Any] = []

    async def create() -> None:
        body = {"assistant_id": assistant_id}
        replies.append(await caller.send("POST", f"/threads/{thread_id}/runs", json=body))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(create)

    (made,) = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status == 400]
    text = f"Thread {thread_id} already has an active run {made.json['id']}."
    assert len(refused) == 49
    assert {reply.message for reply in refused} == {text}
    assert {reply.json["error"]["code"] for reply in refused} == {None}
    assert len((await caller.get(f"/threads/{thread_id}/runs"))["data"]) == 1


async def test_message_is_refused_while_a_run_is_active(serve: Serve) -> None:
    """In the text that clients match on; afterwards it is taken."""
    caller = await serve(CallTools([Call("weather")]), "Done.")
    waiting = await caller.settled(await caller.start())
    path = f"/threads/{waiting['thread_id']}/messages"
    body = {"role": "user", "content": "Wait"}

    refused = await caller.send("POST", path, json=body)
    await caller.settled((await caller.submit(waiting)).json)
    taken = await caller.send("POST", path, json=body)

    text = f"Can't add messages to {waiting['thread_id']} while a run {waiting['id']} is active."
    assert (refused.status, refused.message, taken.status) == (400, text, 200)


async def test_additional_messages_come_with_the_run_or_not_at_all(serve: Serve) -> None:
    """A refused create leaves no message behind."""
    caller = await serve(Hang())
    run = await caller.start(additional_messages=[{"role": "user", "content": "One more"}])
    body = {
        "assistant_id": run["assistant_id"],
        "additional_messages": [{"role": "user", "content": "Lost"}],
    }

    refused = await caller.send("POST", f"/threads/{run['thread_id']}/runs", json=body)

    texts = [m["content"][0]["text"]["value"] for m in await caller.messages(run)]
    assert refused.status == 400
    assert texts == [CANARY_PROMPT, "One more"]


async def test_each_finished_run_is_one_line_in_the_log(
    caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    """Its ids and how it ended, and nothing of what was said."""
    caplog.set_level("INFO", "openai_runs.server")

    run = await caller.settled(await caller.start("A secret question"))
    (line,) = [record.getMessage() for record in caplog.records if run["id"] in record.getMessage()]

    assert line.startswith(f"run {run['id']} of thread {run['thread_id']}: completed after ")
    assert "secret" not in caplog.text


@pytest.mark.parametrize("number", [31, 32, 33, 70])
async def test_model_sees_threads_of_any_length(serve: Serve, number: int) -> None:
    """Whole, or the last messages where the run asks for those; the oldest comes first."""
    seen: list[list[str]] = []

    def answer(request: ModelRequest) -> Say:
        seen.append([message.text for message in request.messages])
        return Say("Fine.")

    caller = await serve(backend=ScriptedBackend(answer))
    texts = [f"text {place}" for place in range(number)]
    thread = {"messages": [{"role": "user", "content": text} for text in texts]}
    body = {"assistant_id": await caller.assistant(), "thread": thread}
    last = {"truncation_strategy": {"type": "last_messages", "last_messages": 32}}

    await caller.settled(await caller.post("/threads/runs", body))
    await caller.settled(await caller.post("/threads/runs", {**body, **last}))

    assert seen == [texts, texts[-32:]]
