"""The executions under way in this process, and how many there may be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from openai_runs.server.execution.executor import Execution

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Slots"]


class Slots:
    """Executes runs, each by one task at a time, and no more than there are slots."""

    def __init__(
        self, execute_run: Callable[[str, Execution], Awaitable[None]], max_concurrent: int
    ) -> None:
        """Start with all slots free; `execute_run` raises nothing."""
        self._execute_run = execute_run
        self._max_concurrent = max_concurrent
        self._ended = anyio.Event()
        self.running: dict[str, Execution] = {}
        """The executions under way, by the id of their run."""

    @property
    def free(self) -> int:
        """Return how many more executions may begin."""
        return max(0, self._max_concurrent - len(self.running))

    def cancel(self, run_id: str) -> Execution | None:
        """Cancel the execution of the run, if there is one, and return it."""
        execution = self.running.get(run_id)
        if execution is not None:
            execution.scope.cancel()
        return execution

    async def wait_idle(self) -> None:
        """Return once nothing is executed any more, but for what was abandoned.

        Cancellation: the executions go on.
        """
        while not all(execution.abandoned for execution in self.running.values()):
            await self._ended.wait()

    def begin(
        self, group: TaskGroup, run_id: str, execution: Execution, on_end: Callable[[], None]
    ) -> None:
        """Execute the run in this group, and call `on_end` afterwards."""
        self.running[run_id] = execution
        group.start_soon(self._execute, run_id, execution, on_end)

    async def _execute(self, run_id: str, execution: Execution, on_end: Callable[[], None]) -> None:
        try:
            await self._execute_run(run_id, execution)
        finally:
            if self.running.get(run_id) is execution:
                del self.running[run_id]
            self._ended.set()
            self._ended = anyio.Event()
            on_end()
