"""One wait of one caller: how it is done, and what it is still to be told."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import anyio

from openai_runs._client.arguments import StatusCallback, WaitOptions
from openai_runs._protocol.lifecycle import seconds_to_expiry
from openai_runs.config import CANCEL_GRACE, DEFAULT_RUN_LIFETIME
from openai_runs.errors import APIError, APITimeoutError, RunWaitTimeout
from openai_runs.types.runs import Run

__all__ = ["Inbox", "WaitHandle", "Watching", "tell"]


class Watching(Protocol):
    """What polls for a ticket."""

    def leave(self, ticket: WaitHandle) -> None:
        """Tell it nothing more."""
        ...

    def resume(self, ticket: WaitHandle) -> None:
        """Go on polling for it."""
        ...

    def expire(self, ticket: WaitHandle) -> None:
        """End its wait: its time is up."""
        ...


class Inbox(Protocol):
    """Where many tickets of one caller put themselves when there is something to tell."""

    def put(self, ticket: WaitHandle) -> None:
        """Take a ticket; the same one may be put more than once."""
        ...


class WaitHandle:
    """A place among those who wait for a run."""

    __slots__ = (
        "_future",
        "_now",
        "_started",
        "deadline",
        "due",
        "ids",
        "is_busy",
        "joined",
        "last_look",
        "mailbox",
        "news",
        "outcome",
        "plan",
        "run",
        "seen",
        "status",
        "timed_out",
        "watch",
    )

    def __init__(
        self,
        ids: tuple[str, str],
        known: Run | None,
        plan: WaitOptions,
        now: Callable[[], float],
        mailbox: Inbox | None = None,
    ) -> None:
        """Wait for the run `ids` names, thread first; the clock runs from here."""
        self.ids = ids
        self.plan = plan
        self.run = known
        """The run as it was last seen."""
        self.status = None if known is None else known.status
        self.seen = False
        """Whether a poll has shown it the run."""
        self.joined = self._started = now()
        self.deadline = self.joined + (plan.timeout or DEFAULT_RUN_LIFETIME)
        self.due: float | None = None
        self.last_look = False
        """Whether the next poll is the last one before the deadline."""
        self.outcome: Run | Exception | None = None
        self.news: tuple[Run, ...] = ()
        self.is_busy = False
        """Whether the caller is being told; there is no poll for it meanwhile."""
        self.timed_out = False
        self.mailbox = mailbox
        self.watch: Watching | None = None
        self._now = now
        self._future: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        """Return whether the run was seen finished."""
        return self.seen and self.run is not None and self.run.is_terminal

    # --- what the watch does

    def take(self, run: Run, headers: Mapping[str, str], *, is_over: bool) -> None:
        """Be shown the run; `is_over` says that this is what was waited for."""
        if not self.seen and self.plan.timeout is None:
            self.deadline = self._now() + seconds_to_expiry(run, headers)
            self.due = None
        changed = run.status != self.status
        self.seen, self.run, self.status = True, run, run.status
        if changed and self.plan.on_status is not None:
            self.news += (run,)
            # Who has many waits reads when there is time: that must not hold up the polls.
            self.is_busy = self.mailbox is None
        if is_over:
            self.outcome = run
        if is_over or self.news:
            self._notify()

    def end(self, error: Exception) -> None:
        """Be told that the wait has failed."""
        self.outcome = error
        self._notify()

    def ring(self) -> None:
        """Be told that the time is up."""
        if self.watch is not None and not self.is_busy and self.outcome is None:
            self.watch.expire(self)

    def too_late(self, failure: APIError | None) -> APIError | RunWaitTimeout:
        """Return the error of a wait whose time is up; `failure` is how the last poll failed."""
        self.timed_out = True
        waited = self._now() - self._started
        thread_id, run_id = self.ids
        error: APIError | RunWaitTimeout
        if self.run is not None:
            error = RunWaitTimeout(self.run, waited)
        else:
            msg = f"run {run_id!r} could not be seen within {waited:.1f} s"
            error = APITimeoutError(msg, thread_id=thread_id, run_id=run_id)
        error.__cause__ = failure
        return error

    def _notify(self) -> None:
        if self.mailbox is not None:
            self.mailbox.put(self)
        elif self._future is not None and not self._future.done():
            self._future.set_result(None)

    # --- what the caller does

    async def wait(self) -> Run:
        """Return the run once it is as it was waited for, telling of changes on the way.

        Raises:
            Exception: The wait has failed, or what `on_status` raised.
        """
        while True:
            if self.outcome is None and not self.news:
                self._future = asyncio.get_running_loop().create_future()
                await self._future
            await self.report()
            if self.outcome is not None:
                return self.conclude()

    async def report(self) -> None:
        """Tell the caller of each new status, for no longer than the wait may last."""
        while self.news:
            run, *rest = self.news
            self.news = tuple(rest)
            left = self.deadline - self._now()
            if self.mailbox is not None:
                left = max(left, CANCEL_GRACE)  # it may be read long after it has come
            is_late = not await tell(self.plan.on_status, run, left)
            if is_late and self.outcome is None and not self.plan.until(run.status):
                self.outcome = self.too_late(None)
        if self.is_busy:
            self.is_busy = False
            if self.watch is not None and self.outcome is None:
                self.watch.resume(self)

    def conclude(self) -> Run:
        """Return what was waited for, or raise what came instead."""
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if self.outcome is None:
            msg = f"the wait for run {self.ids[1]!r} is not over"
            raise AssertionError(msg)
        return self.outcome

    def leave(self) -> None:
        """Wait no longer."""
        if self.watch is not None:
            self.watch.leave(self)


async def tell(callback: StatusCallback | None, run: Run, seconds: float) -> bool:
    """Tell `callback` of the run's new status; False if it took longer than `seconds`.

    Cancellation: cancels the callback.
    """
    outcome: Any = None if callback is None else callback(run)
    with anyio.move_on_after(seconds) as scope:
        if inspect.isawaitable(outcome):
            await outcome
    return not scope.cancelled_caught
