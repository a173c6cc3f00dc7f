"""The client's root task: what it carries, what it survives, and that it ends."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar

import anyio
import pytest

from openai_runs._client.core.background import BackgroundTasks
from openai_runs.errors import ConfigError
from tests.client.cancelling import nothing_left

_TENANT: ContextVar[str] = ContextVar("_TENANT", default="nobody")


async def test_work_runs_in_the_context_of_its_caller() -> None:
    """Two callers with different context variables: each task sees its own caller's."""
    background = BackgroundTasks()
    seen: list[str] = []

    async def note() -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(_TENANT.get())

    async with nothing_left():
        for tenant in ("a", "b"):
            _TENANT.set(tenant)
            background.start(note, name="note")
        _TENANT.set("c")
        await background.start(note, name="note").wait()
        await background.aclose()

    assert sorted(seen) == ["a", "b", "c"]


async def test_root_task_ends_by_itself_and_begins_anew() -> None:
    """With nothing to carry there is no task; the next task makes one again."""
    background = BackgroundTasks()

    async with nothing_left():
        for _ in range(3):
            await background.start(anyio.lowlevel.checkpoint, name="step").wait()
            await anyio.wait_all_tasks_blocked()
            assert len(asyncio.all_tasks()) == 1


async def test_work_started_by_the_last_one_is_carried_out() -> None:
    """A task that starts another one and ends at once leaves the root task something to do."""
    background = BackgroundTasks()
    done = anyio.Event()

    async def second() -> None:
        done.set()

    async def first() -> None:
        background.start(second, name="second")

    async with nothing_left():
        background.start(first, name="first")
        await done.wait()
        await background.aclose()


async def test_failure_of_one_work_spares_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """What a task raises is logged, raised on close, and ends no other."""
    background = BackgroundTasks()
    done = anyio.Event()

    async def fail() -> None:
        msg = "a mistake"
        raise LookupError(msg)

    async def go_on() -> None:
        await failing.wait()
        done.set()

    async with nothing_left():
        failing = background.start(fail, name="failing")
        background.start(go_on, name="going on")
        await done.wait()
        with caplog.at_level(logging.CRITICAL), pytest.raises(LookupError, match="a mistake"):
            await background.aclose()
        await background.aclose()

    assert "failing failed" in caplog.text


async def test_close_cancels_what_goes_on() -> None:
    """Works that would last for ever end with their client, and nothing begins afterwards."""
    background = BackgroundTasks()
    begun: list[str] = []
    ended: list[str] = []

    async def last() -> None:
        try:
            await anyio.lowlevel.checkpoint()
            begun.append("begun")
            await anyio.sleep_forever()
        finally:
            ended.append("ended")  # also by one that was cancelled before it began

    async with nothing_left():
        works = [background.start(last, name="lasting") for _ in range(2)]
        await anyio.wait_all_tasks_blocked()
        unbegun = background.start(last, name="unbegun")
        unbegun.cancel()
        await background.aclose()
        for work in [*works, unbegun]:
            await work.wait()
        with pytest.raises(ConfigError, match="closed"):
            background.start(last, name="late")

    assert begun == ["begun"] * 2
    assert ended == ["ended"] * 3


def test_start_in_a_second_loop_is_refused_while_the_first_works() -> None:
    """A root task belongs to one event loop; another one gets an error."""
    background = BackgroundTasks()
    first = asyncio.new_event_loop()

    async def begin() -> None:
        background.start(anyio.sleep_forever, name="lasting")

    async def begin_too() -> None:
        with pytest.raises(ConfigError, match="another event loop"):
            background.start(anyio.sleep_forever, name="lasting")

    first.run_until_complete(begin())
    asyncio.run(begin_too())
    first.run_until_complete(background.aclose())
    first.close()
