"""The calls made of several parts, and the official SDK's names for them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_runs import (
    APITimeoutError,
    BadRequestError,
    RunCancelled,
    RunError,
    RunExpired,
    RunFailed,
    RunIncomplete,
    RunRequiresAction,
    RunStatus,
    RunWaitTimeout,
)
from tests.client.acting import UNHELD, client_of, of_run, refusal, script
from tests.client.keeper import Keeper
from tests.support import Action, Answer, Hang, HostileServer, ManualClock, Received, run_json

QUEUED = of_run("queued")
DONE = of_run("completed")
OUTPUTS = [{"tool_call_id": "call_1", "output": "42"}]


# --- one timeout over all parts


@pytest.mark.parametrize("call", ["create", "submit", "cancel", "thread", "poll"])
async def test_timeout_covers_all_parts(call: str) -> None:
    """20 s spent on the first request are 20 s less for the wait."""
    clock = ManualClock()

    def handler(request: Received) -> Action:
        if request.method == "POST" and len(server.requests) == 1:
            return refusal(429, retry_after="20")
        return of_run("in_progress")

    async with HostileServer(handler) as server, client_of(server, clock, poll=UNHELD) as client:
        with pytest.raises(RunWaitTimeout) as caught:
            await _call(client, call, timeout=50)

    assert clock.now - 1000 == pytest.approx(50)
    assert caught.value.run.status == "in_progress"
    assert caught.value.waited == pytest.approx(50 if call == "poll" else 30)


async def _call(client: Any, call: str, **options: Any) -> Any:
    runs = client.runs
    match call:
        case "create":
            return await runs.create_and_poll("thread_1", assistant_id="asst_1", **options)
        case "submit":
            return await runs.submit_tool_outputs_and_poll(
                "run_1", thread_id="thread_1", tool_outputs=OUTPUTS, **options
            )
        case "cancel":
            return await runs.cancel_and_wait("run_1", thread_id="thread_1", **options)
        case "thread":
            return await client.threads.create_and_run_poll(assistant_id="asst_1", **options)
        case _:
            return await runs.poll("run_1", "thread_1", **options)


@pytest.mark.parametrize("call", ["create", "submit", "cancel", "thread"])
async def test_timeout_bounds_the_first_request(call: str) -> None:
    """A POST that hangs ends with the call's own time-out, with the ids that are known."""
    async with HostileServer(script(Hang())) as server, client_of(server) as client:
        with pytest.raises(APITimeoutError) as caught:
            await _call(client, call, timeout=0.05)

    assert caught.value.thread_id == (None if call == "thread" else "thread_1")
    assert caught.value.maybe_created


@pytest.mark.parametrize("call", ["create", "submit", "cancel", "thread", "poll"])
async def test_run_is_returned_once_it_is_settled(call: str) -> None:
    """Each helper ends in the same wait."""
    end = of_run("cancelled") if call == "cancel" else DONE
    seen: list[str] = []

    async with (
        HostileServer(script(QUEUED, QUEUED, of_run("in_progress"), end)) as server,
        client_of(server, ManualClock()) as client,
    ):
        run = await _call(client, call, on_status=lambda run: seen.append(run.status))

    assert run.is_terminal
    assert seen[-2:] == ["in_progress", run.status]


@pytest.mark.parametrize("call", ["create", "submit", "cancel", "thread"])
async def test_run_finished_at_once_is_not_polled(call: str) -> None:
    """The first answer says it all."""
    async with HostileServer(script(DONE)) as server, client_of(server) as client:
        run = await _call(client, call)

    assert run.status == "completed"
    assert len(server.requests) == 1


@pytest.mark.parametrize("call", ["create", "submit", "cancel", "thread", "poll"])
async def test_bad_wait_options_are_refused_unsent(call: str) -> None:
    """A mistake in how to wait is found before anything is started."""
    async with HostileServer(script(DONE)) as server, client_of(server) as client:
        for options in ({"timeout": -1}, {"on_cancel": "x"}, {"interval": 0}, {"tmeout": 1}):
            if "tmeout" in options and call not in {"create", "thread"}:
                continue
            with pytest.raises((ValueError, TypeError)):
                await _call(client, call, **options)

    assert server.requests == []


