"""runs.result: what a run wrote and did, from servers that list it in their own ways."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import anyio
import pytest

from openai_runs import APIResponseValidationError, InternalServerError, NotFoundError, Run
from openai_runs.types import Usage
from tests.client.acting import client_of, refusal
from tests.support import Action, Answer, HostileServer, ManualClock, Received

RUN = Run(
    id="run_1",
    thread_id="thread_1",
    status="completed",
    usage=Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7),
)


def message(number: int, text: str, **changes: Any) -> dict[str, Any]:
    """Return a message of run_1 with that text."""
    return {
        "id": f"msg_{number}",
        "object": "thread.message",
        "created_at": number,
        "thread_id": "thread_1",
        "role": "assistant",
        "run_id": "run_1",
        "content": [{"type": "text", "text": {"value": text, "annotations": []}}],
        **changes,
    }


def step(number: int) -> dict[str, Any]:
    """Return a finished step."""
    return {
        "id": f"step_{number}",
        "object": "thread.run.step",
        "created_at": number,
        "run_id": "run_1",
        "thread_id": "thread_1",
        "type": "message_creation",
        "status": "completed",
        "step_details": {
            "type": "message_creation",
            "message_creation": {"message_id": f"msg_{number}"},
        },
    }


def lists(
    messages: list[dict[str, Any]], steps: list[dict[str, Any]] | None, *, size: int = 100
) -> Any:
    """Return a handler that lists these, oldest first; None: it has no steps."""

    def handler(request: Received) -> Action:
        asked_for_steps = request.path.endswith("/steps")
        if asked_for_steps and steps is None:
            return refusal(404, "Not Found")
        items = (steps or []) if asked_for_steps else messages
        after = request.query.get("after", [""])[0]
        start = next((i + 1 for i, item in enumerate(items) if item["id"] == after), 0)
        page = items[start : start + size]
        return Answer(json={"object": "list", "data": page, "has_more": start + size < len(items)})

    return handler


async def test_result_gathers_messages_steps_and_usage() -> None:
    """Text, messages and steps come oldest first; usage is the run's."""
    handler = lists([message(1, "Hello"), message(2, "World")], [step(1), step(2)])

    async with HostileServer(handler) as server, client_of(server) as client:
        result = await client.runs.result(RUN)

    assert result.run is RUN
    assert result.text == "Hello\n\nWorld"
    assert [one.id for one in result.messages] == ["msg_1", "msg_2"]
    assert [one.id for one in result.steps] == ["step_1", "step_2"]
    assert result.usage is not None
    assert result.usage.total_tokens == 7
    assert server.requests[0].query == {"order": ["asc"], "limit": ["100"], "run_id": ["run_1"]}
    assert len(server.requests) == 2


async def test_result_holds_this_runs_messages_alone() -> None:
    """A server that does not know the run_id filter lists the whole thread: it is filtered here."""
    handler = lists(
        [
            message(1, "the question", role="user"),
            message(2, "of another run", run_id="run_0"),
            message(3, "of nobody", run_id=None),
            message(4, "the answer"),
        ],
        [],
    )

    async with HostileServer(handler) as server, client_of(server) as client:
        result = await client.runs.result(RUN)

    assert result.text == "the answer"


async def test_result_has_no_steps_where_the_server_has_none() -> None:
    """A server without the steps endpoint answers 404: the rest is there."""
    async with (
        HostileServer(lists([message(1, "Hello")], None)) as server,
        client_of(server) as client,
    ):
        result = await client.runs.result(RUN)

    assert (result.text, result.steps) == ("Hello", [])


async def test_result_walks_all_pages() -> None:
    """250 steps are three pages; none is left out."""
    handler = lists([message(n, str(n)) for n in range(120)], [step(n) for n in range(250)])

    async with HostileServer(handler) as server, client_of(server) as client:
        result = await client.runs.result(RUN)

    assert [one.id for one in result.steps] == [f"step_{n}" for n in range(250)]
    assert len(result.messages) == 120
    assert len(server.requests) == 5


