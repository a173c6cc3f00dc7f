"""The rate limiter of a client: who may send next, and who waits.

Ordinary calls wait in line, first come, first served; only the first in line sleeps, until
the moment its turn comes, and wakes the next. Polls do not stand in line: whoever plans them
asks how long until one may be sent. Calls go first, since somebody waits for each of them,
but where both want to send, at least one slot in four is a poll's, so that neither starves.
Whoever cancels a run goes before all other calls: what undoes something has little time.

How much may be sent is said in `_protocol.limits`; what a reply says is told by the pipeline.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple, TypeVar

import anyio
import msgspec

from openai_runs._client.settings import Runtime
from openai_runs._protocol import retry
from openai_runs._protocol.endpoints import CANCEL_RUN, CREATE_RUN, CREATE_THREAD_AND_RUN
from openai_runs._protocol.rate_limits.adaptive import RateMeter
from openai_runs._protocol.rate_limits.limits import Limits, TokenAccount
from openai_runs.config import RateLimits
from openai_runs.errors import APIStatusError, APITimeoutError
from openai_runs.types.http import RateLimit
from openai_runs.types.runs import Run

__all__ = ["NO_PERMIT", "LimitState", "Permit", "RateLimiter"]

T = TypeVar("T")

CALLS_PER_POLL: Final = 3
"""Calls that may go before a poll that wants to be sent as well."""
POLL_GRACE: Final = 1.0
"""Seconds a slot is kept for a poll that was told of it."""
_REQUESTS: Final = "x-ratelimit-remaining-requests"
_TOKENS: Final = "x-ratelimit-remaining-tokens"
_CREATES: Final = frozenset({CREATE_RUN.operation, CREATE_THREAD_AND_RUN.operation})
"""What costs tokens."""
_WORTH_WAKING: Final = 0.001
"""Seconds by which a nap must have become shorter; below, it is the clock's rounding."""


class LimitState(msgspec.Struct, frozen=True, kw_only=True):
    """What a client's limiter has done and knows; counted while there is any limit."""

    calls: int
    """Requests sent, retries included, polls not."""
    polls: int
    """Polls sent."""
    waiting: int
    """Calls that wait for their turn now."""
    waited: float
    """Seconds that calls have waited for their turns, together."""
    refusals: int
    """429s that said: too many."""
    paused: float
    """Seconds for which the last `Retry-After` still keeps everything back."""
    rate: float | None
    """Requests a second that can be kept up now; None: any number."""
    remaining_requests: int | None
    """What the server still grants, less what was sent since it said so; None: unknown."""
    reset_requests: float | None
    """Seconds until that is whole again."""
    remaining_tokens: int | None
    """What the server still grants, as last told."""
    reset_tokens: float | None
    """Seconds until that is whole again."""


class Permit(NamedTuple):
    """The leave to send one request."""

    ticket: int
    """How many requests had been sent with it."""
    guess: float
    """Tokens that the run it creates was charged with."""


NO_PERMIT: Final = Permit(0, 0.0)
"""Of a request that nobody had to admit."""