# --- cancel_and_wait


@pytest.mark.parametrize("status", ["completed", "cancelled", "failed", "expired", "incomplete"])
async def test_cancel_and_wait_returns_finished_runs(status: str) -> None:
    """A run that is finished already is returned as it ended."""
    keeper = Keeper()
    run_id = keeper.add(status=status)

    async with HostileServer(keeper) as server, client_of(server) as client:
        run = await client.runs.cancel_and_wait(
            run_id, thread_id="thread_1", extra_body={"x": 1}, timeout=5
        )

    assert run.status == status
    assert keeper.calls == {"cancel": 1, "get": 1}
    assert server.requests[1].body == b""


async def test_cancel_and_wait_waits_through_requires_action() -> None:
    """A run that still says requires_action is not finished, and is waited for."""
    handler = script(of_run("cancelling"), of_run("requires_action"), of_run("cancelled"))

    async with HostileServer(handler) as server, client_of(server, ManualClock()) as client:
        run = await client.runs.cancel_and_wait("run_1", thread_id="thread_1")

    assert run.status == "cancelled"


async def test_cancel_and_wait_waits_for_a_cancel_under_way() -> None:
    """A server that refuses because it is cancelling already has done what was asked."""
    busy = refusal(400, "Cannot cancel run with status 'cancelling'.")
    handler = script(busy, of_run("cancelling"), of_run("cancelling"), of_run("cancelled"))

    async with HostileServer(handler) as server, client_of(server, ManualClock()) as client:
        run = await client.runs.cancel_and_wait("run_1", thread_id="thread_1")

    assert run.status == "cancelled"


async def test_cancel_and_wait_raises_other_refusals() -> None:
    """A 400 while the run goes on is the caller's to know."""
    handler = script(refusal(400, "no such parameter"), of_run("in_progress"))

    async with HostileServer(handler) as server, client_of(server) as client:
        with pytest.raises(BadRequestError, match="no such parameter"):
            await client.runs.cancel_and_wait("run_1", thread_id="thread_1")


# --- raise_for_status


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (RunStatus.FAILED, RunFailed),
        (RunStatus.EXPIRED, RunExpired),
        (RunStatus.CANCELLED, RunCancelled),
        (RunStatus.CANCELLING, RunCancelled),
        (RunStatus.INCOMPLETE, RunIncomplete),
        (RunStatus.REQUIRES_ACTION, RunRequiresAction),
        ("vanished", RunError),
    ],
)
async def test_unhappy_ends_raise_their_error(status: str, error: type[RunError]) -> None:
    """raise_for_status() of a run as it came over the wire: the error carries it and its ids."""
    failed = {"last_error": {"code": "server_error", "message": "it broke"}}
    changes = failed if status == RunStatus.FAILED else {}

    async with (
        HostileServer(script(of_run(status, **changes))) as server,
        client_of(server) as client,
    ):
        run = await client.runs.retrieve("run_1", thread_id="thread_1")

    with pytest.raises(error) as caught:
        run.raise_for_status()
    assert type(caught.value) is error
    assert caught.value.run is run
    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")
    assert status in str(caught.value)
    assert ("it broke" in str(caught.value)) == (status == RunStatus.FAILED)


@pytest.mark.parametrize("status", ["completed", "queued", "in_progress"])
async def test_healthy_runs_are_returned(status: str) -> None:
    """raise_for_status() can be chained."""
    async with HostileServer(script(of_run(status))) as server, client_of(server) as client:
        run = await client.runs.retrieve("run_1", thread_id="thread_1")

    assert run.raise_for_status() is run


# --- the official SDK's names; the snippets are as its users write them


