"""Polling one run for all waits that share its polls, and when its next poll is due.

Theory of operation. A `RunPoller` holds the handles of all waits that can share its polls. The
scheduler calls `on_due` when a poll is due, and `poll` once there is a permit and a connection
for it; `poll` notifies the handles and schedules the next poll. A wait ends with a status that it
waits for, or at its own deadline; transient failures in between are tolerated for
`PollPolicy.max_outage` seconds. No task lasts as long as a wait. A poller is in one of these
states:

    WAITING   for the time of its next poll, or for callbacks of all its handles
    QUEUED    a poll is due
    BLOCKED   there is no permit or no connection for it: timers keep the handles' deadlines
    POLLING   a request is in progress; handles whose deadline is before its timeout have timers
    CLOSED    no handle is left

When the next poll is due: at once after a server that holds polls has held one, else after the
pause the server hints at, the caller's interval, or a pause that grows (`PollPolicy`); the
scheduler stretches pauses where all pollers together need more polls than are permitted. A handle
whose deadline comes before that gets one more poll shortly before its deadline.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import math
from collections.abc import Callable, Hashable, Mapping
from contextvars import copy_context
from enum import StrEnum
from sys import intern
from typing import TYPE_CHECKING, Final

from openai_runs._aio import is_cancelled
from openai_runs._client.arguments import WaitOptions
from openai_runs._client.core.call import Polled, is_transient
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.core.rate_limiter import Permit
from openai_runs._client.polling.handle import HandleState, WaitHandle
from openai_runs._protocol import retry
from openai_runs._protocol.spec import RequestSpec
from openai_runs.config import HOLD_MARGIN, MAX_RETRY_AFTER, MIN_POLL_DELAY, PollPolicy
from openai_runs.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    ConfigError,
    NotFoundError,
    OpenAIRunsError,
    RateLimitError,
)
from openai_runs.types.runs import Run

if TYPE_CHECKING:
    from openai_runs._client.polling.scheduler import Scheduler

__all__ = ["PollerState", "RunPoller"]


class PollerState(StrEnum):
    """What a poller is doing; see the top of this file."""

    WAITING = "waiting"
    QUEUED = "queued"
    BLOCKED = "blocked"
    POLLING = "polling"
    CLOSED = "closed"


_LOG: Final = logging.getLogger("openai_runs.client")

_MOVES: Final = {
    PollerState.WAITING: frozenset({PollerState.QUEUED, PollerState.CLOSED}),
    PollerState.QUEUED: frozenset({PollerState.BLOCKED, PollerState.POLLING, PollerState.CLOSED}),
    PollerState.BLOCKED: frozenset({PollerState.POLLING, PollerState.CLOSED}),
    PollerState.POLLING: frozenset({PollerState.WAITING, PollerState.CLOSED}),
    PollerState.CLOSED: frozenset[PollerState](),
}
"""From each state, the states that may follow."""

_MAX_NOT_FOUND: Final = 3
"""404s tolerated before the run was ever seen: a replica may lag behind the create."""
_MAX_UNREADABLE: Final = 3
"""Unreadable answers in a row, such as a proxy's HTML page."""
_LAST_POLL: Final = 0.9
"""Share of the remaining time that passes before the last poll, if no whole pause fits."""


