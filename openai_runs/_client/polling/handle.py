"""One wait of one caller: its deadline, the run as polled last, and the changes to report.

Theory of operation. A `WaitHandle` is shared by two sides. The `RunPoller` calls `receive` with
each run it polls, `end` with an error, and the scheduler calls `on_due` at the deadline; these
methods return at once. The caller awaits `wait`, or reads an `Inbox` in which many handles
report. The handle holds the changes of status that `on_status` has not been called with yet, and
the outcome. It is in one of these states:

    WAITING     polls go on
    LAST_POLL   polls go on; the next one is the last before the deadline
    NOTIFYING   `on_status` is being called; nothing is polled for this handle meanwhile
    ENDED       there is an outcome: the run, or an error
    TIMED_OUT   there is an outcome: the error of a deadline that has passed

    WAITING -> LAST_POLL | NOTIFYING        LAST_POLL -> NOTIFYING        NOTIFYING -> WAITING
    WAITING | LAST_POLL | NOTIFYING -> ENDED | TIMED_OUT
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import anyio

from openai_runs._client.arguments import StatusCallback, WaitOptions
from openai_runs._protocol.lifecycle import seconds_to_expiry
from openai_runs.config import CANCEL_GRACE, DEFAULT_RUN_LIFETIME
from openai_runs.errors import APIError, APITimeoutError, RunWaitTimeout
from openai_runs.types.runs import Run

if TYPE_CHECKING:
    from openai_runs._client.polling.poller import RunPoller

__all__ = ["HandleState", "Inbox", "WaitHandle", "notify_status"]


class HandleState(Enum):
    """The state of a wait; the moves are at the top of this file."""

    WAITING = auto()
    LAST_POLL = auto()
    NOTIFYING = auto()
    ENDED = auto()
    TIMED_OUT = auto()


class WaitHandle:
    """One caller's wait for a run."""

    __slots__ = (
        "_changes",
        "_future",
        "_now",
        "_started",
        "deadline",
        "due",
        "ids",
        "inbox",
        "joined",
        "options",
        "outcome",
        "polled",
        "poller",
        "run",
        "state",
        "status",
    )

    def __init__(
        self,
        ids: tuple[str, str],
        known: Run | None,
        options: WaitOptions,
        now: Callable[[], float],
        inbox: Inbox | None = None,
    ) -> None:
        """Wait for the run of these ids, thread first; the clock runs from here."""
        self.ids = ids
        self.options = options
        self.state = HandleState.WAITING
        self.run = known
        """The run as it was seen last, by a poll or by the caller."""
        self.polled: Run | None = None
        """The run as a poll has shown it last."""
        self.status = None if known is None else known.status
        self.joined = self._started = now()
        self.deadline = self.joined + (options.timeout or DEFAULT_RUN_LIFETIME)
        self.due: float | None = None
        """When the scheduler is to call `on_due`."""
        self.outcome: Run | Exception | None = None
        self.inbox = inbox
        self.poller: RunPoller | None = None
        self._changes: tuple[Run, ...] = ()
        """The run in each new status that `on_status` was not called with yet."""
        self._now = now
        self._future: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<WaitHandle of {self.ids[1]}: {self.state.name.lower()}>"

    @property
    def is_terminal(self) -> bool:
        """Return whether a poll has shown the run finished."""
        return self.polled is not None and self.polled.is_terminal

    # --- called by the poller

    def receive(self, run: Run, headers: Mapping[str, str], *, is_awaited: bool) -> None:
        """Record the run as polled; `is_awaited` says that this ends the wait."""
        if self.polled is None and self.options.timeout is None:
            self.deadline = self._now() + seconds_to_expiry(run, headers)
            self.due = None
        has_changed = run.status != self.status
        self.polled, self.run, self.status = run, run, run.status
        if has_changed and self.options.on_status is not None:
            self._changes += (run,)
            # A reader of an inbox reports later: polls do not wait for its callbacks.
            if self.inbox is None:
                self.state = HandleState.NOTIFYING
        if is_awaited:
            self.outcome, self.state = run, HandleState.ENDED
        if is_awaited or self._changes:
            self._wake()

    def end(self, error: Exception) -> None:
        """End the wait with `error`."""
        self.outcome, self.state = error, HandleState.ENDED
        self._wake()

    def on_due(self) -> None:
        """End the wait at its deadline, unless its callback is being called."""
        if self.poller is not None and self.state in _POLLED:
            self.poller.expire(self)

    def time_out(self, failure: APIError | None) -> None:
        """End the wait at its deadline.

        Args:
            failure: How the last poll failed, if it did; the cause of the error.
        """
        waited = self._now() - self._started
        thread_id, run_id = self.ids
        error: APIError | RunWaitTimeout
        if self.run is not None:
            error = RunWaitTimeout(self.run, waited)
        else:
            msg = f"run {run_id!r} could not be seen within {waited:.1f} s"
            if failure is not None:
                msg = f"{msg}; the last poll failed: {failure.message[:200]}"
            error = APITimeoutError(msg, thread_id=thread_id, run_id=run_id)
            error.advice = "" if failure is None else failure.advice
        error.__cause__ = failure
        self.outcome, self.state = error, HandleState.TIMED_OUT
        self._wake()

    def _wake(self) -> None:
        if self.inbox is not None:
            self.inbox.put(self)
        elif self._future is not None and not self._future.done():
            self._future.set_result(None)

    # --- called by the caller that waits

    async def wait(self) -> Run:
        """Return the run that was waited for, and call `on_status` with each new status.

        Raises:
            Exception: The wait has failed, or what `on_status` raised.
        """
        while True:
            if self.outcome is None and not self._changes:
                self._future = asyncio.get_running_loop().create_future()
                await self._future
            await self.report()
            if self.outcome is not None:
                return self.result()

    async def report(self) -> None:
        """Call `on_status` with each new status, for no longer than the wait may last."""
        while self._changes:
            run, *rest = self._changes
            self._changes = tuple(rest)
            left = self.deadline - self._now()
            if self.inbox is not None:
                left = max(left, CANCEL_GRACE)  # it may be read long after it was put there
            is_late = not await notify_status(self.options.on_status, run, left)
            if is_late and self.outcome is None and not self.options.until(run.status):
                self.time_out(None)
        if self.state is HandleState.NOTIFYING:
            self.state = HandleState.WAITING
            if self.poller is not None:
                self.poller.resume(self)

    def result(self) -> Run:
        """Return the run that was waited for, or raise the error of the wait."""
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if self.outcome is None:
            msg = f"the wait for run {self.ids[1]!r} is not over"
            raise AssertionError(msg)
        return self.outcome

    def leave(self) -> None:
        """Wait no longer."""
        if self.poller is not None:
            self.poller.leave(self)


