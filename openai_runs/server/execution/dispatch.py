"""When a run is executed, and where: the one seam that calls `execute_run`.

Theory of operation. In one process: a queue in memory, a task for each run under way, and a bound
on how many there are. The queue is only a wake-up: the run's row says whether there is anything to
execute, so a run may be put in twice, or too late. It is filled from the store at a start.

Where several processes share the database, `shared_dispatch` takes the place of this one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from openai_runs.server.execution.executor import Execution
from openai_runs.server.execution.slots import Slots

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Dispatcher", "LocalDispatcher"]


class Dispatcher(Protocol):
    """Says when runs are executed in this process."""

    slots: Slots

    def start(self, group: TaskGroup) -> None:
        """Execute in this group what is queued, and what is queued from now on."""
        ...

    def stop(self) -> None:
        """Begin no more executions; those under way go on."""
        ...

    def put(self, run_id: str) -> None:
        """Have a run executed that was queued here, once there is a free slot."""
        ...


class LocalDispatcher:
    """Executes queued runs, oldest first, each by one task at a time."""

    def __init__(
        self, execute_run: Callable[[str, Execution], Awaitable[None]], max_concurrent: int
    ) -> None:
        """Start with an empty queue; `execute_run` raises nothing."""
        self.slots = Slots(execute_run, max_concurrent)
        self._group: TaskGroup | None = None
        self._queue: deque[str] = deque()

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

    def _launch(self) -> None:
        """Begin the oldest queued runs, as far as there are slots."""
        waiting = 0
        while self._group is not None and len(self._queue) > waiting:
            if not self.slots.free:
                return
            run_id = self._queue.popleft()
            if run_id in self.slots.running:  # its last turn is about to end, and launches it then
                self._queue.append(run_id)
                waiting += 1
                continue
            self.slots.begin(self._group, run_id, Execution(), self._launch)
