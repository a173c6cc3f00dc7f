"""`runs.ask`: one message out, one result back."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from openai_runs import ActiveRunError, AsyncClient, RunWaitTimeout, tool
from openai_runs.testing import RunsServer


class City(msgspec.Struct):
    """Where."""

    name: str


@tool
def temperature(city: str) -> int:
    """Return the temperature of a city."""
    return len(city)


async def test_message_on_a_new_thread_is_one_request(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """The thread is created with its run, and the result knows it."""
    runs_server.reply("Good day.")
    assistant = await runs_client.assistants.create(model="m")

    result = await runs_client.runs.ask("Hello!", assistant_id=assistant.id)

    assert (result.run.status, result.text) == ("completed", "Good day.")
    assert result.parsed is None
    created = [one.json for one in runs_server.requests if one.method == "POST"][1:]
    assert created == [
        {
            "assistant_id": assistant.id,
            "thread": {"messages": [{"role": "user", "content": "Hello!"}]},
        }
    ]
    page = await runs_client.messages.list(result.run.thread_id, order="asc")
    assert [message.text for message in page] == ["Hello!", "Good day."]


async def test_thread_is_gone_on_with(runs_server: RunsServer, runs_client: AsyncClient) -> None:
    """Its id is in the first result; settings, parts and a type go along."""
    runs_server.reply("Good day.")
    runs_server.reply('{"name":"Oslo"}')
    assistant = await runs_client.assistants.create(model="m")
    first = await runs_client.runs.ask("Hello!", assistant_id=assistant.id)

    second = await runs_client.runs.ask(
        [{"type": "text", "text": "Where?"}],
        assistant_id=assistant.id,
        thread_id=first.run.thread_id,
        response_format=City,
        instructions="Be brief.",
        metadata={"a": "b"},
        on_active_run="wait",
    )

    assert second.parsed == City("Oslo")
    assert second.run.thread_id == first.run.thread_id
    assert (second.run.instructions, second.run.metadata) == ("Be brief.", {"a": "b"})
    messages = await runs_client.messages.list(first.run.thread_id, order="asc")
    assert [one.text for one in messages if one.role == "user"] == ["Hello!", "Where?"]


@pytest.mark.parametrize("has_thread", [False, True], ids=["new-thread", "thread"])
async def test_tool_calls_are_answered(
    runs_server: RunsServer, runs_client: AsyncClient, has_thread: bool
) -> None:
    """As in `run_tools`."""
    runs_server.call_tool("temperature", {"city": "Oslo"})
    runs_server.reply("Four.")
    assistant = await runs_client.assistants.create(model="m")
    thread = await runs_client.threads.create()
    place: dict[str, Any] = {"thread_id": thread.id} if has_thread else {}

    result = await runs_client.runs.ask(
        "How warm?", assistant_id=assistant.id, tools=[temperature], timeout=30, **place
    )

    assert result.text == "Four."
    assert [step.type for step in result.steps] == ["tool_calls", "message_creation"]


async def test_run_that_asks_for_the_assistants_tools_is_returned_as_it_is(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """Nobody here can answer them; `resume` goes on with it."""
    runs_server.call_tool("temperature", {"city": "Oslo"})
    runs_server.reply("Four.")
    assistant = await runs_client.assistants.create(model="m", tools=[temperature])

    result = await runs_client.runs.ask("How warm?", assistant_id=assistant.id)
    resumed = await runs_client.runs.resume(
        result.run.id, thread_id=result.run.thread_id, tools=[temperature]
    )

    assert result.run.status == "requires_action"
    assert resumed.text == "Four."


async def test_busy_thread_and_passed_time_are_errors(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """With the ids that are needed to go on."""
    runs_server.hang()
    assistant = await runs_client.assistants.create(model="m")

    with pytest.raises(RunWaitTimeout) as caught:
        await runs_client.runs.ask("Hello!", assistant_id=assistant.id, timeout=0.3)
    busy = caught.value.run
    assert busy is not None
    with pytest.raises(ActiveRunError) as refused:
        await runs_client.runs.ask("Hi!", assistant_id=assistant.id, thread_id=busy.thread_id)

    assert refused.value.blocking_run_id == busy.id


async def test_run_is_cancelled_with_its_caller_where_that_is_asked_for(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """`on_cancel` covers the whole call."""
    runs_server.hang()
    assistant = await runs_client.assistants.create(model="m")

    async with anyio.create_task_group() as group:

        async def ask() -> None:
            await runs_client.runs.ask(
                "Hello!",
                assistant_id=assistant.id,
                on_cancel="cancel",
            )

        group.start_soon(ask)
        while not runs_server.seen("GET", "/threads/*/runs/*"):  # noqa: ASYNC110 - nobody announces a request
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()

    assert len(runs_server.seen("POST", "cancel")) == 1
