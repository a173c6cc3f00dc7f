"""Waiting for a run: when to look again, what to bear, when to stop.

A wait ends on any status outside the active set, on `requires_action`, or on its
deadline, which is measured on a monotonic clock and, where the caller names none, taken
from the run's own expiry by the server's clock. Faults of the server or the network in
between are borne for `PollPolicy.max_outage` seconds.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, NoReturn

import anyio
import msgspec

from openai_runs._client.arguments import (
    CallOptions,
    Reaction,
    StatusCallback,
    WaitOptions,
    look_options_of,
)
from openai_runs._client.pipeline import Pipeline, Polled, Settle
from openai_runs._protocol import retry
from openai_runs._protocol.adoption import reveal
from openai_runs._protocol.endpoints import CANCEL_RUN, GET_RUN
from openai_runs._protocol.lifecycle import is_settled
from openai_runs.config import (
    DEFAULT_RUN_LIFETIME,
    EXPIRY_MARGIN,
    HOLD_MARGIN,
    MAX_RETRY_AFTER,
    MAX_RUN_LIFETIME,
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
from openai_runs.types.runs import Run, RunStatus

__all__ = ["WaitPlan", "Waiter", "lifetime_left", "look", "plan_of", "stopped", "tell"]

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
    options: CallOptions = {}
    """What each poll takes along: extra headers and query, and `request_timeout`, the seconds
    an answer may take beyond what the server was asked to hold it."""
    policy: PollPolicy
    interval: float | None = None
    on_status: StatusCallback | None = None
    on_timeout: Reaction = "leave"
    on_cancel: Reaction = "leave"
    until: Callable[[str], bool] = is_settled

    def __post_init__(self) -> None:
        """Refuse what no wait could be made of."""
        check_timeout("timeout", self.timeout)
        check_timeout("request_timeout", self.options.get("request_timeout"))
        check_timeout("interval", self.interval)
        for name, value in (("on_timeout", self.on_timeout), ("on_cancel", self.on_cancel)):
            if value not in {"leave", "cancel"}:
                msg = f"{name} must be 'leave' or 'cancel', got {value!r}"
                raise ValueError(msg)
        if self.on_status is not None and not callable(self.on_status):
            msg = f"on_status must be callable, got {self.on_status!r}"
            raise TypeError(msg)


def plan_of(default: PollPolicy, waiting: WaitOptions, options: CallOptions) -> WaitPlan:
    """Return the plan these arguments ask for.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of bounds.
    """
    interval = waiting.get("interval")
    milliseconds = waiting.get("poll_interval_ms")
    if milliseconds is not None:
        interval = milliseconds / 1000
    poll = waiting.get("poll") or default
    if not isinstance(poll, PollPolicy):
        msg = f"poll must be a PollPolicy, got {poll!r}"
        raise TypeError(msg)
    return WaitPlan(
        timeout=options.get("timeout"),
        options=look_options_of(options),
        policy=poll,
        interval=interval,
        on_status=waiting.get("on_status"),
        on_timeout=waiting.get("on_timeout", "leave"),
        on_cancel=waiting.get("on_cancel", "leave"),
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
            if not isinstance(run, str):
                kind = type(run).__name__
                msg = f"run must be a Run or a run id, got {kind}; was an await forgotten?"
                raise TypeError(msg)
            if thread_id is None:
                msg = "waiting by run id needs thread_id= as well"
                raise TypeError(msg)
            run_id, known = run, None
        one = _Wait(self._pipeline, thread_id, run_id, known, plan)
        try:
            return await one.finish()
        except anyio.get_cancelled_exc_class():
            if plan.on_cancel == "cancel" and not one.is_over:
                await self.cancel_quietly(run_id, thread_id, plan.options)
            raise
        except (RunWaitTimeout, APITimeoutError) as error:
            if plan.on_timeout == "cancel" and one.timed_out:
                await self.cancel_quietly(run_id, thread_id, plan.options)
                error.add_note("the server was asked to cancel it (on_timeout='cancel')")
            raise

    async def cancel(self, run_id: str, thread_id: str, options: CallOptions) -> Run:
        """Ask the server to cancel the run; where the reply is lost, look before asking again."""
        ids = {"thread_id": thread_id, "run_id": run_id}
        spec = self._pipeline.request(CANCEL_RUN, ids, options)
        settle = stopped(self._pipeline, ids, options)
        return reveal(await self._pipeline.send(spec, options, settle=settle))

    async def cancel_quietly(self, run_id: str, thread_id: str, options: CallOptions) -> None:
        """Ask the server to cancel the run, for at most 5 s; it expires by itself otherwise.

        Cancellation: is held off for those 5 s.
        """
        asking = partial(self.cancel, run_id, thread_id, look_options_of(options))
        await self.quietly(f"cancelling run {run_id}", asking)

    async def quietly(self, what: str, act: Callable[[], Awaitable[object]]) -> None:
        """Await `act` for at most 5 s, whatever happens around us, and log what goes wrong.

        Cancellation: is held off for those 5 s.
        """
        grace = self._pipeline.settings.seams.cancel_grace
        with anyio.move_on_after(grace, shield=True) as scope:
            try:
                await act()
            except Exception as error:  # raised from here it would hide why we are here
                _LOG.warning("%s failed: %s", what, error)
        if scope.cancelled_caught:
            _LOG.warning("%s took longer than %s s and was given up", what, grace)


async def look(pipeline: Pipeline, ids: Mapping[str, str], options: CallOptions) -> Run:
    """Return the run as it is now."""
    return reveal(await pipeline.send(pipeline.request(GET_RUN, ids, options), options))


def stopped(pipeline: Pipeline, ids: Mapping[str, str], options: CallOptions) -> Settle[Run]:
    """Return what looks whether a cancel in doubt was carried out."""
    looking = look_options_of(options)

    async def settle(failure: APIError) -> Run | None:
        run = await look(pipeline, ids, looking)
        return run if run.status in {RunStatus.CANCELLING, RunStatus.CANCELLED} else None

    return settle


class _Wait:
    """The state of one wait."""

    def __init__(
        self, pipeline: Pipeline, thread_id: str, run_id: str, run: Run | None, plan: WaitPlan
    ) -> None:
        ids = {"thread_id": thread_id, "run_id": run_id}
        self._pipeline = pipeline
        self._spec = pipeline.request(GET_RUN, ids, plan.options)
        self._plan = plan
        self._now = pipeline.settings.seams.monotonic
        self._started = self._now()
        limit = DEFAULT_RUN_LIFETIME if plan.timeout is None else plan.timeout
        self._deadline = self._started + limit
        self._run = run
        self._seen = False
        self._statuses = set() if run is None else {run.status}
        self._looks = self._unseen = self._unreadable = self._failures = 0
        self._failure: APIError | None = None
        self._silent_since: float | None = None
        self._last_look = False
        self.timed_out = False
        self.is_over = False
        """Whether the run was seen finished."""

    async def finish(self) -> Run:
        """Look, pause, look again, until the run is settled or the time is up."""
        while True:
            began, hold, first = self._now(), self._hold(), not self._seen
            try:
                polled = await self._look(hold)
            except APIError as error:
                pause = self._bear(error, since=min(self._now(), began + hold))
            else:
                run, changed, news = self._take(polled)
                if changed:
                    await self._report(run)
                if self._plan.until(run.status):
                    return run
                held = polled.held and (news or self._now() - began >= hold / 2)
                at_once = held or (first and self._hold() > 0 and self._pipeline.holds())
                pause = 0.0 if at_once else self._pause(polled.headers)
            await self._rest(pause)

    async def _report(self, run: Run) -> None:
        """Tell the caller of a new status, for no longer than the wait may last."""
        is_late = not await tell(self._plan.on_status, run, self._deadline - self._now())
        if is_late and not self._plan.until(run.status):
            self._give_up()

    async def _look(self, hold: int) -> Polled:
        now = self._now()
        allowed = hold + (self._plan.options.get("request_timeout") or HOLD_MARGIN)
        if self._silent_since is not None:
            outage_left = self._silent_since + self._plan.policy.max_outage - now
            allowed = min(allowed, max(outage_left, 1.0))
        timeout = max(min(allowed, self._deadline - now), MIN_POLL_DELAY)
        return await self._pipeline.poll(self._spec, self._plan.options, hold=hold, timeout=timeout)

    def _hold(self) -> int:
        """Return the seconds to ask for in `Prefer: wait`; the first look is never held."""
        if not self._seen or self._failures or self._last_look:
            return 0
        left = self._deadline - self._now()
        return int(min(self._plan.policy.long_poll, left * _LAST_LOOK))

    def _take(self, polled: Polled) -> tuple[Run, bool, bool]:
        """Return the run, whether its status changed, and whether it never had that before."""
        run: Run = reveal(polled.answer)
        before = self._run.status if self._run is not None else None
        news = run.status not in self._statuses
        if not self._seen and self._plan.timeout is None:
            self._deadline = self._now() + lifetime_left(run, polled.headers)
        self._run, self._seen, self.is_over = run, True, run.is_terminal
        self._statuses.add(run.status)
        self._failures = self._unreadable = 0
        self._failure = self._silent_since = None
        return run, run.status != before, news

    def _pause(self, headers: Mapping[str, str]) -> float:
        hint = retry.poll_after(headers)
        if hint is not None:
            return hint
        if self._plan.interval is not None:
            return max(self._plan.interval, MIN_POLL_DELAY)
        self._looks += 1
        return self._growing(self._looks)

    def _growing(self, count: int) -> float:
        return retry.poll_pause(self._plan.policy, count, self._pipeline.settings.seams.chance())

    def _bear(self, error: APIError, *, since: float) -> float:
        """Return the pause after a poll that failed, or raise if it is not to be borne."""
        self._failures += 1
        self._failure = error
        if isinstance(error, NotFoundError) and not self._seen and self._unseen < _MAX_UNSEEN:
            self._unseen += 1
            return self._growing(self._unseen)
        if isinstance(error, APIStatusError):
            if not retry.is_retryable(error.status_code, error.headers, error.code):
                raise error
        elif isinstance(error, APIResponseValidationError):
            self._unreadable += 1
            if self._unreadable > _MAX_UNREADABLE:
                raise error
        elif not isinstance(error, APIConnectionError) or not error.retryable:
            raise error
        if isinstance(error, RateLimitError):
            self._silent_since = None  # it refuses, so it is alive
        elif self._silent_since is None:
            self._silent_since = since
        return self._outlast(error)

    def _outlast(self, error: APIError) -> float:
        now, limit = self._now(), self._plan.policy.max_outage
        silence = 0.0 if self._silent_since is None else now - self._silent_since
        if now >= self._deadline:
            self._give_up()
        if self._silent_since is not None and silence >= limit:
            outage = APIConnectionError(
                f"no usable answer for {silence:.1f} s; the last failure: {error.message[:200]}",
                thread_id=error.thread_id,
                run_id=error.run_id,
            )
            outage.attempts = self._failures
            raise outage from error
        pause = self._growing(self._failures)
        if error.retry_after is not None:
            pause = max(min(error.retry_after, MAX_RETRY_AFTER), pause)
        if self._silent_since is None:  # it said 429: not silent, and asked for its pause
            return pause
        return max(min(pause, limit - silence), MIN_POLL_DELAY)

    async def _rest(self, pause: float) -> None:
        """Sleep for `pause`, but look once more shortly before the deadline."""
        left = self._deadline - self._now()
        if left <= 0 or (self._last_look and pause >= left):
            if left > 0:
                await self._pipeline.settings.seams.sleep(left)
            self._give_up()
        if pause >= left:
            self._last_look = True
            pause = left * _LAST_LOOK
        if pause > 0:
            await self._pipeline.settings.seams.sleep(pause)

    def _give_up(self) -> NoReturn:
        self.timed_out = True
        waited = self._now() - self._started
        if self._run is not None:
            raise RunWaitTimeout(self._run, waited) from self._failure
        msg = f"run {self._spec.run_id!r} could not be seen within {waited:.1f} s"
        raise APITimeoutError(
            msg, thread_id=self._spec.thread_id, run_id=self._spec.run_id
        ) from self._failure


async def tell(callback: StatusCallback | None, run: Run, seconds: float) -> bool:
    """Tell `callback` of the run's new status; False if it took longer than `seconds`.

    Cancellation: cancels the callback.
    """
    outcome = None if callback is None else callback(run)
    with anyio.move_on_after(seconds) as scope:
        if inspect.isawaitable(outcome):
            await outcome
    return not scope.cancelled_caught


def lifetime_left(run: Run, headers: Mapping[str, str]) -> float:
    """Return the seconds the run has left by the server's own clock, plus a margin."""
    now = retry.server_time(headers) or run.created_at
    if run.expires_at is None or not now:
        return DEFAULT_RUN_LIFETIME
    left = run.expires_at - now
    if left > MAX_RUN_LIFETIME:  # milliseconds, say: no run lives for years
        return DEFAULT_RUN_LIFETIME
    return max(0.0, left) + EXPIRY_MARGIN
