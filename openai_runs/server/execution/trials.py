"""After a crash, the runs that were at work are started one after the other.

Theory of operation. A run can kill the server: its backend ends the process, or takes all memory.
The next server would start that run again, and crash again, with all others that are at work. So:

- A clean stop puts back what is at work. A run that a starting server finds in progress was at
  work when the server before it crashed, and is a *suspect*.
- Suspects are started one at a time, each for a *trial*. It is passed once the turn is over, or
  after `TRIAL_TIME` seconds, less if there are many suspects: all of them are at work again after
  `TRIALS_TIME` seconds at the latest, however slow their models are. The run then just goes on.
- New runs, and runs that were queued, begin at once, beside a trial. If one of them crashes the
  server, it is a suspect of the next.
- A crash counts for one run at most: the one that was being tried. `runs.attempts` counts the
  trials in a row in which the server crashed. It is written with the claim that begins a trial, as
  nothing can be written after a crash; what passes a trial, or gets to its tool calls, is at zero
  again. At `MAX_RUN_ATTEMPTS` the run is failed instead of started.
- Who kills the server from outside (an operator, the kernel when others take the memory) hits
  trials as well. So a run that counts is tried first, but only after the server has lived
  for `TRIAL_PAUSE` seconds without any suspect at work. Its count is taken out of the database
  for that time: if the server crashes in the pause, that was something else, and the run is at zero
  again. A clean stop in the pause writes the count back, and one in a trial takes back that trial.

One guilty run thus costs the crash that makes it a suspect, and `MAX_RUN_ATTEMPTS` more, two of
them at most twice as many, since the run that counts is tried before all others. The seconds are
those of the event loop, which no change of the system's clock moves. A run that kills the server
later than its trial lasts is not found before it is tried with fewer others; its expiry ends it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import anyio

from openai_runs.config import MAX_RUN_ATTEMPTS, TRIAL_PAUSE, TRIAL_TIME, TRIALS_TIME
from openai_runs.server.api_errors import StoreUnavailable
from openai_runs.server.execution.executor import Execution, retry_unavailable
from openai_runs.server.store import Store, claims
from openai_runs.server.store.runs import Unfinished
from openai_runs.types.runs import RunStatus

__all__ = ["Trials"]

_logger = logging.getLogger("openai_runs.server")


class _Trial:
    """A suspect, until its trial is over."""

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts
        self.execution: Execution | None = None
        self.begun = anyio.Event()
        self.ended = anyio.Event()

    @property
    def is_repeated(self) -> bool:
        """Return whether the server has crashed in a trial of the run, and may do so again."""
        return 0 < self.attempts < MAX_RUN_ATTEMPTS


class Trials:
    """The trials after one start."""

    def __init__(self, store: Store, begin: Callable[[str], None]) -> None:
        """Start without suspects; `begin` has a run executed in the next free slot."""
        self._store = store
        self._begin = begin
        self._trials: dict[str, _Trial] = {}
        self._stopped = False

    async def find_suspects(self, left: Iterable[Unfinished]) -> None:
        """Find the suspects among what an earlier server left behind, oldest first."""
        suspects = [
            run
            for run in left
            if run.status == RunStatus.IN_PROGRESS
            or (run.status == RunStatus.QUEUED and run.attempts)
        ]
        suspects.sort(key=lambda run: -run.attempts)
        self._trials = {run.run_id: _Trial(run.attempts) for run in suspects}
        if suspects:
            words = "the last server on this file was killed; runs to be started again, alone: %d"
            _logger.warning(words, len(suspects))
        repeated = [run_id for run_id, trial in self._trials.items() if trial.is_repeated]
        if not repeated:
            return
        try:
            await self._store.write(claims.set_attempts, repeated, 0)
        except StoreUnavailable:  # the server starts all the same, and counts what it counted
            _logger.exception("the trials of %d runs cannot be written", len(repeated))

    async def serve(self) -> None:
        """Start one suspect after the other, and return when all are at work or over."""
        longest = min(TRIAL_TIME, TRIALS_TIME / max(1, len(self._trials)))
        if any(trial.is_repeated for trial in self._trials.values()):
            await anyio.sleep(TRIAL_PAUSE)
        for run_id, trial in list(self._trials.items()):
            if self._stopped:
                return
            if trial.attempts:
                _logger.warning(
                    "the server crashed %d times in a row in trials of run %s",
                    trial.attempts,
                    run_id,
                    extra={"run_id": run_id},
                )
            self._begin(run_id)
            await trial.begun.wait()
            with anyio.move_on_after(longest):
                await trial.ended.wait()
            del self._trials[run_id]
            if not trial.ended.is_set():
                await self._pass(run_id, trial)

    async def _pass(self, run_id: str, trial: _Trial) -> None:
        claim = trial.execution.claim if trial.execution is not None else None
        if claim is not None:
            await retry_unavailable(
                lambda: self._store.write(claims.pass_trial, run_id, claim.epoch)
            )

    @contextmanager
    def trying(self, run_id: str, execution: Execution) -> Iterator[None]:
        """Make this execution the trial of the run, if the run is a suspect."""
        trial = self._trials.get(run_id)
        if trial is None or trial.begun.is_set():
            yield
            return
        trial.execution, execution.attempts = execution, trial.attempts
        trial.begun.set()
        try:
            yield
        finally:
            trial.ended.set()

    async def stop(self) -> None:
        """Begin no more trials, and write back what counts for those that have not begun."""
        if self._stopped:
            return
        self._stopped = True
        for run_id, trial in self._trials.items():
            if not trial.is_repeated or trial.begun.is_set():
                continue
            try:
                await self._store.write(claims.set_attempts, [run_id], trial.attempts)
            except StoreUnavailable:
                words = "the trials of run %s cannot be written back"
                _logger.exception(words, run_id, extra={"run_id": run_id})
