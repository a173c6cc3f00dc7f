"""Watching one run for all who wait for it: what each poll tells, and when to poll again.

A wait ends on a settled status or on its own deadline; faults of the server or the network
in between are borne for `PollPolicy.max_outage` seconds. No task lasts as long as a wait:
those who wait hold a `WaitHandle`, whose future is resolved by the watch.
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable, Hashable, Mapping
from contextvars import copy_context
from sys import intern
from typing import Final

import anyio

from openai_runs._client.arguments import WaitOptions
from openai_runs._client.core.call import Polled
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.core.rate_limiter import Permit
from openai_runs._client.polling.handle import WaitHandle
from openai_runs._client.polling.scheduler import Scheduler
from openai_runs._protocol import retry
from openai_runs._protocol.spec import RequestSpec
from openai_runs._transport import is_cancelled
from openai_runs.config import HOLD_MARGIN, MAX_RETRY_AFTER, MIN_POLL_DELAY, PollPolicy
from openai_runs.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    ConfigError,
    NotFoundError,
    OpenAIRunsError,
    RateLimitError,
)
from openai_runs.types.runs import Run

__all__ = ["RunPoller"]

_MAX_UNSEEN: Final = 3
"""404s borne before the run was ever seen: a replica may lag behind the create."""
_MAX_UNREADABLE: Final = 3
"""Unreadable answers in a row, such as a proxy's HTML page."""
_LAST_LOOK: Final = 0.9
"""Share of the remaining time that passes before the last look, if no whole pause fits."""


