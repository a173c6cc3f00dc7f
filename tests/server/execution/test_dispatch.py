"""When runs are executed: oldest first, so many at once, and no run twice at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.lowlevel import checkpoint

from openai_runs.server.execution.dispatch import LocalDispatcher
from openai_runs.server.execution.executor import Execution


class Executions:
    """Executions that go on until they are let go."""

    def __init__(self, max_concurrent: int) -> None:
        self.begun: list[str] = []
        self.dispatcher = LocalDispatcher(self._execute_run, max_concurrent)
        self._ends: dict[str, anyio.Event] = {}

    async def _execute_run(self, run_id: str, execution: Execution) -> None:
        self.begun.append(run_id)
        self._ends[run_id] = anyio.Event()
        with execution.scope:
            await self._ends[run_id].wait()

    def end(self, run_id: str) -> None:
        """Let the execution come to its end."""
        self._ends[run_id].set()

    async def begins(self, *run_ids: str) -> None:
        """Return once exactly these have begun, and nothing else is about to."""
        with anyio.fail_after(10):
            while len(self.begun) < len(run_ids):
                await checkpoint()
        for _ in range(5):
            await checkpoint()
        assert self.begun == list(run_ids)


@asynccontextmanager
async def started(max_concurrent: int, *queued: str) -> AsyncIterator[Executions]:
    """Yield executions whose dispatcher was given these runs before its start."""
    executions = Executions(max_concurrent)
    for run_id in queued:
        executions.dispatcher.put(run_id)
    async with anyio.create_task_group() as group:
        executions.dispatcher.start(group)
        yield executions
        group.cancel_scope.cancel()


async def test_oldest_runs_begin_first_and_no_more_than_the_bound() -> None:
    """What was queued before the start takes its turn; each end lets the next one begin."""
    async with started(2, "a", "b", "c") as executions:
        executions.dispatcher.put("d")
        await executions.begins("a", "b")
        executions.end("b")
        await executions.begins("a", "b", "c")
        executions.end("a")
        await executions.begins("a", "b", "c", "d")


async def test_run_that_is_executed_begins_again_only_after_its_end() -> None:
    """A run queued again by its last turn waits for that turn, and holds up no other run."""
    async with started(2, "a") as executions:
        await executions.begins("a")
        executions.dispatcher.put("a")
        executions.dispatcher.put("b")
        await executions.begins("a", "b")
        executions.end("a")
        await executions.begins("a", "b", "a")


async def test_nothing_begins_after_a_stop() -> None:
    """What goes on may end, also by being cancelled, and what is queued stays queued."""
    async with started(1, "a", "b") as executions:
        await executions.begins("a")
        executions.dispatcher.stop()
        assert executions.dispatcher.slots.cancel("a") is not None
        assert executions.dispatcher.slots.cancel("b") is None
        with anyio.fail_after(10):
            await executions.dispatcher.slots.wait_idle()
        executions.dispatcher.put("c")
        await executions.begins("a")


async def test_abandoned_execution_is_not_waited_for() -> None:
    """Idle is also a dispatcher whose only executions do not let themselves be cancelled."""
    async with started(2, "a") as executions:
        await executions.begins("a")
        executions.dispatcher.slots.running["a"].abandoned = True
        with anyio.fail_after(10):
            await executions.dispatcher.slots.wait_idle()
        assert list(executions.dispatcher.slots.running) == ["a"]