class RunPoller:
    """One run that is polled."""

    __slots__ = (
        "_began",
        "_call",
        "_ends",
        "_failure",
        "_failures",
        "_interval",
        "_next",
        "_not_found_left",
        "_now",
        "_outage_since",
        "_pauses",
        "_pipeline",
        "_policy",
        "_request_timeout",
        "_scheduler",
        "_statuses",
        "_unreadable",
        "_until",
        "context",
        "demand",
        "due",
        "handles",
        "key",
        "state",
    )

    def __init__(
        self,
        pipeline: Pipeline,
        scheduler: Scheduler,
        spec: RequestSpec[Run],
        options: WaitOptions,
        key: Hashable,
    ) -> None:
        """Poll with `spec` and `options`, except their timeout, which each handle has."""
        self.key = key
        is_traced = pipeline.settings.tracing is not None
        self.context = copy_context() if is_traced or pipeline.depends_on_context else None
        """The context to poll in; None: any."""
        self.due: float | None = None
        """When the scheduler is to call `on_due`."""
        self.demand = 0.0
        """Polls a second that its own pace needs; set by `Scheduler.pace`."""
        self.state = PollerState.WAITING
        self.handles: list[WaitHandle] = []
        self._pipeline = pipeline
        self._scheduler = scheduler
        self._call = pipeline.prepare(spec, options.options)
        self._policy: PollPolicy = options.policy
        interval = options.interval
        self._interval = None if interval is None else max(interval, MIN_POLL_DELAY)
        self._until: Callable[[str], bool] = options.until
        self._request_timeout: float = options.options.get("request_timeout") or HOLD_MARGIN
        self._now = pipeline.settings.runtime.monotonic
        self._statuses: tuple[str, ...] = ()
        """All statuses that the run was seen in."""
        self._pauses = self._unreadable = self._failures = 0
        self._not_found_left = _MAX_NOT_FOUND
        self._failure: APIError | None = None
        self._outage_since: float | None = None
        self._began = self._ends = -math.inf
        """When the last poll began, and when it times out."""
        self._next = -math.inf
        """When the next poll is due, unless a deadline comes before."""

    def _move(self, state: PollerState) -> None:
        if state not in _MOVES[self.state]:
            msg = f"a poller cannot move from {self.state} to {state}"
            raise AssertionError(msg)
        self.state = state

    # --- called by waits

    def join(self, handle: WaitHandle) -> None:
        """Poll for `handle` too; it receives no answer to a request sent before it joined."""
        if handle.status is not None:
            self._add_status(handle.status)
        handle.poller = self
        self.handles.append(handle)
        if self.state is PollerState.WAITING:
            self._next = self._now()
            self._scheduler.schedule(self, self._next)
        else:
            self._keep_deadline(handle)

    def leave(self, handle: WaitHandle) -> None:
        """Poll for `handle` no longer; the last one to leave ends the polling."""
        handle.due = None
        if handle not in self.handles:
            return
        self.handles.remove(handle)
        if not self.handles:
            is_polling = self.state is PollerState.POLLING
            self._move(PollerState.CLOSED)
            self._scheduler.remove(self)
            if is_polling:
                self._scheduler.cut_off(self)

    def resume(self, handle: WaitHandle) -> None:
        """Go on polling for `handle`, whose callback has returned."""
        if handle not in self.handles:
            return
        if self.state is PollerState.WAITING:
            self._schedule_next(self._now())
        else:
            self._keep_deadline(handle)

    def expire(self, handle: WaitHandle) -> None:
        """End the wait of `handle` at its deadline."""
        handle.time_out(self._failure)
        self.leave(handle)

    def close(self) -> None:
        """End all waits, since the client is closed."""
        error = ConfigError("the client was closed while a run was waited for")
        error.locate(thread_id=self._call.spec.thread_id, run_id=self._call.spec.run_id)
        self._fail(error, math.inf)

    def _keep_deadline(self, handle: WaitHandle) -> None:
        """Schedule the deadline of `handle` if it comes before the next poll has ended."""
        if self.state is PollerState.BLOCKED or handle.deadline < self._ends:
            self._scheduler.schedule(handle, handle.deadline)

    # --- called by the scheduler

    def on_due(self) -> None:
        """Queue for a poll."""
        self._move(PollerState.QUEUED)
        self._scheduler.enqueue(self)

    def block(self) -> None:
        """Keep the deadlines while the poll waits for its permit or its connection."""
        if self.state is not PollerState.QUEUED:
            return
        self._move(PollerState.BLOCKED)
        for handle in self.handles:
            if handle.due is None and handle.state is not HandleState.NOTIFYING:
                self._scheduler.schedule(handle, handle.deadline)

    def next_hold(self) -> int | None:
        """Return the seconds to ask for in `Prefer: wait`; None: no poll is needed.

        The first poll of a handle is held only by a server that is known to do so, and only if
        no callback is to be called with the status there is now.
        """
        if not self.handles:
            return None
        if self._failures:
            return 0
        deadline = math.inf
        for handle in self.handles:
            if handle.state is HandleState.LAST_POLL:
                return 0
            if handle.polled is None and (
                handle.options.on_status is not None or not self._pipeline.holds()
            ):
                return 0
            if handle.deadline < deadline:
                deadline = handle.deadline
        left = (deadline - self._now()) * _LAST_POLL
        return max(int(min(self._policy.long_poll, left)), 0)

    async def poll(self, hold: int, permit: Permit) -> None:
        """Poll once, notify the handles, and schedule the next poll; raises nothing.

        Cancellation: ends the poll, and no wait.
        """
        if self.state is PollerState.CLOSED:
            return
        self._move(PollerState.POLLING)
        polled: Polled | None = None
        failure: Exception | None = None
        try:
            self._call.permit = permit
            timeout = self._timeout(hold)
            try:
                polled = await self._pipeline.poll(self._call, hold=hold, timeout=timeout)
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                failure = APIConnectionError("the poll awaited something that was cancelled")
            except Exception as error:  # the handles get it
                failure = error
            if self.handles:
                self._move(PollerState.WAITING)
                self._end_poll(polled, failure, hold)
        except Exception as error:  # a bug of this package ends these waits, and no others
            self._fail(error, math.inf)

    def _timeout(self, hold: int) -> float:
        """Return the seconds the poll may take; handles with less time get a timer."""
        now = self._began = self._now()
        allowed = hold + self._request_timeout
        if self._outage_since is not None:
            outage_left = self._outage_since + self._policy.max_outage - now
            allowed = min(allowed, max(outage_left, 1.0))
        latest = -math.inf
        for handle in self.handles:
            if handle.deadline > latest:
                latest = handle.deadline
        timeout = max(min(allowed, latest - now), MIN_POLL_DELAY)
        self._ends = now + timeout
        for handle in self.handles:
            if handle.deadline < self._ends and handle.state is not HandleState.NOTIFYING:
                self._scheduler.schedule(handle, max(handle.deadline, now))
        return timeout

    # --- the result of a poll

    def _end_poll(self, polled: Polled | None, failure: Exception | None, hold: int) -> None:
        now = self._now()
        if polled is not None:
            self._next = now + self._receive(polled, hold, now)
        elif isinstance(failure, APIError):
            self._next = now + self._on_failure(failure, now, min(now, self._began + hold))
        elif failure is not None:
            if isinstance(failure, OpenAIRunsError):
                failure.locate(thread_id=self._call.spec.thread_id, run_id=self._call.spec.run_id)
            self._fail(failure, math.inf)
        self._schedule_next(now)

    def _receive(self, polled: Polled, hold: int, now: float) -> float:
        """Notify the handles of the run, and return the pause to the next poll."""
        run: Run = polled.answer
        is_new = run.status not in self._statuses
        if is_new:
            self._add_status(run.status)
        self._failures = self._unreadable = self._not_found_left = 0
        self._failure = self._outage_since = None
        is_awaited = self._until(run.status)
        is_first = has_newcomers = False
        for handle in [*self.handles]:
            if handle.joined <= self._began or run.is_terminal:
                is_first = is_first or handle.polled is None
                handle.receive(run, polled.headers, is_awaited=is_awaited)
                if is_awaited:
                    self.leave(handle)
            else:
                has_newcomers = True
        if not self.handles:
            return 0.0
        if has_newcomers or (polled.is_held and (is_new or now - self._began >= hold / 2)):
            return self._scheduler.pace(self, 0.0)
        if is_first and self._scheduler.may_hold and self._pipeline.holds() and self.next_hold():
            return self._scheduler.pace(self, 0.0)
        return self._pause(polled.headers)

    def _add_status(self, status: str) -> None:
        if status not in self._statuses:
            self._statuses += (intern(str(status)),)

    def _pause(self, headers: Mapping[str, str]) -> float:
        hint = retry.poll_after(headers)
        if hint is not None:
            return self._scheduler.pace(self, hint, hinted=True)
        if self._interval is not None:
            return self._scheduler.pace(self, self._interval)
        self._pauses += 1
        return self._scheduler.pace(self, self._growing_pause(self._pauses))

    def _growing_pause(self, count: int) -> float:
        return retry.poll_pause(self._policy, count, self._pipeline.settings.runtime.chance())

    def _schedule_next(self, now: float) -> None:
        """Schedule the next poll: when it is due, or shortly before the first deadline."""
        due = math.inf
        for handle in [*self.handles]:
            left = handle.deadline - now
            if handle.state is HandleState.NOTIFYING:
                continue  # `resume` schedules it
            if left <= 0:
                self.expire(handle)
            elif handle.deadline > self._next:
                due = min(due, max(self._next, now))
            elif handle.state is HandleState.LAST_POLL:
                self._scheduler.schedule(handle, handle.deadline)
            else:
                handle.state = HandleState.LAST_POLL
                due = min(due, now + left * _LAST_POLL)
        if due < math.inf:
            self._scheduler.schedule(self, due)

    # --- failures

    def _on_failure(self, error: APIError, now: float, since: float) -> float:
        """Return the pause after a failed poll; a failure that is not transient ends the waits."""
        self._failures += 1
        self._failure = error
        if isinstance(error, NotFoundError) and self._not_found_left:
            self._not_found_left -= 1
            return self._growing_pause(_MAX_NOT_FOUND - self._not_found_left)
        if not self._is_transient(error):
            self._fail(error, self._began)
            return 0.0
        if isinstance(error, RateLimitError):
            self._outage_since = None  # a server that answers 429 is up
        elif self._outage_since is None:
            self._outage_since = since
            self._log_outage(error, now)
        return self._tolerate(error, now)

    def _log_outage(self, error: APIError, now: float) -> None:
        """Write once for each outage that it is tolerated, and for how long."""
        what = error.reason if isinstance(error, APIConnectionError) else error.message
        left = max((handle.deadline for handle in self.handles), default=now) - now
        _LOG.info(
            "run %s: %s; reconnecting for up to %.0f s",
            error.run_id,
            what[:200],
            min(self._policy.max_outage, max(left, 0.0)),
            extra={"run_id": error.run_id, "thread_id": error.thread_id, "is_outage": True},
        )

    def _is_transient(self, error: APIError) -> bool:
        if isinstance(error, APIResponseValidationError):
            self._unreadable += 1
            return self._unreadable <= _MAX_UNREADABLE
        return is_transient(error)

    def _tolerate(self, error: APIError, now: float) -> float:
        """Return the pause after a transient failure; a long outage ends the waits."""
        limit = self._policy.max_outage
        for handle in [*self.handles]:
            if handle.deadline <= now:
                self.expire(handle)
        outage = 0.0 if self._outage_since is None else now - self._outage_since
        if self._outage_since is not None and outage >= limit:
            failure = APIConnectionError(
                f"no usable answer for {outage:.1f} s; the last failure: {error.message[:200]}",
                thread_id=error.thread_id,
                run_id=error.run_id,
            )
            failure.attempts, failure.advice = self._failures, error.advice
            failure.__cause__ = error
            self._fail(failure, math.inf)
            return 0.0
        pause = self._growing_pause(self._failures)
        if error.retry_after is not None:
            pause = max(min(error.retry_after, MAX_RETRY_AFTER), pause)
        if self._outage_since is None:  # a 429: no outage, so `max_outage` does not bound the pause
            return pause
        return max(min(pause, limit - outage), MIN_POLL_DELAY)

    def _fail(self, error: Exception, joined_by: float) -> None:
        """End the waits that had joined by then; each gets an error of its own."""
        own = error
        for handle in [*self.handles]:
            if handle.joined <= joined_by:
                handle.end(own)
                self.leave(handle)
                if isinstance(error, OpenAIRunsError):
                    own = copy.copy(error)
                    own.__cause__ = error.__cause__
