"""A browser leaves a relayed stream: what becomes of the run, and of the connection."""

from __future__ import annotations

import gc
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient, relay
from tests.client.broadcaster import Broadcaster
from tests.relaying import Paced, paced, started, until_text
from tests.support import HostileServer


@pytest.mark.parametrize("on_disconnect", ["continue", "cancel"])
@pytest.mark.parametrize("how", ["closed", "cancelled", "forgotten"])
async def test_browser_that_leaves_decides_over_the_run_only_where_asked(
    how: str, on_disconnect: Any
) -> None:
    """Closed by the framework, cancelled in mid-wait, or forgotten: the policy holds."""
    model = Paced()
    async with paced(model) as client:
        run = await started(client)
        stream = client.runs.follow(run.id, thread_id=run.thread_id)
        frames = await relay.sse(stream, on_disconnect=on_disconnect)
        await until_text(frames, "Hello ")

        await leave(frames, how)
        del frames

        if on_disconnect == "continue":
            model.go_on.set()
        run = await client.runs.wait(run)

    wanted = {"continue": "completed", "cancel": "cancelled"}
    assert run.status == wanted[on_disconnect]


async def leave(frames: relay.Frames, how: str) -> None:
    """Stop taking frames, as frameworks do."""
    if how == "closed":
        await frames.aclose()
    elif how == "cancelled":
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anext, frames)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()


async def test_forgotten_frames_close_their_connection_at_once() -> None:
    """Not only when cycles are collected next: nothing refers back to them."""
    model = Paced()
    async with paced(model) as client:
        run = await started(client)
        stream = client.runs.follow(run.id, thread_id=run.thread_id)
        frames = await relay.sse(stream)
        gc.disable()
        try:
            del frames
            while await anext(stream, None):
                pass
        finally:
            gc.enable()


@pytest.mark.parametrize("on_cancel", ["leave", "cancel"])
async def test_streams_own_on_cancel_holds_where_the_relay_is_told_nothing(on_cancel: Any) -> None:
    """`on_disconnect` is there to decide otherwise."""
    model = Paced()
    async with paced(model) as client:
        run = await started(client)
        stream = client.runs.follow(run.id, thread_id=run.thread_id, on_cancel=on_cancel)
        async with relay.sse(stream) as frames:
            await until_text(frames, "Hello ")
        model.go_on.set()
        run = await client.runs.wait(run)

    assert run.status == {"leave": "completed", "cancel": "cancelled"}[on_cancel]


async def test_open_stream_is_closed_although_no_frame_was_taken() -> None:
    """Whoever opened it has handed it over."""
    async with HostileServer(Broadcaster()) as server, AsyncClient(server.url) as client:
        stream = await client.runs.create("thread_1", assistant_id="asst_1", stream=True)

        await relay.sse(stream).aclose()

        with pytest.raises(RuntimeError, match="closed before its end"):
            await anext(aiter(stream))


async def test_run_that_has_ended_is_not_cancelled_by_a_browser_that_leaves() -> None:
    """Between the last event and `done` there is nothing left to cancel."""
    async with HostileServer(Broadcaster()) as server, AsyncClient(server.url) as client:
        stream = client.runs.stream("thread_1", assistant_id="asst_1")

        async with relay.sse(stream, on_disconnect="cancel") as frames:
            async for body in frames:
                if b"thread.run.completed" in body:
                    break

    assert [request.method for request in server.requests] == ["POST"]