class RateLimiter:
    """Decides when the requests of one client and its copies may be sent."""

    def __init__(self, limits: RateLimits | None = None, runtime: Runtime | None = None) -> None:
        """Hold back what the caller's own limits ask for; the server's are learnt."""
        limits, runtime = limits or RateLimits(), runtime or Runtime()
        self._now = runtime.monotonic
        self._sleep = runtime.sleep
        self._rules = Limits(
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
            now=self._now(),
        )
        self.is_active = limits != RateLimits()
        """Whether anything is limited; nobody needs to ask for a turn while it is not."""
        self.counts_tokens = limits.tokens_per_minute is not None
        """Whether it wants to see the runs that were created and those that have ended."""
        self.on_news: Callable[[], None] = _nobody
        """Called when turns may come at other times than was told; for whoever plans polls."""
        self._cancels = _Line(self._rules.delay, runtime)
        self._calls = _Line(self._call_delay, runtime)
        self._creates = _Line(self._rules.token_delay, runtime)
        self._calls_sent = self._polls_sent = self._refusals = 0
        self._call_rate = RateMeter()
        self._calls_in_row = 0
        self._poll_wanted_until = 0.0
        self._waited = 0.0

    async def admit(self, operation: str, deadline: float | None) -> Permit:
        """Return once an ordinary call may be sent, in the order they came; cancels go first.

        Args:
            operation: What is sent. What creates a run also waits for tokens.
            deadline: By the monotonic clock; None: for as long as it takes, which the rate
                bounds, and no pause lasts for more than 120 s.

        Raises:
            APITimeoutError: Its turn comes after the deadline; nothing was sent.

        Cancellation: gives the place in line up.
        """
        began, guess = self._now(), 0.0
        try:
            if operation in _CREATES:
                guess = await self._creates.stand(deadline, self._charge)
            line = self._cancels if operation == CANCEL_RUN.operation else self._calls
            ticket = await line.stand(deadline, self._take_call)
        except _TooLateError as error:
            self._give_back(guess)
            message = (
                f"{operation} would have to wait {error.delay:.3g} s for its turn, "
                "past its deadline (client.limits tells why)"
            )
            raise APITimeoutError(message, sent=False) from None
        except BaseException:
            self._give_back(guess)
            raise
        finally:
            self._waited += self._now() - began
        return Permit(ticket, guess)

    def poll_delay(self, now: float) -> float:
        """Return the seconds until a poll may be sent; 0: now, and `take` must follow.

        A poll that is told to wait has the slot kept for it: ask again when it is due.
        """
        calls = len(self._cancels) + len(self._calls)
        ahead = max(0, min(calls, CALLS_PER_POLL - self._calls_in_row))
        delay = self._rules.delay(now, 1 + ahead)
        if delay > 0:
            self._poll_wanted_until = now + delay + POLL_GRACE
        return delay

    def take(self, now: float) -> Permit:
        """Count a poll as sent, and return the leave to send it."""
        self._calls_in_row = 0
        self._poll_wanted_until = 0.0
        self._polls_sent += 1
        return Permit(self._rules.take(now), 0.0)

    def poll_rate(self, now: float) -> float | None:
        """Return the polls a second that can be kept up beside the calls; None: any number."""
        rate = self._rules.rate(now)
        if rate is None:
            return None
        return max(rate / (1 + CALLS_PER_POLL), rate - self._call_rate.read(now))

    def learn(self, status: int, headers: Mapping[str, str], turn: Permit) -> None:
        """Take note of a reply; of a 429 its headers only, the rest is for `refused`."""
        now = self._now()
        if _REQUESTS in headers or _TOKENS in headers:
            self._rules.told(RateLimit.from_headers(headers), turn.ticket, now)
        if status != HTTPStatus.TOO_MANY_REQUESTS:
            self._rules.answered(refused=False, asked=None, ticket=turn.ticket, now=now)
        if status >= HTTPStatus.BAD_REQUEST:
            self._give_back(turn.guess)
        self._reconsider(now)

    def refused(self, error: APIStatusError, turn: Permit) -> None:
        """Take note of a 429; one that time does not heal, such as a quota's, is none."""
        if not retry.is_retryable(error.status_code, error.headers, error.code):
            return
        now = self._now()
        self._refusals += 1
        self._rules.answered(refused=True, asked=error.retry_after, ticket=turn.ticket, now=now)
        self._reconsider(now)

    def saw(self, run: object, operation: str, turn: Permit) -> None:
        """Take note of a run: that this client created it, or what it used once it has ended."""
        account = self._rules.account
        if account is None or not isinstance(run, Run):
            return
        if operation in _CREATES:
            account.began(run.id, turn.guess)
        self._settle(account, run)

    def streamed(self, run: Run, *, is_new: bool) -> None:
        """Take note of a run that a stream tells of; `is_new`: the stream's request made it."""
        account = self._rules.account
        if account is not None:
            if is_new:
                account.began(run.id)
            self._settle(account, run)

    def state(self) -> LimitState:
        """Return what it has done and knows by now."""
        rules, now = self._rules, self._now()
        return LimitState(
            calls=self._calls_sent,
            polls=self._polls_sent,
            waiting=len(self._cancels) + len(self._calls) + len(self._creates),
            waited=self._waited,
            refusals=self._refusals,
            paused=rules.paused(now),
            rate=rules.rate(now),
            remaining_requests=rules.requests.remaining(now),
            reset_requests=rules.requests.reset(now),
            remaining_tokens=rules.tokens.remaining(now),
            reset_tokens=rules.tokens.reset(now),
        )

    def close(self) -> None:
        """Let everybody go: a closed client tells them so, and there is nothing to wait for."""
        for line in (self._creates, self._cancels, self._calls):
            line.open()

    def _settle(self, account: TokenAccount, run: Run) -> None:
        if run.is_terminal:
            used = 0 if run.usage is None else run.usage.total_tokens
            account.ended(run.id, used, self._now())
            self._creates.reconsider(self._now())

    def _call_delay(self, now: float) -> float:
        delay = self._rules.delay(now, 1 + len(self._cancels))
        if self._calls_in_row < CALLS_PER_POLL or now >= self._poll_wanted_until:
            return delay
        # This slot is a poll's: the next one, or this one if the poll does not come for it.
        return max(delay, min(self._rules.delay(now, 2), self._poll_wanted_until - now))

    def _take_call(self, now: float) -> int:
        self._calls_in_row += 1
        self._calls_sent += 1
        self._call_rate.count(now)
        return self._rules.take(now)

    def _charge(self, now: float) -> float:
        account = self._rules.account
        return 0.0 if account is None else account.begin(now)

    def _give_back(self, guess: float) -> None:
        account = self._rules.account
        if account is not None and guess:
            account.undo(guess, self._now())

    def _reconsider(self, now: float) -> None:
        self.is_active = self._rules.is_limiting(now)
        for line in (self._creates, self._cancels, self._calls):
            line.reconsider(now)
        self.on_news()


