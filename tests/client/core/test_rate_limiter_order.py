"""Who is next: the queue of calls, and the share of the polls."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from openai_runs import RateLimits
from openai_runs._client.core.rate_limiter import CALLS_PER_POLL, Permit, RateLimiter
from tests.client.simulated import SimulatedClock, all_of
from tests.support import ManualClock


async def acquired(limiter: RateLimiter, number: int, order: list[int]) -> None:
    """Acquire a permit, and note the order."""
    await limiter.acquire("getRun", None)
    order.append(number)


async def let_others_run() -> None:
    """Let everybody get where they are going."""
    for _ in range(30):
        await anyio.lowlevel.checkpoint()


async def test_permits_are_acquired_in_the_order_the_calls_came() -> None:
    """First come, first served."""
    clock = SimulatedClock()
    limiter = RateLimiter(RateLimits(requests_per_minute=60), clock.runtime())
    order: list[int] = []

    async with clock.running():
        await all_of(20, lambda number: acquired(limiter, number, order))

    assert order == list(range(20))


async def test_cancelled_call_gives_its_place_up() -> None:
    """The first in the queue and one in the middle: the others move up."""
    clock = SimulatedClock()
    limiter = RateLimiter(RateLimits(requests_per_minute=1), clock.runtime())
    order: list[int] = []
    scopes = [anyio.CancelScope() for _ in range(5)]

    async def cancellable(number: int) -> None:
        with scopes[number]:
            await acquired(limiter, number, order)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(cancellable, number)
            await let_others_run()
        assert limiter.state().waiting == 4
        scopes[1].cancel()
        scopes[3].cancel()
        await let_others_run()
        assert limiter.state().waiting == 2
        async with clock.running():
            while len(order) < 3:
                await anyio.lowlevel.checkpoint()

    assert order == [0, 2, 4]
    assert clock.now - 1000 == pytest.approx(2 * 61.2, rel=0.01)


async def test_cancel_of_a_run_goes_before_other_calls() -> None:
    """What undoes something has 5 s; those in the queue have more."""
    clock = SimulatedClock()
    limiter = RateLimiter(RateLimits(requests_per_minute=60), clock.runtime())
    order: list[int] = []
    while isinstance(limiter.try_acquire_poll(), Permit):
        pass

    async def cancel(number: int) -> None:
        await limiter.acquire("cancelRun", None)
        order.append(-number)

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(acquired, limiter, number, order)
        await let_others_run()
        group.start_soon(cancel, 1)
        group.start_soon(cancel, 2)
        await let_others_run()
        assert limiter.state().waiting == 5
        async with clock.running():
            while len(order) < 5:
                await anyio.lowlevel.checkpoint()

    assert order == [-1, -2, 0, 1, 2]


async def test_better_limits_wake_the_first_in_the_queue() -> None:
    """Nothing was left for a minute; then an answer says that there is plenty."""
    clock = SimulatedClock()
    limiter = RateLimiter(None, clock.runtime())
    none_left = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "60s"}
    limiter.on_headers(200, none_left)
    order: list[int] = []

    async with anyio.create_task_group() as group:
        group.start_soon(acquired, limiter, 0, order)
        await let_others_run()
        assert order == []
        plenty = {"x-ratelimit-remaining-requests": "99", "x-ratelimit-reset-requests": "60s"}
        limiter.on_headers(200, plenty)
        await let_others_run()
        assert order == [0]


async def test_polls_have_a_slot_in_four_where_both_want_to_send() -> None:
    """Calls go first, and polls are not starved."""
    clock = SimulatedClock()
    limiter = RateLimiter(RateLimits(requests_per_minute=60), clock.runtime())
    sent: list[str] = []

    async def call(number: int) -> None:
        await limiter.acquire("getRun", None)
        sent.append("call")

    async def poll() -> None:
        while len(sent) < 60:
            permit = limiter.try_acquire_poll()
            if isinstance(permit, Permit):
                sent.append("poll")
            else:
                await clock.sleep(permit)

    async with clock.running(), anyio.create_task_group() as group:
        group.start_soon(poll)
        await all_of(44, call)

    both = sent[8 : sent.index("call", 40)]
    share = both.count("poll") / len(both)
    assert share == pytest.approx(1 / (1 + CALLS_PER_POLL), abs=0.05)
    assert limiter.state().polls == sent.count("poll")


async def test_slot_of_a_poll_that_never_comes_is_given_to_a_call() -> None:
    """Who plans polls may have lost interest; calls wait a moment for it, and not for ever."""
    clock = SimulatedClock()
    limiter = RateLimiter(RateLimits(requests_per_minute=1), clock.runtime())
    order: list[int] = []

    async with clock.running():
        await acquired(limiter, 0, order)
        assert not isinstance(limiter.try_acquire_poll(), Permit)
        await all_of(CALLS_PER_POLL + 2, lambda number: acquired(limiter, number, order))

    assert len(order) == CALLS_PER_POLL + 3


async def test_polls_can_count_on_what_calls_leave() -> None:
    """All of the rate while there are no calls, and never less than a quarter."""
    clock = ManualClock()
    limiter = RateLimiter(RateLimits(requests_per_minute=600), clock.runtime())
    unlimited = RateLimiter(None, clock.runtime())
    whole = limiter.poll_rate()
    for _ in range(100):
        await limiter.acquire("getRun", None)
    busy = limiter.poll_rate()

    assert unlimited.poll_rate() is None
    assert whole == pytest.approx(9.3, abs=0.1)
    assert whole is not None
    assert busy == pytest.approx(whole / 4, rel=0.2)
