"""When runs are executed where several processes share the database.

Theory of operation. What is queued stands in the database alone. A process that has free slots
claims the oldest queued runs for itself, several in one transaction, whenever something wakes it: a
run that was queued by this process, a job (`store/postgres/jobs.py`), a slot that became free, or a
second that has passed. No run is claimed twice, and none waits while a process has a free slot.

A process that was silent for so long that others take over its runs claims nothing before it has
reported again: they would take over that as well.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from openai_runs.config import MAX_CLAIM, SWEEP_INTERVAL, WORKER_SILENCE
from openai_runs.server.api_errors import OutcomeUnknown, StoreUnavailable
from openai_runs.server.execution.executor import Execution
from openai_runs.server.execution.slots import Slots
from openai_runs.server.objects.transitions import LostRace
from openai_runs.server.store import Claim, Store, claims, shared_claims
from openai_runs.server.store.database import Jobs
from openai_runs.server.store.shared_claims import UnreadableRun

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["SharedDispatcher"]

_logger = logging.getLogger("openai_runs.server")


class SharedDispatcher:
    """Executes queued runs of the database, as far as this process has slots."""

    def __init__(
        self,
        execute_run: Callable[[str, Execution], Awaitable[None]],
        max_concurrent: int,
        store: Store,
        worker: str,
        now: Callable[[], int],
        *,
        fail_run: Callable[[str], Awaitable[None]],
    ) -> None:
        """Keep the settings.

        Args:
            execute_run: Executes a claimed run; raises nothing.
            max_concurrent: How many at the same time.
            store: Where the runs are.
            worker: The name of this process.
            now: Unix seconds.
            fail_run: Ends a run that cannot be claimed; raises nothing.
        """
        self.slots = Slots(execute_run, max_concurrent)
        self._store = store
        self._worker = worker
        self._now = now
        self._fail_run = fail_run
        self.unreadable: set[str] = set()
        """Runs that cannot be claimed, since the database is damaged there."""
        self._group: TaskGroup | None = None
        self._woken = anyio.Event()
        self._is_full = False
        """Whether runs may be queued that had no slot."""
        self._freed = anyio.Event()
        self._waking = anyio.CancelScope()

    def start(self, group: TaskGroup) -> None:
        """Execute in this group what is queued from now on."""
        self._group = group
        group.start_soon(self._serve)
        if self._store.jobs is not None:
            group.start_soon(self._serve_jobs, self._store.jobs)

    def stop(self) -> None:
        """Begin no more executions; those under way go on."""
        self._group = None
        self._freed.set()
        self._waking.cancel()

    def put(self, run_id: str) -> None:
        """Claim queued runs, since one was queued here: whichever are the oldest."""
        self.wake()

    def wake(self) -> None:
        """Claim queued runs, as far as there are slots."""
        self._woken.set()

    def execute(self, claim: Claim) -> bool:
        """Begin to execute a run that this process has claimed; False: it stops."""
        if self._group is None:
            return False
        execution = Execution()
        execution.claim = claim
        self.slots.begin(self._group, claim.run.id, execution, self._free)
        return True

    def _free(self) -> None:
        self._freed.set()
        if self._is_full:
            self._woken.set()

    async def _wake_when_free(self) -> None:
        """Claim queued runs once there is a free slot; until then other processes get the jobs."""
        while self._group is not None and not self.slots.free:
            self._freed = anyio.Event()
            await self._freed.wait()
        self._woken.set()

    async def _serve_jobs(self, jobs: Jobs) -> None:
        with self._waking:  # who stops leaves the jobs to others, which are woken at once
            await jobs.serve(self._wake_when_free)

    async def _serve(self) -> None:
        while True:
            try:
                await self._claim()
            except Exception:
                _logger.exception("queued runs cannot be claimed")
            with anyio.move_on_after(SWEEP_INTERVAL):
                await self._woken.wait()
            self._woken = anyio.Event()

    async def _claim(self) -> None:
        """Claim what is queued, and begin to execute it."""
        while self._group is not None and (free := self.slots.free):
            rows = min(free, MAX_CLAIM)
            # Shielded for the moment of one commit: what was claimed is executed or put back.
            with anyio.CancelScope(shield=True):
                claimed = await self._claim_some(rows)
                for claim in claimed:
                    if not self.execute(claim):
                        await self.put_back(claim)
            if len(claimed) < rows:
                self._is_full = False
                return
        self._is_full = True

    async def _claim_some(self, rows: int) -> list[Claim]:
        try:
            return await self._store.write(
                shared_claims.claim_queued,
                self._worker,
                self._now(),
                rows,
                silence=WORKER_SILENCE,
                without=frozenset(self.unreadable),
            )
        except UnreadableRun as unreadable:
            await self.give_up(unreadable.run_id)
            self.wake()
            return []
        except StoreUnavailable:  # the next claim meets what there is
            return []
        except OutcomeUnknown:  # what was claimed is found by `sweeps`
            return []

    async def give_up(self, run_id: str) -> None:
        """Fail a run that cannot be claimed, and claim it no more."""
        self.unreadable.add(run_id)
        await self._fail_run(run_id)

    async def put_back(self, claim: Claim) -> None:
        """Queue a run again that this process has claimed."""
        try:
            await self._store.write(claims.put_back, claim.run.id, claim.epoch, self._now())
        except LostRace:  # it ended, or is being cancelled
            return
        except (StoreUnavailable, OutcomeUnknown):  # it is found by `sweeps`, of whichever process
            return