def _nobody() -> None:
    """Be told of news where nobody plans anything."""


def _nothing(now: float) -> float:
    return 0.0


class _TooLateError(Exception):
    """The turn of the first in line comes after its deadline."""

    def __init__(self, delay: float) -> None:
        """Keep the seconds until then."""
        super().__init__(delay)
        self.delay = delay


class _Line:
    """Those who wait for the same thing, in the order they came; only the first sleeps."""

    def __init__(self, delay: Callable[[float], float], runtime: Runtime) -> None:
        """Ask `delay` how long the first has to wait."""
        self._delay = delay
        self._now = runtime.monotonic
        self._sleep = runtime.sleep
        self._places: OrderedDict[anyio.Event, None] = OrderedDict()
        self._nap: anyio.CancelScope | None = None
        self._nap_until = 0.0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._places)

    async def stand(self, deadline: float | None, take: Callable[[float], T]) -> T:
        """Return what `take` gives once the delay is over for the first in line, which we are.

        Raises:
            _TooLateError: It will not be over before the deadline.

        Cancellation: lets the next one come forward.
        """
        now = self._now()
        delay = self._delay(now)
        if delay <= 0 and not self._places:
            return take(now)
        place = anyio.Event()
        self._places[place] = None
        try:
            while True:
                if deadline is not None and now + delay >= deadline:
                    raise _TooLateError(delay)
                if place is self._first():
                    await self._rest(now, delay)
                else:
                    await place.wait()
                now = self._now()
                delay = self._delay(now)
                if delay <= 0:
                    return take(now)
        finally:
            was_first = place is self._first()
            del self._places[place]
            if was_first and self._places:
                self._first().set()

    def reconsider(self, now: float) -> None:
        """Wake the first if there is better news than it went to sleep with."""
        if self._nap is not None and now + self._delay(now) < self._nap_until - _WORTH_WAKING:
            self._nap.cancel()

    def open(self) -> None:
        """Let everybody through, now and later."""
        self._delay = _nothing
        if self._nap is not None:
            self._nap.cancel()

    async def _rest(self, now: float, delay: float) -> None:
        self._nap_until = now + delay
        try:
            with anyio.CancelScope() as self._nap:
                await self._sleep(delay)
        finally:
            self._nap = None

    def _first(self) -> anyio.Event:
        return next(iter(self._places))
