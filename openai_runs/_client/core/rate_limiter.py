"""The rate limiter of a client and its copies: when the next request may be sent.

Theory of operation. `acquire` returns a `Permit` once a request may be sent; `try_acquire_poll`
does so for polls, without waiting. `on_headers` updates the limits from a reply: `x-ratelimit-*`,
429s, and the runs it created or shows as ended. `state` is `client.limits`. How much may be sent
when is computed in `_protocol.rate_limits`, which is pure.

Ordinary calls wait in queues, first come, first served. Only the first of a queue sleeps,
until its permit is due, and wakes the next. A reply that shortens the delay wakes it early. There
are three queues: creates wait for tokens before they wait with the other calls, and cancels of
runs go before all other calls, since they are sent within a short grace period.

Polls wait in no queue: the scheduler receives a permit, or the seconds until there is one.
Calls go first, since each is awaited by a caller, but where both wait, at least one slot in four
goes to a poll, so that neither starves.

Runs take tokens that are known only when they end. A create is charged with an estimate when
it acquires its permit; the estimate is returned if the create fails, and replaced when a reply
shows that the run has ended.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple, TypeVar

import anyio
import msgspec

from openai_runs._client.settings import Runtime
from openai_runs._printing import Printed
from openai_runs._protocol import retry
from openai_runs._protocol.endpoints import CANCEL_RUN, CREATE_RUN, CREATE_THREAD_AND_RUN
from openai_runs._protocol.rate_limits.adaptive import RateMeter
from openai_runs._protocol.rate_limits.limits import Limits
from openai_runs.config import RateLimits
from openai_runs.errors import APIStatusError, APITimeoutError
from openai_runs.types.http import RateLimit
from openai_runs.types.runs import Run

__all__ = ["NO_PERMIT", "REMAINING_REQUESTS", "LimitState", "Permit", "RateLimiter"]

T = TypeVar("T")

CALLS_PER_POLL: Final = 3
"""Calls sent between two polls when both wait."""
POLL_GRACE: Final = 1.0
"""Seconds a slot stays reserved for a delayed poll."""
REMAINING_REQUESTS: Final = "x-ratelimit-remaining-requests"
_REMAINING_TOKENS: Final = "x-ratelimit-remaining-tokens"
_CREATES: Final = frozenset({CREATE_RUN.operation, CREATE_THREAD_AND_RUN.operation})
"""Operations that cost tokens."""
_MIN_GAIN: Final = 0.001
"""Seconds by which a sleep must have become shorter; below, it is the clock's rounding."""


class LimitState(Printed, msgspec.Struct, frozen=True, kw_only=True):
    """What a client's limiter has done and knows; counted while there is any limit."""

    calls: int
    """Requests sent, retries included, polls not."""
    polls: int
    """Polls sent."""
    waiting: int
    """Calls that wait for a permit now."""
    waited: float
    """Seconds that calls have waited for permits, together."""
    refusals: int
    """Transient 429s."""
    paused: float
    """Seconds for which the last `Retry-After` still pauses all requests."""
    refused_for: float | None = None
    """Seconds since the first of the 429s that hold requests back; None: none does."""
    rate: float | None
    """Requests a second that can be kept up now; None: any number."""
    remaining_requests: int | None
    """What the server still grants, less what was sent since it said so; None: unknown."""
    reset_requests: float | None
    """Seconds until that is whole again."""
    remaining_tokens: int | None
    """What the server still grants, as it said last."""
    reset_tokens: float | None
    """Seconds until that is whole again."""


class Permit(NamedTuple):
    """The permit to send one request."""

    number: int
    """How many requests had been sent with it, itself included; 0: not counted."""
    tokens: float = 0.0
    """The estimate with which the run it creates was charged."""
    is_create: bool = False
    """Whether it creates a run."""


NO_PERMIT: Final = Permit(0)
"""Of a request that was sent while nothing was limited."""


