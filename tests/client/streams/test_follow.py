"""A run that is already there is followed, from where somebody has left it."""

from __future__ import annotations

from typing import Any

import pytest

from openai_runs import AsyncClient, Run
from openai_runs.errors import RunWaitTimeout
from openai_runs.testing import RunsServer


async def ran(server: RunsServer, client: AsyncClient) -> tuple[Run, list[Any]]:
    """Return a run that has ended, and its events."""
    assistant = await client.assistants.create(model="m")
    thread = await client.threads.create()
    async with client.runs.stream(thread.id, assistant_id=assistant.id) as stream:
        events = [event async for event in stream]
    assert stream.run is not None
    return stream.run, events


async def test_whole_run_is_told_to_who_has_seen_nothing(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """The same events, in the same words."""
    run, events = await ran(runs_server, runs_client)

    async with runs_client.runs.follow(run.id, thread_id=run.thread_id) as stream:
        followed = [event async for event in stream]

    assert [one.json for one in followed] == [one.json for one in events]


async def test_nothing_is_told_to_who_has_seen_everything(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """It ends at once, without asking again or emitting anything twice; the result is there."""
    run, events = await ran(runs_server, runs_client)
    asked = len(runs_server.requests)

    async with runs_client.runs.follow(
        run.id, thread_id=run.thread_id, last_event_id=events[-1].id
    ) as stream:
        followed = [event async for event in stream]
    asked = len(runs_server.requests) - asked
    result = await stream.result()

    assert (followed, asked) == ([], 2)
    assert result.text == runs_server.default_reply
    assert not stream.recovered


async def test_nothing_is_told_while_a_run_waits_for_others(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """Who has seen that it waits for tool outputs can come back later, and sees what follows."""
    runs_server.call_tool("look_up")
    run, events = await ran(runs_server, runs_client)
    ids = {"thread_id": run.thread_id, "last_event_id": events[-1].id}

    async with runs_client.runs.follow(run.id, **ids) as stream:
        before = [event async for event in stream]
    outputs = [{"tool_call_id": call.id, "output": "found"} for call in run.tool_calls]
    await runs_client.runs.submit_tool_outputs_and_poll(
        run.id, thread_id=run.thread_id, tool_outputs=outputs
    )
    async with runs_client.runs.follow(run.id, **ids) as stream:
        after = [event.event async for event in stream]

    assert run.status == "requires_action"
    assert before == []
    assert after[0] == "thread.run.step.completed"
    assert after[-1] == "thread.run.completed"


async def test_time_that_is_up_names_the_run_that_is_followed(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """Also where no event has named it yet."""
    runs_server.hang()
    assistant = await runs_client.assistants.create(model="m")
    run = await runs_client.threads.create_and_run(assistant_id=assistant.id)
    stream = runs_client.runs.follow(run.id, thread_id=run.thread_id, timeout=0.3)

    with pytest.raises(RunWaitTimeout) as caught:
        await stream.until_done()

    assert (caught.value.run_id, caught.value.thread_id) == (run.id, run.thread_id)


@pytest.mark.parametrize("place", ["9-1", "1-9999", "nowhere", "é", "x" * 9000])
async def test_whole_run_is_told_where_its_server_does_not_have_the_place(
    runs_server: RunsServer, runs_client: AsyncClient, place: str
) -> None:
    """After a crash of the server, or from a browser that says what it likes: at once, anew."""
    run, events = await ran(runs_server, runs_client)
    asked = len(runs_server.requests)

    async with runs_client.runs.follow(
        run.id, thread_id=run.thread_id, last_event_id=place
    ) as stream:
        followed = [event async for event in stream]

    assert [one.json for one in followed] == [one.json for one in events]
    assert len(runs_server.requests) - asked <= 3
    assert not stream.recovered
