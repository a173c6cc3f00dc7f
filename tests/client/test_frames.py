"""Straight ways: few coroutines of ours stand between a call and `ClientSession.request`.

A traceback that a user reads at night has these frames and no others. Counted are the frames
of coroutines on the stack where aiohttp is entered, the public call included.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import aiohttp
import pytest

from openai_runs import AsyncClient, RetryPolicy, await_run
from openai_runs.errors import APIConnectionError


def coroutines() -> list[str]:
    """Return the coroutines of ours that are being run, the outermost first."""
    found: list[str] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if frame.f_code.co_flags & inspect.CO_COROUTINE and module.startswith("openai_runs."):
            found.append(f"{module.removeprefix('openai_runs.')}.{frame.f_code.co_qualname}")
        frame = frame.f_back
    return found[::-1]


async def retrieve(client: AsyncClient) -> None:
    """Ask for a run."""
    await client.runs.retrieve("run_1", thread_id="thread_1")


async def create(client: AsyncClient) -> None:
    """Create a run."""
    await client.runs.create("thread_1", assistant_id="asst_1")


async def stream(client: AsyncClient) -> None:
    """Open the stream of a new run."""
    async with client.runs.stream("thread_1", assistant_id="asst_1"):
        pass


async def wait(client: AsyncClient) -> None:
    """Wait for a run, which is polled."""
    await await_run(client, "run_1", thread_id="thread_1", timeout=0.2)


WAYS: dict[str, tuple[Callable[[AsyncClient], Awaitable[None]], int]] = {
    "retrieve": (retrieve, 4),
    "create-run": (create, 6),
    "opening a stream": (stream, 6),
    "one poll": (wait, 4),
}


@pytest.mark.parametrize(("call", "most"), WAYS.values(), ids=WAYS.keys())
async def test_way_to_the_request_is_straight(
    call: Callable[[AsyncClient], Awaitable[None]], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more coroutines than the design allows stand on the stack when a request is made."""
    ways: list[list[str]] = []

    async def request(*_: Any, **__: Any) -> None:
        ways.append(coroutines())
        raise aiohttp.ServerDisconnectedError

    monkeypatch.setattr(aiohttp.ClientSession, "request", request)
    client = AsyncClient(base_url="http://127.0.0.1:9/v1", retry=RetryPolicy(max_retries=0))
    async with client:
        with pytest.raises((APIConnectionError, TimeoutError)):
            await call(client)

    assert ways
    assert len(ways[0]) <= most, "\n".join(ways[0])