class RateLimiter:
    """Decides when the requests of one client and its copies may be sent."""

    def __init__(self, limits: RateLimits | None = None, runtime: Runtime | None = None) -> None:
        """Start with the caller's own limits; the server's are learnt from its replies."""
        limits, runtime = limits or RateLimits(), runtime or Runtime()
        self._now = runtime.monotonic
        self._rules = Limits(
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
            now=self._now(),
        )
        self.is_active = limits != RateLimits()
        """Whether anything is limited; no permit is needed while it is not."""
        self.on_change: Callable[[], None] = _ignore
        """Called when the delay of the next permit may have changed; set by the scheduler."""
        self._cancels = _Queue(self._rules.delay, runtime)
        self._calls = _Queue(self._call_delay, runtime)
        self._creates = _Queue(self._rules.token_delay, runtime)
        self._calls_sent = self._polls_sent = self._refusals = 0
        self._call_rate = RateMeter()
        self._calls_in_row = 0
        self._poll_wanted_until = 0.0
        self._waited = 0.0
        self._refused_since: float | None = None

    async def acquire(self, operation: str, deadline: float | None) -> Permit:
        """Return the permit for an ordinary call, in the order in which the calls came.

        Args:
            operation: What is sent. Creates of runs also wait for tokens; cancels go first.
            deadline: By the monotonic clock; None: for as long as it takes, which the rate
                bounds, and no pause lasts for more than 120 s.

        Raises:
            APITimeoutError: The permit would come after the deadline; nothing was sent.

        Cancellation: leaves the queue.
        """
        began, tokens = self._now(), 0.0
        try:
            if operation in _CREATES:
                tokens = await self._creates.wait(deadline, self._charge)
            queue = self._cancels if operation == CANCEL_RUN.operation else self._calls
            number = await queue.wait(deadline, self._count_call)
        except _TooLateError as error:
            self._return_tokens(tokens)
            message = (
                f"{operation} was not sent: the rate limiter would delay it by "
                f"{error.delay:.3g} s, past its deadline; see client.limits"
            )
            raise APITimeoutError(message, sent=False) from None
        except BaseException:
            self._return_tokens(tokens)
            raise
        finally:
            self._waited += self._now() - began
        return Permit(number, tokens, operation in _CREATES)

    def try_acquire_poll(self) -> Permit | float:
        """Return the permit for a poll, or the seconds until one may be sent.

        A slot stays reserved for a poll that has to wait: call again when it is due.
        """
        if not self.is_active:
            return NO_PERMIT
        now = self._now()
        calls = len(self._cancels) + len(self._calls)
        ahead = max(0, min(calls, CALLS_PER_POLL - self._calls_in_row))
        delay = self._rules.delay(now, 1 + ahead)
        if delay > 0:
            self._poll_wanted_until = now + delay + POLL_GRACE
            return delay
        self._calls_in_row = 0
        self._poll_wanted_until = 0.0
        self._polls_sent += 1
        return Permit(self._rules.take(now))

    def poll_rate(self) -> float | None:
        """Return the polls a second that can be kept up beside the calls; None: any number."""
        if not self.is_active:
            return None
        now = self._now()
        rate = self._rules.rate(now)
        if rate is None:
            return None
        return max(rate / (1 + CALLS_PER_POLL), rate - self._call_rate.read(now))

    def on_headers(
        self,
        status: int,
        headers: Mapping[str, str],
        permit: Permit = NO_PERMIT,
        *,
        error: APIStatusError | None = None,
        answer: object = None,
    ) -> None:
        """Update the limits from one reply.

        Args:
            status: HTTP status.
            headers: By case-insensitive or lower-case name.
            permit: That of the request.
            error: What the reply was translated to, if it is one. A 429 that is not
                transient, such as a quota's, limits nothing.
            answer: What the reply was decoded to, if it could be.
        """
        now, number = self._now(), permit.number
        if REMAINING_REQUESTS in headers or _REMAINING_TOKENS in headers:
            self._rules.on_headers(RateLimit.from_headers(headers), number, now)
        if status != HTTPStatus.TOO_MANY_REQUESTS:
            self._rules.on_answer(refused=False, asked=None, number=number, now=now)
            if not self._rules.paused(now):  # else it was sent before the pause began
                self._refused_since = None
        elif error is not None and retry.is_retryable(status, error.headers, error.code):
            self._refusals += 1
            if self._refused_since is None:
                self._refused_since = now
            self._rules.on_answer(refused=True, asked=error.retry_after, number=number, now=now)
        if status >= HTTPStatus.BAD_REQUEST:
            self._return_tokens(permit.tokens)
        elif isinstance(answer, Run):
            self.on_run(answer, is_new=permit.is_create, tokens=permit.tokens)
        self._on_change(now)

    def on_run(self, run: Run, *, is_new: bool, tokens: float | None = None) -> None:
        """Record that a run was created, or what it used once it has ended.

        Called by `on_headers`, and for the runs that a stream's events carry.

        Args:
            run: The run.
            is_new: Whether this client has created it just now.
            tokens: The estimate it was charged with; None: the mean of those before it.
        """
        account = self._rules.account
        if account is None:
            return
        if is_new:
            account.began(run.id, tokens)
        if run.is_terminal:
            used = 0 if run.usage is None else run.usage.total_tokens
            account.ended(run.id, used, self._now())
            self._creates.reconsider(self._now())

    def state(self) -> LimitState:
        """Return what was sent, and what is known of the limits by now."""
        rules, now = self._rules, self._now()
        return LimitState(
            calls=self._calls_sent,
            polls=self._polls_sent,
            waiting=len(self._cancels) + len(self._calls) + len(self._creates),
            waited=self._waited,
            refusals=self._refusals,
            paused=rules.paused(now),
            refused_for=None if self._refused_since is None else now - self._refused_since,
            rate=rules.rate(now),
            remaining_requests=rules.requests.remaining(now),
            reset_requests=rules.requests.reset(now),
            remaining_tokens=rules.tokens.remaining(now),
            reset_tokens=rules.tokens.reset(now),
        )

    def close(self) -> None:
        """Release all waiters; what they send fails, since the client is closed."""
        for queue in (self._creates, self._cancels, self._calls):
            queue.open()

    def _call_delay(self, now: float) -> float:
        delay = self._rules.delay(now, 1 + len(self._cancels))
        if self._calls_in_row < CALLS_PER_POLL or now >= self._poll_wanted_until:
            return delay
        # This slot is reserved for a poll: wait for the next one, or until the reservation ends.
        return max(delay, min(self._rules.delay(now, 2), self._poll_wanted_until - now))

    def _count_call(self, now: float) -> int:
        self._calls_in_row += 1
        self._calls_sent += 1
        self._call_rate.count(now)
        return self._rules.take(now)

    def _charge(self, now: float) -> float:
        account = self._rules.account
        return 0.0 if account is None else account.begin(now)

    def _return_tokens(self, tokens: float) -> None:
        account = self._rules.account
        if account is not None and tokens:
            account.undo(tokens, self._now())

    def _on_change(self, now: float) -> None:
        self.is_active = self._rules.is_limiting(now)
        for queue in (self._creates, self._cancels, self._calls):
            queue.reconsider(now)
        self.on_change()


