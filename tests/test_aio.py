"""A task knows whether a `CancelledError` means itself, or only what it awaited."""

import asyncio

import anyio
import pytest

from openai_runs._aio import is_cancelled


async def test_task_is_cancelled_when_a_scope_around_it_is() -> None:
    """A cancel scope, as of a timeout, cancels the task that is in it."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            found = is_cancelled()
            raise

    assert found


async def test_task_is_cancelled_when_it_is_asked_to() -> None:
    """`Task.cancel` of asyncio counts as well."""

    async def wait() -> bool:
        try:
            await anyio.sleep(60)
        except asyncio.CancelledError:
            return is_cancelled()
        return False

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()

    assert await task


async def test_task_is_not_cancelled_when_what_it_awaits_is() -> None:
    """The error of a cancelled future is not the cancellation of the task that awaits it."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()

    with pytest.raises(asyncio.CancelledError):
        await future
    assert not is_cancelled()


async def test_code_without_a_task_counts_as_cancelled() -> None:
    """Where there is no task to ask, the error is passed on."""
    found: list[bool] = []
    done = anyio.Event()

    def call() -> None:
        found.append(is_cancelled())
        done.set()

    asyncio.get_running_loop().call_soon(call)
    await done.wait()

    assert found == [True]
