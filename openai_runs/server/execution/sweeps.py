"""What processes do for each other where several share the database.

Theory of operation. Each process says every few seconds that it is alive. Runs in progress of one
that was silent for `WORKER_SILENCE` seconds are taken over: claimed, in a new epoch, so that
whoever had them writes nothing any more, be it back. A process that was itself cut off for a while
takes over nothing until it has been well for `_WELL` seconds: until then all others look silent.

A run may kill its process. So each take-over counts, and at `MAX_RUN_ATTEMPTS` the run is failed.
Before that it is taken over once only where no other such run is under way, since of several one
may be guilty. A run that has lived for `TRIAL_TIME` seconds counts from zero again.

Expiry, and the end of runs that are being cancelled, are swept for by each process: both are ended
once, whoever comes first, and none depends on the process that was asked.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import anyio

from openai_runs.config import (
    MAX_RUN_ATTEMPTS,
    SWEEP_INTERVAL,
    TRIAL_TIME,
    WORKER_REPORT_INTERVAL,
    WORKER_SILENCE,
)
from openai_runs.server.api_errors import OutcomeUnknown, StoreUnavailable
from openai_runs.server.execution.executor import retry_unavailable
from openai_runs.server.execution.shared_dispatch import SharedDispatcher
from openai_runs.server.objects.transitions import LostRace
from openai_runs.server.store import Claim, Store, claims, shared_claims
from openai_runs.server.store.shared_claims import Abandoned, UnreadableRun
from openai_runs.types.runs import RunStatus

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Sweeps"]

_WELL: Final = 6.0
"""Seconds that others have to report, once the database is there again: three times what it takes.

Who is killed and whose database is gone as well is taken over after both, and after
`WORKER_SILENCE` at most.
"""
_ROWS: Final = 100
"""Runs of one sweep."""

_logger = logging.getLogger("openai_runs.server")


class Sweeps:
    """The sweeps of one process."""

    def __init__(
        self,
        store: Store,
        worker: str,
        now: Callable[[], int],
        end: Callable[[str, str], Awaitable[None]],
        dispatcher: SharedDispatcher | None,
    ) -> None:
        """Keep the settings.

        Args:
            store: Where the runs are.
            worker: The name of this process.
            now: Unix seconds.
            end: Ends a run, by its id, with a status, if nobody has.
            dispatcher: What executes runs in this process; None: it executes none.
        """
        self._store = store
        self._worker = worker
        self._now = now
        self._end = end
        self._dispatcher = dispatcher
        self._reported_at = -math.inf
        self._well_since = math.inf
        self._cancelling: set[str] = set()
        self._on_trial: set[str] = set()
        self._strays: set[str] = set()

    def start(self, group: TaskGroup) -> None:
        """Sweep in this group."""
        group.start_soon(self._sweep)
        if self._dispatcher is not None:
            group.start_soon(self._report)
            group.start_soon(self._serve, group)

    async def leave(self) -> None:
        """Say that this process executes nothing any more: what it left can be taken over."""
        if self._dispatcher is None:
            return
        try:
            await self._store.write(shared_claims.report_gone, self._worker)
        except (StoreUnavailable, OutcomeUnknown):
            _logger.warning("the database does not hear that this process ends")

    async def _report(self) -> None:
        """Say that this process is alive, whatever else takes long."""
        while True:
            await self._try(self._report_once)
            await anyio.sleep(WORKER_REPORT_INTERVAL)

    async def _serve(self, group: TaskGroup) -> None:
        """Take over what others have left."""
        while True:
            if anyio.current_time() - self._well_since >= _WELL:
                await self._try(lambda: self._take_over(group))
            await anyio.sleep(WORKER_REPORT_INTERVAL)

    async def _report_once(self) -> None:
        begun = anyio.current_time()
        forgotten = 60 * WORKER_SILENCE
        await self._store.write(shared_claims.report_alive, self._worker, forgotten)
        if begun - self._reported_at > 2 * WORKER_REPORT_INTERVAL:
            self._well_since = begun
            if self._dispatcher is not None:  # which claims nothing while this process is silent
                self._dispatcher.wake()
        self._reported_at = begun

    async def _sweep(self) -> None:
        while True:
            await self._try(self._end_overdue)
            await self._try(self._end_cancelling)
            await anyio.sleep(SWEEP_INTERVAL)

    async def _try(self, sweep: Callable[[], Awaitable[None]]) -> None:
        try:
            await sweep()
        except (StoreUnavailable, OutcomeUnknown):  # the next one finds what there is
            return
        except Exception:
            _logger.exception("a sweep failed")

    async def _end_overdue(self) -> None:
        overdue = await self._store.read(shared_claims.find_overdue, self._now(), _ROWS)
        for run_id in overdue:
            await self._end(run_id, RunStatus.EXPIRED)

    async def _end_cancelling(self) -> None:
        """End what is being cancelled since the last sweep: whoever was asked is gone."""
        found = set(await self._store.read(shared_claims.find_cancelling, _ROWS))
        for run_id in found & self._cancelling:
            await self._end(run_id, RunStatus.CANCELLED)
        self._cancelling = found

    async def _take_over(self, group: TaskGroup) -> None:
        dispatcher = self._dispatcher
        if dispatcher is None:
            return
        self._on_trial.intersection_update(dispatcher.slots.running)
        found = await self._store.read(shared_claims.find_abandoned, WORKER_SILENCE, _ROWS)
        found += await self._find_strays(dispatcher)
        for abandoned in found:
            if abandoned.run_id in dispatcher.slots.running or not dispatcher.slots.free:
                continue
            if abandoned.run_id in dispatcher.unreadable:
                continue
            if _is_last(abandoned) and self._on_trial:
                continue
            try:
                await self._take(dispatcher, abandoned, group)
            except UnreadableRun as unreadable:
                await dispatcher.give_up(unreadable.run_id)

    async def _take(
        self, dispatcher: SharedDispatcher, abandoned: Abandoned, group: TaskGroup
    ) -> None:
        run_id = abandoned.run_id
        # Shielded for the moment of one commit: what was claimed is executed or put back.
        with anyio.CancelScope(shield=True):
            claim = await self._store.write(
                shared_claims.take_over, self._worker, run_id, self._now(), WORKER_SILENCE
            )
            if claim is None:
                return
            words = "run %s is taken over: the process that executed it is gone"
            _logger.warning(words, run_id, extra={"run_id": run_id})
            if not dispatcher.execute(claim):
                await dispatcher.put_back(claim)
                return
            if _is_last(abandoned):
                self._on_trial.add(run_id)
            group.start_soon(self._pass, claim)

    async def _find_strays(self, dispatcher: SharedDispatcher) -> list[Abandoned]:
        """Return what this process has claimed, as the database says, and does not execute.

        It was claimed or written in a commit whose answer was lost.
        """
        mine = await self._store.read(shared_claims.find_claimed, self._worker)
        strays = {each.run_id for each in mine} - dispatcher.slots.running.keys()
        again = [each for each in mine if each.run_id in strays & self._strays]
        self._strays = strays
        return again

    async def _pass(self, claim: Claim) -> None:
        """Forget the attempts of a run that this process has survived for long enough."""
        try:
            await anyio.sleep(TRIAL_TIME)
            await retry_unavailable(
                lambda: self._store.write(claims.pass_trial, claim.run.id, claim.epoch)
            )
        except LostRace:
            return
        finally:
            self._on_trial.discard(claim.run.id)


def _is_last(abandoned: Abandoned) -> bool:
    """Return whether the run is failed if its next process goes as well."""
    return abandoned.attempts >= MAX_RUN_ATTEMPTS - 1
