"""Tools and what comes in between: cancellation, time-outs, other callers, a lost reply."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest

from openai_runs import AsyncClient, Run, RunResult, RunWaitTimeout, ToolContext, tool
from openai_runs.testing import RunsServer
from tests.client.cancelling import WAYS, Way, nothing_left
from tests.e2e.tooling import answer, answered, run_tools, waiting_run


async def resumed(client: AsyncClient, run: Run, function: Any, **options: Any) -> RunResult:
    """Return the result of the run, resumed."""
    return await client.runs.resume(run.id, thread_id=run.thread_id, tools=[function], **options)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize(("on_cancel", "status"), [("leave", "requires_action"), ("cancel", None)])
async def test_cancellation_in_the_middle_cancels_the_tools(
    runs_server: RunsServer,
    runs_client: AsyncClient,
    way: Way,
    on_cancel: str,
    status: str | None,
) -> None:
    """The tool is cancelled, nothing is sent; the run waits for another, or is cancelled."""
    runs_server.call_tool("work")
    run = await waiting_run(runs_client)
    begun, cancelled = asyncio.Event(), []

    async def work() -> str:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(True)
        return "never"

    async with nothing_left():
        await way(resumed(runs_client, run, work, on_cancel=on_cancel), begun.wait())

    assert cancelled == [True]
    assert answered(runs_server) == []
    left = await runs_client.runs.retrieve(run.id, thread_id=run.thread_id)
    assert left.status == status or (status is None and left.status in {"cancelling", "cancelled"})
    if status is not None:
        await resumed(runs_client, run, tool(lambda: "worked", name="work"))
        assert answer(runs_server) == "worked"


async def test_cancellation_leaves_a_sync_tool_to_its_thread(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """It cannot be stopped; nobody waits for it, and what it returns is dropped."""
    runs_server.call_tool("hang")
    run = await waiting_run(runs_client)
    loop, begun, ended = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    release = threading.Event()

    def hang() -> str:
        loop.call_soon_threadsafe(begun.set)
        release.wait()
        ended.set()
        return "too late"

    task = asyncio.ensure_future(resumed(runs_client, run, hang))
    await begun.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    release.set()

    assert await anyio.to_thread.run_sync(ended.wait, 20)
    assert task.cancelled()
    assert answered(runs_server) == []


@pytest.mark.parametrize("reaction", ["leave", "cancel"])
async def test_time_out_of_the_call_holds_while_tools_run(
    runs_server: RunsServer, runs_client: AsyncClient, reaction: str
) -> None:
    """`timeout` covers the tools as well; the run waits on, or is cancelled."""
    runs_server.call_tool("work")

    async def work() -> None:
        await anyio.sleep_forever()

    with pytest.raises(RunWaitTimeout) as caught:
        await run_tools(runs_client, work, timeout=0.5, on_timeout=reaction)

    error = caught.value
    assert error.run.status == "requires_action"
    assert answered(runs_server) == []
    left = await runs_client.runs.retrieve(error.run.id, thread_id=error.run.thread_id)
    assert left.needs_action == (reaction == "leave")
    assert [
        note.startswith("the server was asked") for note in getattr(error, "__notes__", [])
    ] == ([True] if reaction == "cancel" else [])


async def test_run_cancelled_meanwhile_is_a_result(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """The submit is refused, the run is looked at, and that is its end."""
    runs_server.call_tool("work")

    async def work(context: ToolContext) -> str:
        await runs_client.runs.cancel_and_wait(context.run.id, thread_id=context.thread_id)
        return "for nothing"

    result = await run_tools(runs_client, work)

    assert result.run.status == "cancelled"
    assert len(answered(runs_server)) == 1


LOST: dict[str, Callable[[RunsServer], None]] = {
    "connection": lambda server: server.drop(path="*/submit_tool_outputs", after=True),
    "status": lambda server: server.fault(502, path="*/submit_tool_outputs", after=True),
}


@pytest.mark.parametrize("lose", LOST.values(), ids=LOST)
async def test_lost_reply_to_a_submit_does_no_harm(
    runs_server: RunsServer, runs_client: AsyncClient, lose: Callable[[RunsServer], None]
) -> None:
    """The tool is called once, the output is taken once, and the result is whole."""
    runs_server.call_tool("work")
    runs_server.reply("Done.")
    lose(runs_server)
    calls: list[str] = []

    def work() -> str:
        calls.append("work")
        return "worked"

    result = await run_tools(runs_client, work)

    assert (result.run.status, result.text, calls) == ("completed", "Done.", ["work"])
    keys = {
        one.headers["idempotency-key"] for one in runs_server.seen("POST", "submit_tool_outputs")
    }
    assert len(keys) == 1
