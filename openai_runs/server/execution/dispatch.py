"""When a run is executed, and where: the one seam that calls `execute_run`.

Theory of operation. In one process: a queue in memory, a task for each run under way, and a bound
on how many there are. The queue is only a wake-up: the run's row says whether there is anything to
execute, so a run may be put in twice, or too late. It is filled from the store at a start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import anyio

from openai_runs.server.execution.executor import Execution

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Dispatcher"]


class Dispatcher:
    """Executes queued runs, oldest first, each by one task at a time."""

    def __init__(
        self, execute_run: Callable[[str, Execution], Awaitable[None]], max_concurrent: int
    ) -> None:
        """Start with an empty queue; `execute_run` raises nothing."""
        self._execute_run = execute_run
        self._max_concurrent = max_concurrent
        self._group: TaskGroup | None = None
        self._queue: deque[str] = deque()
        self._running: dict[str, Execution] = {}
        self._ended = anyio.Event()

    @property
    def running(self) -> Mapping[str, Execution]:
        """Return the executions under way, by the id of their run."""
        return self._running

    def start(self, group: TaskGroup) -> None:
        """Execute in this group what is queued, and what is put in from now on."""
        self._group = group
        self._launch()

    def stop(self) -> None:
        """Begin no more executions; those under way go on."""
        self._group = None

    def put(self, run_id: str) -> None:
        """Have the run executed once there is a free slot."""
        self._queue.append(run_id)
        self._launch()

    def put_first(self, run_id: str) -> None:
        """Have the run executed in the next free slot."""
        self._queue.appendleft(run_id)
        self._launch()

    def cancel(self, run_id: str) -> Execution | None:
        """Cancel the execution of the run, if there is one, and return it."""
        execution = self._running.get(run_id)
        if execution is not None:
            execution.scope.cancel()
        return execution

    async def wait_idle(self) -> None:
        """Return once nothing is executed any more, but for what was abandoned.

        Cancellation: the executions go on.
        """
        while not all(execution.abandoned for execution in self._running.values()):
            await self._ended.wait()

    def _launch(self) -> None:
        """Begin the oldest queued runs, as far as there are slots."""
        waiting = 0
        while self._group is not None and len(self._queue) > waiting:
            if len(self._running) >= self._max_concurrent:
                return
            run_id = self._queue.popleft()
            if run_id in self._running:  # its last turn is about to end, and launches it then
                self._queue.append(run_id)
                waiting += 1
                continue
            self._running[run_id] = execution = Execution()
            self._group.start_soon(self._execute, run_id, execution)

    async def _execute(self, run_id: str, execution: Execution) -> None:
        try:
            await self._execute_run(run_id, execution)
        finally:
            del self._running[run_id]
            self._ended.set()
            self._ended = anyio.Event()
            self._launch()