async def test_official_create_and_poll_works() -> None:
    """beta.threads.runs.create_and_poll, then the messages of the thread."""
    content = [{"type": "text", "text": {"value": "Hello", "annotations": []}}]
    message = {"id": "msg_1", "role": "assistant", "run_id": "run_1", "content": content}

    def handler(request: Received) -> Action:
        if request.path.endswith("/threads"):
            return Answer(json={"id": "thread_1", "object": "thread", "created_at": 1})
        if request.path.endswith("/messages"):
            listed = {"object": "list", "data": [message], "has_more": False}
            return Answer(json=listed if request.method == "GET" else message)
        return DONE if request.method == "GET" else QUEUED

    printed: list[str] = []
    async with HostileServer(handler) as server, client_of(server, ManualClock()) as client:
        thread = await client.beta.threads.create()
        await client.beta.threads.messages.create(
            thread_id=thread.id,
            role="user",
            content="I need to solve the equation `3x + 11 = 14`. Can you help me?",
        )
        run = await client.beta.threads.runs.create_and_poll(
            thread_id=thread.id,
            assistant_id="asst_1",
            instructions="Please address the user as Jane Doe.",
            poll_interval_ms=500,
        )
        if run.status == "completed":
            messages = await client.beta.threads.messages.list(thread_id=thread.id)
            printed += [m.model_dump_json(indent=2) for m in messages.data]
            async for m in client.beta.threads.messages.list(thread_id=thread.id, limit=20):
                printed.append(m.content[0].text.value)  # type: ignore[union-attr]

    assert json.loads(printed[0])["content"] == content
    assert printed[0].startswith('{\n  "')
    assert printed[1] == "Hello"


async def test_official_tool_loop_works() -> None:
    """beta.threads.runs.submit_tool_outputs_and_poll with outputs made from the tool calls."""
    function = {"name": "get_temperature", "arguments": '{"location": "Paris"}'}
    call = {"id": "call_1", "type": "function", "function": function}
    required = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [call]}}
    waiting = of_run("requires_action", required_action=required)

    def handler(request: Received) -> Action:
        if request.path.endswith("/submit_tool_outputs"):
            return QUEUED
        return DONE if server.seen("POST", "/submit_tool_outputs") else waiting

    async with HostileServer(handler) as server, client_of(server, ManualClock()) as client:
        run = await client.beta.threads.runs.poll(run_id="run_1", thread_id="thread_1")
        assert run.required_action is not None
        assert run.required_action.submit_tool_outputs is not None
        tool_outputs = [
            {"tool_call_id": tool.id, "output": "57"}
            for tool in run.required_action.submit_tool_outputs.tool_calls
            if tool.function.name == "get_temperature"  # type: ignore[union-attr]
        ]
        run = await client.beta.threads.runs.submit_tool_outputs_and_poll(
            thread_id="thread_1", run_id=run.id, tool_outputs=tool_outputs
        )

    (submitted,) = server.seen("POST", "/submit_tool_outputs")
    assert submitted.json == {"tool_outputs": [{"tool_call_id": "call_1", "output": "57"}]}
    assert run.status == "completed"


async def test_official_dumps_are_the_wires() -> None:
    """model_dump() and model_dump_json() give the wire's JSON, unknown fields included."""
    wire = run_json("completed", metadata={"a": "b"}, novelty={"deep": [1, None]})

    async with HostileServer(script(Answer(json=wire))) as server, client_of(server) as client:
        run = await client.beta.threads.create_and_run_poll(
            assistant_id="asst_1",
            thread={"messages": [{"role": "user", "content": "Explain deep learning."}]},
        )
        again = await client.beta.threads.runs.retrieve(run_id=run.id, thread_id=run.thread_id)

    assert run.model_dump() == wire
    assert json.loads(run.model_dump_json(indent=2)) == wire
    assert "usage" not in run.model_dump(exclude_none=True)
    assert again == run


async def test_official_aliases_are_the_same_resources() -> None:
    """client.beta is another name, not another client."""
    async with HostileServer(script(DONE)) as server, client_of(server) as client:
        assert client.beta.threads is client.threads
        assert client.beta.threads.runs is client.runs
        assert client.beta.threads.messages is client.messages
        assert client.beta.threads.runs.steps is client.runs.steps
        assert client.beta.assistants is client.assistants
