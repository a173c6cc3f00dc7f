"""Ways to be cancelled, and what must be left behind: nothing."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

__all__ = ["WAYS", "Way", "nothing_left"]

Way = Callable[[Coroutine[Any, Any, Any], Awaitable[Any]], Awaitable[None]]
"""Runs the call, cancels it once the moment has come, and checks that it was cancelled."""


async def natively(call: Coroutine[Any, Any, Any], moment: Awaitable[Any]) -> None:
    """By `task.cancel()`."""
    task = asyncio.create_task(call)
    await moment
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert task.cancelling() == 1


async def by_scope(call: Coroutine[Any, Any, Any], moment: Awaitable[Any]) -> None:
    """By an anyio scope, as a task group does it."""

    async def strike(scope: anyio.CancelScope) -> None:
        await moment
        scope.cancel()

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(strike, scope)
            await call
        assert scope.cancelled_caught
    _assert_uncancelled()


async def by_timeout(call: Coroutine[Any, Any, Any], moment: Awaitable[Any]) -> None:
    """By asyncio.timeout."""

    async def strike(limit: asyncio.Timeout) -> None:
        await moment
        limit.reschedule(asyncio.get_running_loop().time())

    async def limited() -> None:
        async with asyncio.timeout(None) as limit:
            striking = asyncio.create_task(strike(limit))  # noqa: F841 - keeps the task alive
            await call

    with pytest.raises(TimeoutError):
        await limited()
    _assert_uncancelled()


def _assert_uncancelled() -> None:
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


WAYS: list[Way] = [natively, by_scope, by_timeout]


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """No task is left behind, and nothing unclosed for the garbage collector to complain of."""
    await let_others_run()
    before = asyncio.all_tasks()
    yield
    gc.collect()
    await let_others_run()
    assert asyncio.all_tasks() == before


async def let_others_run() -> None:
    """Let what is about to end do so: a client's root task, a connection just accepted."""
    for _ in range(20):
        await asyncio.sleep(0)