def _ignore() -> None:
    """Stand in for `on_change` while there is no scheduler."""


def _no_delay(now: float) -> float:
    return 0.0


class _TooLateError(Exception):
    """The permit of the first in a queue comes after its deadline."""

    def __init__(self, delay: float) -> None:
        """Keep the seconds until then."""
        super().__init__(delay)
        self.delay = delay


class _Queue:
    """Calls that wait for the same thing, in the order in which they came.

    Only the first sleeps; the others wait for an event, which is set when they become the first.
    """

    def __init__(self, delay: Callable[[float], float], runtime: Runtime) -> None:
        """Wait as long as `delay` says for the first."""
        self._delay = delay
        self._now = runtime.monotonic
        self._sleep = runtime.sleep
        self._events: OrderedDict[anyio.Event, None] = OrderedDict()
        self._sleep_scope: anyio.CancelScope | None = None
        self._sleeps_until = 0.0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._events)

    async def wait(self, deadline: float | None, acquire: Callable[[float], T]) -> T:
        """Return what `acquire` gives once we are the first and the delay is over.

        Raises:
            _TooLateError: It will not be over before the deadline.

        Cancellation: leaves the queue and wakes the next.
        """
        now = self._now()
        delay = self._delay(now)
        if delay <= 0 and not self._events:
            return acquire(now)
        event = anyio.Event()
        self._events[event] = None
        try:
            while True:
                if deadline is not None and now + delay >= deadline:
                    raise _TooLateError(delay)
                if event is self._first():
                    await self._sleep_for(now, delay)
                else:
                    await event.wait()
                now = self._now()
                delay = self._delay(now)
                if delay <= 0:
                    return acquire(now)
        finally:
            was_first = event is self._first()
            del self._events[event]
            if was_first and self._events:
                self._first().set()

    def reconsider(self, now: float) -> None:
        """Wake the first if its delay has become shorter than its sleep."""
        if (
            self._sleep_scope is not None
            and now + self._delay(now) < self._sleeps_until - _MIN_GAIN
        ):
            self._sleep_scope.cancel()

    def open(self) -> None:
        """Release all waiters and stop limiting."""
        self._delay = _no_delay
        if self._sleep_scope is not None:
            self._sleep_scope.cancel()

    async def _sleep_for(self, now: float, delay: float) -> None:
        self._sleeps_until = now + delay
        try:
            with anyio.CancelScope() as self._sleep_scope:
                await self._sleep(delay)
        finally:
            self._sleep_scope = None

    def _first(self) -> anyio.Event:
        return next(iter(self._events))
