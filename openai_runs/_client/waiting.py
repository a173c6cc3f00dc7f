"""Waiting for a run: when to look again, what to bear, when to stop.

A wait ends on any status outside the active set, on `requires_action`, or on its
deadline, which is measured on a monotonic clock and, where the caller names none, taken
from the run's own expiry by the server's clock. Faults of the server or the network in
between are borne for `PollPolicy.max_outage` seconds.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping
from typing import Final

import anyio
import msgspec

from openai_runs._client.arguments import Reaction, StatusCallback, WaitOptions
from openai_runs._client.pipeline import Pipeline, Polled
from openai_runs._protocol import retry
from openai_runs._protocol.adoption import reveal
from openai_runs._protocol.endpoints import CANCEL_RUN, GET_RUN
from openai_runs._protocol.lifecycle import is_settled
from openai_runs.config import (
    CANCEL_GRACE,
    DEFAULT_RUN_LIFETIME,
    EXPIRY_MARGIN,
    HOLD_MARGIN,
    MAX_POLL_HINT,
    MAX_RETRY_AFTER,
    MIN_POLL_DELAY,
    PollPolicy,
    check_timeout,
)
from openai_runs.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    NotFoundError,
    RateLimitError,
    RunWaitTimeout,
)
from openai_runs.types.runs import Run

__all__ = ["WaitPlan", "Waiter", "plan_of"]

_LOG: Final = logging.getLogger("openai_runs.client")
_MAX_UNSEEN: Final = 3
"""404s borne before the run was ever seen: a replica may lag behind the create."""
_MAX_UNREADABLE: Final = 3
"""Unreadable answers in a row, such as a proxy's HTML page."""
_LAST_LOOK: Final = 0.9
"""Share of the remaining time that passes before the last look, if no whole pause fits."""


class WaitPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How one wait is done."""

    timeout: float | None = None
    """Seconds for the whole wait; None: what the run has left; `math.inf`: for ever."""
    request_timeout: float | None = None
    """Seconds an answer may take beyond what the server was asked to hold it."""
    policy: PollPolicy
    interval: float | None = None
    on_status: StatusCallback | None = None
    on_timeout: Reaction = "leave"
    on_cancel: Reaction = "leave"
    until: Callable[[str], bool] = is_settled

    def __post_init__(self) -> None:
        """Refuse what no wait could be made of."""
        check_timeout("timeout", self.timeout)
        check_timeout("request_timeout", self.request_timeout)
        check_timeout("interval", self.interval)
        for name, value in (("on_timeout", self.on_timeout), ("on_cancel", self.on_cancel)):
            if value not in {"leave", "cancel"}:
                msg = f"{name} must be 'leave' or 'cancel', got {value!r}"
                raise ValueError(msg)


def plan_of(
    default: PollPolicy,
    options: WaitOptions,
    *,
    timeout: float | None = None,
    request_timeout: float | None = None,
) -> WaitPlan:
    """Return the plan these arguments ask for.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of bounds.
    """
    interval = options.get("interval")
    milliseconds = options.get("poll_interval_ms")
    if milliseconds is not None:
        interval = milliseconds / 1000
    poll = options.get("poll") or default
    if not isinstance(poll, PollPolicy):
        msg = f"poll must be a PollPolicy, got {poll!r}"
        raise TypeError(msg)
    return WaitPlan(
        timeout=timeout,
        request_timeout=request_timeout,
        policy=poll,
        interval=interval,
        on_status=options.get("on_status"),
        on_timeout=options.get("on_timeout", "leave"),
        on_cancel=options.get("on_cancel", "leave"),
    )


class Waiter:
    """Waits for runs of one client."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Poll through `pipeline`."""
        self._pipeline = pipeline

    async def wait(self, run: Run | str, *, thread_id: str | None, plan: WaitPlan) -> Run:
        """Return the run once it is settled; see `await_run`."""
        if isinstance(run, Run):
            if run.is_terminal:
                return run
            thread_id, run_id, known = thread_id or run.thread_id, run.id, run
        else:
            if thread_id is None:
                msg = "waiting by run id needs thread_id= as well"
                raise TypeError(msg)
            run_id, known = run, None
        one = _Wait(self._pipeline, thread_id, run_id, known, plan)
        try:
            return await one.finish()
        except anyio.get_cancelled_exc_class():
            if plan.on_cancel == "cancel":
                await self.cancel_quietly(run_id, thread_id)
            raise
        except RunWaitTimeout:
            if plan.on_timeout == "cancel":
                await self.cancel_quietly(run_id, thread_id)
            raise

    async def cancel_quietly(self, run_id: str, thread_id: str) -> None:
        """Ask the server to cancel the run, for at most 5 s, whatever happens around us.

        Cancellation: is held off for those 5 s.
        """
        ids = {"thread_id": thread_id, "run_id": run_id}
        spec = self._pipeline.request(CANCEL_RUN, ids)
        with anyio.move_on_after(CANCEL_GRACE, shield=True) as scope:
            try:
                await self._pipeline.send(spec)
            except APIError as error:
                # Raising would hide why we are here; the run ends by itself at its expiry.
                _LOG.warning("run %s could not be cancelled: %s", run_id, error)
        if scope.cancelled_caught:
            _LOG.warning("run %s was not cancelled within %s s", run_id, CANCEL_GRACE)

    def note_lost(self, thread_id: str | None, error: APIError) -> None:
        """Log that a create could not be taken back; the run ends by itself at its expiry."""
        _LOG.warning("a create on thread %s could not be undone: %s", thread_id, error)