class RunPoller:
    """One run that is polled."""

    __slots__ = (
        "_began",
        "_call",
        "_ends",
        "_failure",
        "_failures",
        "_interval",
        "_is_polling",
        "_looked",
        "_looks",
        "_next",
        "_now",
        "_patience",
        "_pipeline",
        "_policy",
        "_scheduler",
        "_scope",
        "_silent_since",
        "_statuses",
        "_unreadable",
        "_unseen",
        "_until",
        "context",
        "demand",
        "due",
        "is_guarded",
        "key",
        "tickets",
    )

    def __init__(
        self,
        pipeline: Pipeline,
        scheduler: Scheduler,
        spec: RequestSpec[Run],
        plan: WaitOptions,
        key: Hashable,
    ) -> None:
        """Poll with `spec` as `plan` says; its time-out is each ticket's own."""
        self.key = key
        self.context = copy_context() if pipeline.depends_on_context else None
        self.due: float | None = None
        self.demand = 0.0
        self.is_guarded = False
        self.tickets: list[WaitHandle] = []
        self._pipeline = pipeline
        self._scheduler = scheduler
        self._call = pipeline.prepare(spec, plan.options)
        self._policy: PollPolicy = plan.policy
        self._interval = plan.interval
        self._until: Callable[[str], bool] = plan.until
        self._patience: float = plan.options.get("request_timeout") or HOLD_MARGIN
        self._now = pipeline.settings.runtime.monotonic
        self._looked = False
        self._statuses: tuple[str, ...] = ()
        self._looks = self._unseen = self._unreadable = self._failures = 0
        self._failure: APIError | None = None
        self._silent_since: float | None = None
        self._is_polling = False
        """Whether a poll is under way, or about to be."""
        self._scope: anyio.CancelScope | None = None
        """What ends the poll that is under way."""
        self._began = self._ends = -math.inf
        """When the last poll was begun, and by when it will have ended."""
        self._next = -math.inf
        """When the next poll is due, but for deadlines that come before."""

    # --- those who wait

    def join(self, ticket: WaitHandle) -> None:
        """Tell `ticket` from now on; it is shown a state no older than itself."""
        if ticket.status is not None:
            self._note(ticket.status)
        ticket.watch = self
        self.tickets.append(ticket)
        if not self._is_polling:
            self._next = self._now()
            self._scheduler.schedule(self, self._next)
        elif self.is_guarded or ticket.deadline < self._ends:
            self._scheduler.schedule(ticket, ticket.deadline)

    def leave(self, ticket: WaitHandle) -> None:
        """Tell `ticket` nothing more; the last one to leave ends the polling."""
        ticket.due = None
        if ticket not in self.tickets:
            return
        self.tickets.remove(ticket)
        if not self.tickets:
            self._scheduler.remove(self.key)
            if self._scope is not None:
                self._scope.cancel()

    def resume(self, ticket: WaitHandle) -> None:
        """Go on, now that `ticket` has told its caller what there was to tell."""
        if ticket not in self.tickets:
            return
        if not self._is_polling:
            self._arrange()
        elif ticket.deadline < self._ends:
            self._scheduler.schedule(ticket, ticket.deadline)

    def close(self) -> None:
        """Tell all that there will be no more polls."""
        error = ConfigError("the client was closed while a run was waited for")
        error.locate(thread_id=self._call.spec.thread_id, run_id=self._call.spec.run_id)
        self._fail(error, math.inf)

    # --- polling

    def ring(self) -> None:
        """Be polled: it is time."""
        self._is_polling = True
        self._scheduler.enqueue(self)

    def wanted_hold(self) -> int | None:
        """Return the seconds to ask for in `Prefer: wait`.

        A first look is held only by a server that is known to do so, where nobody wants to be
        told how the run is now.
        """
        if not self.tickets:
            return None
        if self._failures or any(one.last_look for one in self.tickets):
            return 0
        newcomers = [one for one in self.tickets if not one.seen]
        if newcomers and (
            any(one.plan.on_status for one in newcomers) or not self._pipeline.holds()
        ):
            return 0
        left = min(one.deadline for one in self.tickets) - self._now()
        return max(int(min(self._policy.long_poll, left * _LAST_LOOK)), 0)

    def guard(self) -> None:
        """Keep the deadlines while the poll waits for its turn."""
        self.is_guarded = True
        for ticket in self.tickets:
            if ticket.due is None and not ticket.is_busy:
                self._scheduler.schedule(ticket, ticket.deadline)

    async def look(self, hold: int, turn: Permit) -> None:
        """Poll once and tell the tickets; a poll that nobody waits for any more is cut off."""
        self.is_guarded = False
        if not self.tickets:
            return
        self._call.permit = turn
        try:
            await self._look(hold)
        except Exception as error:  # a mistake of ours ends these waits, and no others
            self._is_polling = False
            self._fail(error, math.inf)

    async def _look(self, hold: int) -> None:
        began = self._began = self._now()
        timeout = self._time_out(began, hold)
        first = any(not one.seen for one in self.tickets)
        failure: Exception | None = None
        polled: Polled | None = None
        try:
            polled = await self._poll(hold, timeout)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            failure = APIConnectionError("the poll awaited something that was cancelled")
        except Exception as error:  # whatever it is, it is told to those who wait
            failure = error
        self._scope = None
        self._is_polling = False
        if not self.tickets:
            return
        if polled is not None:
            self._next = self._now() + self._take(polled, hold, first=first)
        elif isinstance(failure, APIError):
            self._next = self._now() + self._bear(failure, min(self._now(), began + hold))
        elif failure is not None:
            if isinstance(failure, OpenAIRunsError):
                failure.locate(thread_id=self._call.spec.thread_id, run_id=self._call.spec.run_id)
            self._fail(failure, math.inf)
        self._arrange()

    async def _poll(self, hold: int, timeout: float) -> Polled | None:
        """Return what the poll told; None if it was cut off before it was sent."""
        with anyio.CancelScope() as self._scope:
            return await self._pipeline.poll(self._call, hold=hold, timeout=timeout)
        return None

    def _time_out(self, now: float, hold: int) -> float:
        """Return the seconds the poll may take; who has less time is told when it is up."""
        allowed = hold + self._patience
        if self._silent_since is not None:
            outage_left = self._silent_since + self._policy.max_outage - now
            allowed = min(allowed, max(outage_left, 1.0))
        left = max(one.deadline for one in self.tickets) - now
        timeout = max(min(allowed, left), MIN_POLL_DELAY)
        self._ends = now + timeout
        for ticket in self.tickets:
            if ticket.deadline < self._ends and not ticket.is_busy:
                self._scheduler.schedule(ticket, max(ticket.deadline, now))
        return timeout

    def _take(self, polled: Polled, hold: int, *, first: bool) -> float:
        """Tell the tickets what has come, and return the pause to the next poll."""
        run: Run = polled.answer
        news = self._note(run.status)
        self._looked = True
        self._failures = self._unreadable = 0
        self._failure = self._silent_since = None
        is_over = self._until(run.status)
        for ticket in [*self.tickets]:
            if ticket.joined <= self._began or run.is_terminal:
                ticket.take(run, polled.headers, is_over=is_over)
                if is_over:
                    self.leave(ticket)
        if not self.tickets:
            return 0.0
        if any(not one.seen for one in self.tickets):  # they came in the meantime
            return self._scheduler.pace(self, 0.0)
        held = polled.is_held and (news or self._now() - self._began >= hold / 2)
        may_hold = first and self._pipeline.holds() and bool(self.wanted_hold())
        if held or (may_hold and self._scheduler.has_room_to_hold):
            return self._scheduler.pace(self, 0.0)
        return self._pause(polled.headers)

    def _note(self, status: str) -> bool:
        """Return whether the run was never known to have that status."""
        if status in self._statuses:
            return False
        self._statuses += (intern(str(status)),)
        return True

    def _pause(self, headers: Mapping[str, str]) -> float:
        hint = retry.poll_after(headers)
        if hint is not None:
            return self._scheduler.pace(self, hint, hinted=True)
        if self._interval is not None:
            return self._scheduler.pace(self, max(self._interval, MIN_POLL_DELAY))
        self._looks += 1
        return self._scheduler.pace(self, self._growing(self._looks))

    def _growing(self, count: int) -> float:
        return retry.poll_pause(self._policy, count, self._pipeline.settings.runtime.chance())

    # --- faults

    def _bear(self, error: APIError, since: float) -> float:
        """Return the pause after a poll that failed; what is not to be borne ends the waits."""
        self._failures += 1
        self._failure = error
        if isinstance(error, NotFoundError) and not self._looked and self._unseen < _MAX_UNSEEN:
            self._unseen += 1
            return self._growing(self._unseen)
        if not self._is_bearable(error):
            self._fail(error, self._began)
            return 0.0
        if isinstance(error, RateLimitError):
            self._silent_since = None  # it refuses, so it is alive
        elif self._silent_since is None:
            self._silent_since = since
        return self._outlast(error)

    def _is_bearable(self, error: APIError) -> bool:
        if isinstance(error, APIStatusError):
            return retry.is_retryable(error.status_code, error.headers, error.code)
        if isinstance(error, APIResponseValidationError):
            self._unreadable += 1
            return self._unreadable <= _MAX_UNREADABLE
        return isinstance(error, APIConnectionError) and error.retryable

    def _outlast(self, error: APIError) -> float:
        now, limit = self._now(), self._policy.max_outage
        for ticket in [*self.tickets]:
            if ticket.deadline <= now:
                self.expire(ticket)
        silence = 0.0 if self._silent_since is None else now - self._silent_since
        if self._silent_since is not None and silence >= limit:
            outage = APIConnectionError(
                f"no usable answer for {silence:.1f} s; the last failure: {error.message[:200]}",
                thread_id=error.thread_id,
                run_id=error.run_id,
            )
            outage.attempts = self._failures
            outage.__cause__ = error
            self._fail(outage, math.inf)
            return 0.0
        pause = self._growing(self._failures)
        if error.retry_after is not None:
            pause = max(min(error.retry_after, MAX_RETRY_AFTER), pause)
        if self._silent_since is None:  # it said 429: not silent, and asked for its pause
            return pause
        return max(min(pause, limit - silence), MIN_POLL_DELAY)

    def _fail(self, error: Exception, began: float) -> None:
        """End the waits that had begun by then; each gets an error of its own."""
        own = error
        for ticket in [*self.tickets]:
            if ticket.joined <= began:
                ticket.end(own)
                self.leave(ticket)
                if isinstance(error, OpenAIRunsError):
                    own = copy.copy(error)
                    own.__cause__ = error.__cause__

    # --- deadlines

    def expire(self, ticket: WaitHandle) -> None:
        """End the wait of `ticket`: its time is up."""
        ticket.end(ticket.too_late(self._failure))
        self.leave(ticket)

    def _arrange(self) -> None:
        """Have the next poll when it is due, or shortly before the first deadline."""
        now, due = self._now(), math.inf
        for ticket in [*self.tickets]:
            left = ticket.deadline - now
            if ticket.is_busy:
                continue  # it comes back by `resume`
            if left <= 0:
                self.expire(ticket)
            elif ticket.deadline > self._next:
                due = min(due, max(self._next, now))
            elif ticket.last_look:
                self._scheduler.schedule(ticket, ticket.deadline)
            else:
                ticket.last_look = True
                due = min(due, now + left * _LAST_LOOK)
        if due < math.inf:
            self._scheduler.schedule(self, due)
