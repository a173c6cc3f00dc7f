"""Calls that are tried again for a time, and not for a number of attempts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from openai_runs import (
    APITimeoutError,
    AsyncClient,
    InternalServerError,
    RateLimitError,
    RetryPolicy,
)
from tests.client.ledger import Fate, Ledger, error
from tests.support import Answer, Drop, HostileServer, ManualClock

THREAD = Answer(json={"id": "thread_1"})
PATIENT = RetryPolicy(patience=60.0)


def after(count: int, failure: Any) -> Any:
    """Return a handler that fails so often, and then answers."""
    left = [failure] * count
    return lambda request: left.pop() if left else THREAD


def client_of(server: HostileServer, clock: ManualClock, **options: Any) -> AsyncClient:
    """Return a patient client whose pauses take no time."""
    return AsyncClient(server.url, seams=clock.runtime(), **{"retry": PATIENT, **options})


async def test_patient_call_goes_on_while_its_time_lasts() -> None:
    """Far more attempts than `max_retries`, of each kind of failure that passes."""
    for failure in (error(503), Drop(), error(408)):
        clock = ManualClock()
        async with (
            HostileServer(after(9, failure)) as server,
            client_of(server, clock) as client,
        ):
            thread = await client.threads.retrieve("thread_1")

        assert thread.http is not None
        assert thread.http.attempts == 10
        assert clock.slept == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0]


async def test_patience_ends_with_the_silence_of_the_server() -> None:
    """A server that only fails is given up after 60 s."""
    clock = ManualClock()
    async with HostileServer(after(999, error(503))) as server, client_of(server, clock) as client:
        with pytest.raises(InternalServerError):
            await client.threads.retrieve("thread_1")

    assert 60 <= sum(clock.slept) <= 68


async def test_refusals_for_the_rate_are_no_silence() -> None:
    """A 429 says that the server is alive, so it is asked for 600 s."""
    clock = ManualClock()
    storm = error(429, retry_after="30")
    async with HostileServer(after(999, storm)) as server, client_of(server, clock) as client:
        with pytest.raises(RateLimitError) as caught:
            await client.threads.retrieve("thread_1")

    assert sum(clock.slept) == 600
    assert caught.value.attempts == 21


async def test_timeout_of_the_call_ends_patience() -> None:
    """`timeout` is the whole call, however patient."""
    clock = ManualClock()
    async with HostileServer(after(999, error(503))) as server, client_of(server, clock) as client:
        with pytest.raises(APITimeoutError, match="past its deadline"):
            await client.threads.retrieve("thread_1", timeout=10)

    assert sum(clock.slept) <= 10


async def test_patient_calls_do_not_drain_the_budget() -> None:
    """A hundred calls fail twice each, and all of them get through."""
    hasty = RetryPolicy(patience=60.0, initial=0.0)
    async with (
        HostileServer(after(200, error(503))) as server,
        AsyncClient(server.url, retry=hasty) as client,
    ):
        calls = [client.threads.retrieve("thread_1") for _ in range(100)]
        threads = await asyncio.gather(*calls)

    assert [thread.id for thread in threads] == ["thread_1"] * 100
    assert len(server.requests) == 300


async def test_patience_repeats_no_post_that_may_have_been_carried_out() -> None:
    """What is in doubt is looked for before each further create, as ever."""
    clock = ManualClock()
    ledger = Ledger(*[Fate(error(503), done=False)] * 6, Fate(Drop()))
    async with HostileServer(ledger) as server, client_of(server, clock) as client:
        run = await client.runs.create("thread_1", assistant_id="asst_1")
        server.answer_with(after(1, error(503)))
        with pytest.raises(InternalServerError) as caught:
            await client.threads.create_and_run(assistant_id="asst_1")

    assert run.id == "run_1"
    assert len(ledger.runs) == 1
    assert (
        len({request.headers["idempotency-key"] for request in server.seen("POST", "1/runs")}) == 1
    )
    assert caught.value.maybe_created