class _Wait:
    """The state of one wait."""

    def __init__(
        self, pipeline: Pipeline, thread_id: str, run_id: str, run: Run | None, plan: WaitPlan
    ) -> None:
        self._pipeline = pipeline
        self._spec = pipeline.request(GET_RUN, {"thread_id": thread_id, "run_id": run_id})
        self._plan = plan
        self._now = pipeline.settings.seams.monotonic
        self._started = self._heard = self._now()
        limit = DEFAULT_RUN_LIFETIME + EXPIRY_MARGIN if plan.timeout is None else plan.timeout
        self._deadline = self._started + limit
        self._run = run
        self._seen = False
        self._status = run.status if run is not None else None
        self._looks = self._unseen = self._unreadable = self._failures = 0
        self._last_look = False

    async def finish(self) -> Run:
        """Look, pause, look again, until the run is settled or the time is up."""
        while True:
            changed, pause = False, 0.0
            hold = self._hold()
            began = self._now()
            try:
                polled = await self._look(hold)
            except APIError as error:
                pause = self._bear(error)
            else:
                run = self._take(polled)
                changed = run.status != self._status
                self._status = run.status
                if changed:
                    await self._report(run)
                if self._plan.until(run.status):
                    return run
                held = polled.held and (changed or self._now() - began >= hold / 2)
                pause = 0.0 if held else self._pause(polled.headers)
            await self._rest(pause)

    async def _look(self, hold: int) -> Polled:
        left = self._deadline - self._now()
        allowed = hold + (self._plan.request_timeout or HOLD_MARGIN)
        if self._failures:
            outage_left = self._heard + self._plan.policy.max_outage - self._now()
            allowed = min(allowed, max(outage_left, 1.0))
        return await self._pipeline.poll(
            self._spec, hold=hold, timeout=max(min(allowed, left), MIN_POLL_DELAY)
        )

    def _hold(self) -> int:
        """Return the seconds to ask for in `Prefer: wait`; the first look is never held."""
        if not self._seen or self._failures or self._last_look:
            return 0
        left = self._deadline - self._now()
        return int(min(self._plan.policy.long_poll, left))

    def _take(self, polled: Polled) -> Run:
        run: Run = reveal(polled.answer)
        self._heard = self._now()
        self._failures = self._unreadable = 0
        if not self._seen and self._plan.timeout is None:
            self._deadline = self._heard + _lifetime_left(run, polled.headers)
        self._seen = True
        self._run = run
        return run

    async def _report(self, run: Run) -> None:
        if self._plan.on_status is not None:
            outcome = self._plan.on_status(run)
            if inspect.isawaitable(outcome):
                await outcome

    def _pause(self, headers: Mapping[str, str]) -> float:
        hint = _hint(headers)
        if hint is not None:
            return hint
        if self._plan.interval is not None:
            return max(self._plan.interval, MIN_POLL_DELAY)
        self._looks += 1
        return self._growing(self._looks)

    def _growing(self, count: int) -> float:
        policy = self._plan.policy
        pause = min(policy.initial * policy.factor ** min(count - 1, 64), policy.maximum)
        jittered = pause * (1 - policy.jitter * self._pipeline.settings.seams.chance())
        return max(jittered, MIN_POLL_DELAY)

    def _bear(self, error: APIError) -> float:
        """Return the pause after a poll that failed, or raise if it is not to be borne."""
        self._failures += 1
        if isinstance(error, NotFoundError) and not self._seen and self._unseen < _MAX_UNSEEN:
            self._unseen += 1
            return self._growing(self._unseen)
        if isinstance(error, APIStatusError):
            if not retry.is_retryable(error.status_code, error.headers, error.code):
                raise error
            if isinstance(error, RateLimitError):
                self._heard = self._now()  # it refuses, so it is alive
        elif isinstance(error, APIResponseValidationError):
            self._unreadable += 1
            if self._unreadable > _MAX_UNREADABLE:
                raise error
        elif not isinstance(error, APIConnectionError) or not error.retryable:
            raise error
        return self._outlast(error)

    def _outlast(self, error: APIError) -> float:
        silence = self._now() - self._heard
        if self._deadline - self._now() <= 0:
            self._give_up(error)
        if silence >= self._plan.policy.max_outage:
            if isinstance(error, APIConnectionError):
                raise error
            outage = APIConnectionError(
                f"no usable answer for {silence:.1f} s; the last was: {error.message[:200]}",
                thread_id=error.thread_id,
                run_id=error.run_id,
            )
            outage.attempts = self._failures
            raise outage from error
        if error.retry_after is not None:
            return max(min(error.retry_after, MAX_RETRY_AFTER), MIN_POLL_DELAY)
        left = self._plan.policy.max_outage - silence
        return max(min(self._growing(self._failures), left), MIN_POLL_DELAY)

    async def _rest(self, pause: float) -> None:
        """Sleep for `pause`, but look once more shortly before the deadline."""
        left = self._deadline - self._now()
        if left <= 0 or (self._last_look and pause >= left):
            if left > 0:
                await self._pipeline.settings.seams.sleep(left)
            self._give_up(None)
        if pause >= left:
            self._last_look = True
            pause = left * _LAST_LOOK
        if pause > 0:
            await self._pipeline.settings.seams.sleep(pause)

    def _give_up(self, cause: APIError | None) -> None:
        waited = self._now() - self._started
        if self._run is not None:
            raise RunWaitTimeout(self._run, waited) from cause
        msg = f"run {self._spec.run_id!r} could not be seen within {waited:.1f} s"
        raise APITimeoutError(
            msg,
            thread_id=self._spec.thread_id,
            run_id=self._spec.run_id,
        ) from cause


def _lifetime_left(run: Run, headers: Mapping[str, str]) -> float:
    """Return the seconds the run has left by the server's own clock, plus a margin."""
    now = retry.server_time(headers) or run.created_at
    if run.expires_at is None or not now:
        return DEFAULT_RUN_LIFETIME + EXPIRY_MARGIN
    return max(0.0, run.expires_at - now) + EXPIRY_MARGIN


def _hint(headers: Mapping[str, str]) -> float | None:
    """Return the server's `openai-poll-after-ms` in seconds, within bounds; None if it is junk."""
    text = headers.get("openai-poll-after-ms")
    if text is None:
        return None
    try:
        seconds = float(text) / 1000
    except ValueError:
        return None
    if math.isnan(seconds) or seconds < 0:
        return None
    return min(max(seconds, MIN_POLL_DELAY), MAX_POLL_HINT)
