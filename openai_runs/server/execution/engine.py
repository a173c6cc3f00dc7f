"""Which runs are under way: resumed at a start, expired by a timer, ended from outside, drained.

Theory of operation. The engine is notified of every committed change of a status and of nothing
else, so a run queued by a request, by tool outputs or by a restart takes the same way: into
`dispatch`, which says when it is executed. Runs that were at work when the server crashed are put
in by `trials`, one after the other; where several processes share the database, `sweeps` finds what
one of them has left. All of it lives in one event loop: one root task with a
task group inside, and within it the inbox, the timer, and one task for each run that is being
executed. Nothing is kept here that the store could not give back after a crash.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import os
import platform
import secrets
from collections import deque
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Final

import anyio

from openai_runs._log_ids import LogIds
from openai_runs._tracing import ServerTracing
from openai_runs.server.api_errors import OutcomeUnknown, StoreUnavailable
from openai_runs.server.backends.base import Backend
from openai_runs.server.clock import Clock
from openai_runs.server.events.subscribers import Subscribers
from openai_runs.server.execution.dispatch import Dispatcher, LocalDispatcher
from openai_runs.server.execution.executor import Execution, Executor, retry_unavailable
from openai_runs.server.execution.shared_dispatch import SharedDispatcher
from openai_runs.server.execution.slots import Slots
from openai_runs.server.execution.sweeps import Sweeps
from openai_runs.server.execution.trials import Trials
from openai_runs.server.objects.transitions import Ending, LostRace, Writing
from openai_runs.server.store import (
    Change,
    Moved,
    Outdated,
    Removed,
    Store,
    claims,
    runs,
    shared_claims,
)
from openai_runs.types.base import TERMINAL_STATUSES
from openai_runs.types.runs import RunLastError, RunStatus

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Engine"]

_PRUNE_INTERVAL: Final = 3600.0
"""Seconds between two clearings of old idempotency keys and events."""
_STALE: Final = 1000
"""Entries of runs that are over that the timer may hold, beside as many as of active ones."""
_CANCEL_GRACE: Final = 2.0
"""Seconds that a cancelled execution may take to end; a backend may never let it."""

_logger = logging.getLogger("openai_runs.server")


class Engine:
    """Drives the runs of one store."""

    def __init__(
        self,
        store: Store,
        backend: Backend,
        clock: Clock,
        subscribers: Subscribers,
        *,
        max_concurrent_runs: int,
        executes: bool = True,
        tracing: ServerTracing | None = None,
    ) -> None:
        """Prepare; `start` begins the work.

        `executes`: whether runs are executed in this process; it may leave that to others only
        where several share the database.
        """
        self._store = store
        self._clock = clock
        self._executor = Executor(store, backend, clock, subscribers, tracing)
        self._executes = executes
        self._trials: Trials | None = None
        self._sweeps: Sweeps | None = None
        self._dispatcher: Dispatcher
        if store.is_shared:
            worker = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
            execute, fail = self._execute_run, self._fail_unread
            self._dispatcher = dispatcher = SharedDispatcher(
                execute, max_concurrent_runs, store, worker, self._now, fail_run=fail
            )
            self._sweeps = Sweeps(
                store, worker, self._now, self._end, dispatcher if executes else None
            )
        else:
            self._dispatcher = local = LocalDispatcher(self._execute_run, max_concurrent_runs)
            self._trials = Trials(store, local.put_first)
        self._tracing = tracing
        self._timer = _Timer()
        self._draining = False
        self._inbox: deque[Moved | Removed | Outdated] = deque()
        self._received = anyio.Event()
        self._root: asyncio.Task[None] | None = None
        self.failed = 0
        """Runs that failed since the server started."""

    def on_change(self, change: Change) -> None:
        """Receive a committed change; those of a status are acted on."""
        if isinstance(change, Moved | Removed) or (
            isinstance(change, Outdated) and change.elsewhere and self._slots.running
        ):
            self._inbox.append(change)
            self._received.set()

    @property
    def _slots(self) -> Slots:
        return self._dispatcher.slots

    @property
    def alive(self) -> bool:
        """Return whether the root task is at work."""
        return self._root is not None and not self._root.done()

    @property
    def draining(self) -> bool:
        """Return whether no more runs begin."""
        return self._draining

    async def start(self) -> None:
        """Resume what an earlier server left behind, and begin to work."""
        cancelling = await self._resume(self._trials) if self._trials is not None else []
        # The one named root task of the engine; `aclose` awaits it.
        self._root = asyncio.create_task(self._work(cancelling), name="openai_runs.engine")
        self._root.add_done_callback(_report)

    async def _resume(self, trials: Trials) -> list[str]:
        """Find what the server before left behind; return the runs that are being cancelled."""
        left = await self._store.read(runs.unfinished)
        for run in left:
            self._timer.add(run.run_id, run.deadline)
            if run.status == RunStatus.QUEUED and not run.attempts:
                self._dispatcher.put(run.run_id)
        await trials.find_suspects(left)
        return [run.run_id for run in left if run.status == RunStatus.CANCELLING]

    async def drain(self, grace: float) -> None:
        """Begin no more runs; after `grace` seconds put back those still under way."""
        self._draining = True
        self._dispatcher.stop()
        if self._trials is not None:
            await self._trials.stop()
        with anyio.move_on_after(grace):
            await self._slots.wait_idle()
        for execution in self._slots.running.values():
            execution.scope.cancel()
        if self.alive:
            with anyio.move_on_after(_CANCEL_GRACE):
                await self._slots.wait_idle()
            await self._abandon()
        if self._sweeps is not None:
            await self._sweeps.leave()

    async def aclose(self) -> None:
        """Put back what is under way, and end, without what cannot be cancelled.

        Raises:
            Exception: What ended the root task, if anything did.
        """
        root = self._root
        if root is None:
            return
        await self.drain(0)
        root.cancel()
        ended, _ = await asyncio.wait([root], timeout=_CANCEL_GRACE)
        if ended and not root.cancelled():
            root.result()

    async def _abandon(self) -> None:
        """Put back the runs whose execution goes on; what it still writes is refused."""
        for run_id, execution in list(self._slots.running.items()):
            if execution.abandoned:
                continue
            execution.abandoned = True
            if execution.draft is not None:
                execution.draft.discard()
            words = "run %s is given up: its backend does not let itself be cancelled"
            _logger.error(words, run_id, extra=_log_ids(run_id, execution))
            await self._put_back(run_id, execution)

    def _now(self) -> int:
        return int(self._clock.now())

    async def _work(self, cancelling: list[str]) -> None:
        async with anyio.create_task_group() as group:
            for run_id in cancelling:
                group.start_soon(self._end, run_id, RunStatus.CANCELLED)
            group.start_soon(self._prune)
            if self._sweeps is not None:
                self._sweeps.start(group)
            else:
                group.start_soon(self._expire, group)
            if self._executes and not self._draining:
                self._dispatcher.start(group)
                if self._trials is not None:
                    group.start_soon(self._trials.serve)
            while True:
                await self._received.wait()
                self._received = anyio.Event()
                while self._inbox:
                    self._handle(self._inbox.popleft(), group)

    def _handle(self, change: Moved | Removed | Outdated, group: TaskGroup) -> None:
        if isinstance(change, Outdated):
            running = self._slots.running
            for run_id in running if change.run_id is None else [change.run_id]:
                if run_id in running:
                    group.start_soon(self._check_held, run_id, running[run_id])
            return
        if isinstance(change, Removed):
            self._stop(change.run_id)
            return
        if change.status in TERMINAL_STATUSES:
            self._stop(change.id)
            self._log(change)
            return
        if change.expires_at is not None and self._sweeps is None:
            self._timer.add(change.id, change.expires_at)
        if change.status == RunStatus.QUEUED:
            self._dispatcher.put(change.id)
        elif change.status == RunStatus.CANCELLING:
            group.start_soon(self._end, change.id, RunStatus.CANCELLED)

    async def _check_held(self, run_id: str, execution: Execution) -> None:
        """Cancel an execution whose run another process has ended, deleted or taken over."""
        claim = execution.claim
        if claim is None:
            return
        held = await retry_unavailable(
            lambda: self._store.read(shared_claims.is_held, run_id, claim.epoch)
        )
        if not held:
            execution.scope.cancel()

    def _stop(self, run_id: str) -> None:
        """Stop whatever still works on a run that is over."""
        self._timer.discard(run_id)
        execution = self._slots.running.get(run_id)
        # One that stores the end of its run is over in a moment, and to cancel it costs more.
        if execution is not None and not execution.is_ending:
            execution.scope.cancel()
        if self._tracing is not None:
            self._tracing.forget(run_id)

    def _log(self, run: Moved) -> None:
        if run.status == RunStatus.FAILED:
            self.failed += 1
        _logger.info(
            "run %s of thread %s: %s after %d s, %d tokens",
            run.id,
            run.thread_id,
            run.status,
            max(0, self._now() - run.created_at),
            run.total_tokens,
            extra={"run_id": run.id, "thread_id": run.thread_id},
        )

    async def _execute_run(self, run_id: str, execution: Execution) -> None:
        """Execute the run; whatever fails is written down, and stops no other."""
        try:
            with execution.scope, self._trying(run_id, execution):
                await self._executor.execute_run(run_id, execution)
            if execution.scope.cancelled_caught and self._draining:
                await self._put_back(run_id, execution)
        except OutcomeUnknown:
            ids = _log_ids(run_id, execution)
            _logger.warning("run %s is executed again: its database was lost", run_id, extra=ids)
        except Exception:
            # One run that cannot be written as it is must not stop all others, nor hang.
            ids = _log_ids(run_id, execution)
            _logger.exception("run %s cannot be executed", run_id, extra=ids)
            await self._fail(run_id, execution, ids)
        finally:
            if execution.draft is not None:  # cancelled tasks leave cycles, which hold it for long
                execution.draft.release()

    def _trying(self, run_id: str, execution: Execution) -> AbstractContextManager[None]:
        return nullcontext() if self._trials is None else self._trials.trying(run_id, execution)

    async def _fail(self, run_id: str, execution: Execution, ids: LogIds) -> None:
        """End a run with nothing but the fact that it failed, unless another execution has it."""
        error = RunLastError(code="server_error", message="The server had an error.")
        ending = Ending(status=RunStatus.FAILED, error=error)
        epoch = execution.claim.epoch if execution.claim is not None else None
        try:
            await retry_unavailable(
                lambda: self._store.write(
                    claims.end, run_id, ending, self._now(), writings=[], epoch=epoch
                )
            )
        except Exception:
            _logger.exception("run %s cannot be ended: it expires", run_id, extra=ids)

    async def _fail_unread(self, run_id: str) -> None:
        """End a run of which not even a claim can be read."""
        ids: LogIds = {"run_id": run_id}
        _logger.error("run %s cannot be executed: it is damaged", run_id, extra=ids)
        await self._fail(run_id, Execution(), ids)

    async def _put_back(self, run_id: str, execution: Execution) -> None:
        claim = execution.claim
        if claim is None:
            return
        try:
            await self._store.write(claims.put_back, run_id, claim.epoch, self._now())
        except LostRace:  # it ended, or is being cancelled
            return
        except (
            StoreUnavailable,
            OutcomeUnknown,
        ):  # it is executed again as if this one had crashed
            words = "run %s cannot be put back"
            _logger.exception(words, run_id, extra=_log_ids(run_id, execution))
            return
        words = "run %s goes back to the queue: the server stops"
        _logger.info(words, run_id, extra=_log_ids(run_id, execution))

    async def _end(self, run_id: str, status: str) -> None:
        """End a run from outside, with as much as was written of its message."""
        execution = self._slots.cancel(run_id)
        draft = execution.draft if execution is not None else None
        claim = execution.claim if execution is not None else None
        ending = Ending(status=status)
        if draft is not None:
            draft.close()
            ending = Ending(status=status, text=draft.text or None, calls=draft.calls)
        writings: list[Writing] = []

        async def write() -> None:
            # What turns up after the first try is older: a flush that failed has put it back.
            writings[:0] = draft.pop_writings() if draft is not None else []
            await self._store.write(
                claims.end,
                run_id,
                ending,
                self._now(),
                writings=list(writings),
                written_in=claim.epoch if claim is not None else None,
            )

        try:
            await retry_unavailable(write)
        except Exception:
            words = "run %s cannot be ended as %s"
            _logger.exception(words, run_id, status, extra=_log_ids(run_id, execution))

    async def _expire(self, group: TaskGroup) -> None:
        while True:
            for run_id in self._timer.pop_overdue(self._clock.now()):
                group.start_soon(self._end, run_id, RunStatus.EXPIRED)
            with self._timer.sleeping():
                await self._clock.sleep_until(self._timer.next_deadline())

    async def _prune(self) -> None:
        while True:
            with suppress(OutcomeUnknown):  # what was not pruned is pruned the next time
                await retry_unavailable(lambda: self._store.prune(self._now()))
            await anyio.sleep(_PRUNE_INTERVAL)


def _log_ids(run_id: str, execution: Execution | None) -> LogIds:
    """Return the ids that are known: the thread's once the run was claimed."""
    claim = execution.claim if execution is not None else None
    return {"run_id": run_id, **({"thread_id": claim.run.thread_id} if claim is not None else {})}