_POLLED = frozenset({HandleState.WAITING, HandleState.LAST_POLL})
"""States in which a handle is polled for, and ends at its deadline."""


class Inbox:
    """Handles of one caller that have something to report, in the order in which they got it."""

    def __init__(self) -> None:
        self._handles: dict[WaitHandle, None] = {}
        self._filled = anyio.Event()

    def put(self, handle: WaitHandle) -> None:
        """Add a handle; the same one may be put more than once."""
        self._handles[handle] = None
        self._filled.set()

    async def wait(self) -> None:
        """Return once there may be a handle in it."""
        if not self._handles:
            if self._filled.is_set():
                self._filled = anyio.Event()
            await self._filled.wait()

    def wake(self) -> None:
        """Let all who wait check again."""
        self._filled.set()

    def pop(self) -> WaitHandle | None:
        """Return the handle that was put first; None where there is none."""
        handle = next(iter(self._handles), None)
        if handle is not None:
            del self._handles[handle]
        return handle


async def notify_status(callback: StatusCallback | None, run: Run, seconds: float) -> bool:
    """Call `callback` with the run in its new status; False if it took longer than `seconds`.

    Cancellation: cancels the callback.
    """
    outcome: Any = None if callback is None else callback(run)
    with anyio.move_on_after(seconds) as scope:
        if inspect.isawaitable(outcome):
            await outcome
    return not scope.cancelled_caught