async def test_result_outlives_an_unreadable_message() -> None:
    """An item that cannot be read costs itself, not the result."""
    broken: dict[str, Any] = {"id": "msg_0", "content": 5}
    broken_too = message(2, "", content="what is this")

    async with (
        HostileServer(lists([broken, message(1, "Hello"), broken_too], [])) as server,
        client_of(server) as client,
    ):
        result = await client.runs.result(RUN)

    assert result.text == "Hello"
    assert [one.id for one in result.messages] == ["msg_1", "msg_2"]


async def test_result_of_a_run_that_wrote_nothing_is_empty() -> None:
    """No message, no text; no usage before the end."""
    run = Run(id="run_1", thread_id="thread_1", status="in_progress")

    async with HostileServer(lists([], [])) as server, client_of(server) as client:
        result = await client.runs.result(run)

    assert (result.text, result.messages, result.steps, result.usage) == ("", [], [], None)


async def test_result_needs_its_thread() -> None:
    """A thread that is gone is an error: there is nothing to gather from."""
    async with (
        HostileServer(lambda request: refusal(404)) as server,
        client_of(server) as client,
    ):
        with pytest.raises(NotFoundError) as caught:
            await client.runs.result(RUN)

    assert caught.value.thread_id == "thread_1"


async def test_result_retries_and_raises_as_other_calls() -> None:
    """503 for ever is raised after the retries, and the call's options reach both lists."""
    async with (
        HostileServer(lambda request: refusal(503)) as server,
        client_of(server, ManualClock()) as client,
    ):
        with pytest.raises(InternalServerError):
            await client.runs.result(RUN, extra_headers={"X-Tenant": "t"})

    assert [one.headers["x-tenant"] for one in server.requests] == ["t"] * 3


@pytest.mark.parametrize("endless", ["messages", "steps"])
@pytest.mark.parametrize("empty", [False, True], ids=["of-the-run", "of-nobody"])
async def test_lists_of_a_run_that_never_end_are_an_error(endless: str, empty: bool) -> None:
    """Pages with new ids without end, also of items that are not kept."""
    numbers = itertools.count()

    def handler(request: Received) -> Action:
        is_endless = request.path.endswith(endless)
        make = step if request.path.endswith("/steps") else partial(message, text="x")
        items = [{**make(next(numbers)), **({"run_id": "run_2"} if empty else {})}]
        items = items * 20 if is_endless else []
        last = items[-1]["id"] if items else None
        page = {"data": items, "first_id": last, "last_id": last, "has_more": is_endless}
        return Answer(json={"object": "list", **page})

    with anyio.fail_after(30):
        async with HostileServer(handler) as server, client_of(server, ManualClock()) as client:
            limited = client.with_options(max_stream_bytes=100_000)
            with pytest.raises(
                APIResponseValidationError, match="max_stream_bytes=100000"
            ) as error:
                await limited.runs.result(RUN)

    assert error.value.run_id == "run_1"
    assert len(server.requests) < 20


async def test_timeline_fetches_all_steps() -> None:
    """250 steps are three pages; no message is fetched for them."""
    handler = lists([], [step(n) for n in range(250)])

    async with HostileServer(handler) as server, client_of(server) as client:
        timeline = await client.runs.timeline(RUN)

    assert len([entry for entry in timeline.entries if entry.step_id]) == 250
    assert len(server.requests) == 3
    assert {"messages" in request.path for request in server.requests} == {False}


async def test_timeline_has_no_steps_where_the_server_has_none() -> None:
    """A server without the steps endpoint answers 404: the run's own times are there."""
    async with HostileServer(lists([], None)) as server, client_of(server) as client:
        timeline = await client.runs.timeline(RUN)

    assert [entry for entry in timeline.entries if entry.step_id] == []


async def test_timeline_of_a_result_is_that_of_its_steps() -> None:
    """A result has the steps already, so nothing is fetched."""
    handler = lists([message(1, "Hello")], [step(1), step(2)])

    async with HostileServer(handler) as server, client_of(server) as client:
        result = await client.runs.result(RUN)
        assert result.timeline() == await client.runs.timeline(RUN)
        assert len(server.requests) == 3