def _report(root: asyncio.Task[None]) -> None:
    """Log at once that an error ended the engine, and not only when it is closed."""
    if not root.cancelled() and root.exception() is not None:
        _logger.critical("the engine stopped: no run goes on", exc_info=root.exception())


class _Timer:
    """The deadlines of all active runs; the earliest wakes the one task that waits for them."""

    def __init__(self) -> None:
        self._deadlines: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        self._sleep = anyio.CancelScope()

    def sleeping(self) -> anyio.CancelScope:
        """Return the scope to sleep in; it is cancelled when an earlier deadline is added."""
        self._sleep = anyio.CancelScope()
        return self._sleep

    def add(self, run_id: str, deadline: int) -> None:
        """Have the run expire at `deadline`."""
        if run_id not in self._deadlines:
            self._deadlines[run_id] = deadline
            heapq.heappush(self._heap, (deadline, run_id))
            if self._heap[0][1] == run_id:
                self._sleep.cancel()

    def discard(self, run_id: str) -> None:
        """Have the run not expire."""
        self._deadlines.pop(run_id, None)
        # An entry of a run that is over would stay until its deadline: for a day, if runs may last
        # so long.
        if len(self._heap) > _STALE + 2 * len(self._deadlines):
            self._heap = [(deadline, id_) for id_, deadline in self._deadlines.items()]
            heapq.heapify(self._heap)

    def next_deadline(self) -> float:
        """Return when to wake up, in Unix seconds; infinity if nothing can expire."""
        while self._heap and self._heap[0][1] not in self._deadlines:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def pop_overdue(self, now: float) -> list[str]:
        """Remove the runs whose time is up, and return them."""
        due = []
        while self.next_deadline() <= now:
            _, run_id = heapq.heappop(self._heap)
            del self._deadlines[run_id]
            due.append(run_id)
        return due
