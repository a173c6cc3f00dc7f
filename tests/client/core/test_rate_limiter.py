"""A client keeps to what it and its server allow: in turn, in order, and no slower than needed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import anyio
import pytest

from openai_runs import (
    APITimeoutError,
    AsyncClient,
    ConfigError,
    LimitState,
    RateLimitError,
    RateLimits,
    RetryPolicy,
)
from tests.client.ledger import error
from tests.client.simulated import LimitedServer, SimulatedClock, all_of
from tests.support import Action, Answer, HostileServer, ManualClock, Received, run_json

THREAD = Answer(json={"id": "thread_1"})


@asynccontextmanager
async def connected(
    clock: SimulatedClock, handler: LimitedServer, **options: Any
) -> AsyncIterator[AsyncClient]:
    """Give a client of this server, while time moves on by itself."""
    async with (
        handler.listening() as server,
        AsyncClient(server.url, seams=clock.runtime(), **options) as client,
        clock.running(handler.activity),
    ):
        yield client


async def test_budget_of_1000_a_minute_and_500_runs_in_flight() -> None:
    """No 429, and every run is seen ended."""
    clock = SimulatedClock()
    handler = LimitedServer(clock, limit=1000, lifetimes=lambda number: 2 + number % 59)
    ended: list[str] = []

    async def see_through(number: int) -> None:
        run = await client.runs.create("thread_1", assistant_id="asst_1")
        run = await client.runs.wait(run)
        assert run.is_terminal
        ended.append(run.id)

    limits = RateLimits(requests_per_minute=1000)
    async with connected(clock, handler, limits=limits) as client:
        await all_of(500, see_through)
        state = client.limits

    assert handler.refused == []
    assert len(set(ended)) == 500
    assert state.calls == 500
    assert state.calls + state.polls == len(handler.times)
    assert state.refusals == state.waiting == 0
    assert state.waited > 0


async def test_limit_that_the_server_tells_is_kept() -> None:
    """After its first answer, 300 calls at once against 100 a minute, and waits: no 429."""
    clock = SimulatedClock()
    handler = LimitedServer(clock, limit=100, tells=True, lifetimes=lambda number: 30.0)

    async with connected(clock, handler) as client:
        run = await client.runs.create("thread_1", assistant_id="asst_1")
        async with anyio.create_task_group() as group:
            group.start_soon(client.runs.wait, run)
            await all_of(300, lambda _: client.runs.retrieve(run.id, thread_id="thread_1"))
        state = client.limits

    assert handler.refused == []
    assert state.polls > 0
    assert len(handler.times) == 301 + state.polls
    assert state.remaining_requests is not None
    assert state.reset_requests is not None


@pytest.mark.parametrize("refusal", [{}, {"retry-after": "2"}], ids=["silent", "retry-after"])
async def test_storm_of_429s_converges(refusal: dict[str, str]) -> None:
    """400 calls at once against 20 a second: all are carried out, and few are sent in vain."""
    clock = SimulatedClock()
    handler = LimitedServer(clock, limit=20, window=1.0, refusal=refusal)

    async with connected(clock, handler, max_connections=400) as client:
        await client.runs.create("thread_1", assistant_id="asst_1")
        done: list[str] = []

        async def retrieve(number: int) -> None:
            run = await client.runs.retrieve("run_0", thread_id="thread_1", timeout=600)
            done.append(run.id)

        await all_of(400, retrieve)

    assert len(done) == 400
    # What was sent before the first refusal came back, and a rest that each try at more costs.
    assert len(handler.refused) < 380 + 80


async def test_retry_after_of_one_call_keeps_all_back() -> None:
    """Nothing is sent before the server wants it, by a copy of the client neither."""
    clock = SimulatedClock()
    handler = LimitedServer(clock, limit=1, window=30.0, refusal={"retry-after": "30"})

    async with connected(clock, handler) as client:
        await client.runs.create("thread_1", assistant_id="asst_1")
        with pytest.raises(RateLimitError):
            await client.with_options(max_retries=0).runs.create("t", assistant_id="a")
        assert client.limits.paused == 30
        assert client.limits.refused_for == 0
        copy = client.with_options(request_timeout=9)
        await copy.runs.retrieve("run_0", thread_id="thread_1")
        state = copy.limits

    assert len(handler.refused) == 1
    assert handler.times[1] - handler.times[0] >= 30
    assert state.refusals == 1
    assert (state.paused, state.refused_for) == (0, None)


async def test_used_up_quota_keeps_nobody_back() -> None:
    """A 429 that is not transient says nothing about how fast to send."""
    body = {"error": {"message": "pay", "code": "insufficient_quota"}}
    answers: list[Action] = [Answer(429, body, {"retry-after": "60"}), THREAD]
    clock = ManualClock()
    async with (
        HostileServer(lambda request: answers.pop(0)) as server,
        AsyncClient(server.url, seams=clock.runtime()) as client,
    ):
        with pytest.raises(RateLimitError):
            await client.threads.retrieve("thread_1")
        await client.threads.retrieve("thread_1")

        assert client.limits.refusals == 0
    assert clock.slept == []


async def test_call_without_limits_is_not_counted() -> None:
    """Nothing is known, nothing is done."""
    async with HostileServer(lambda request: THREAD) as server, AsyncClient(server.url) as client:
        await client.threads.retrieve("thread_1")

        assert client.limits == LimitState(
            calls=0,
            polls=0,
            waiting=0,
            waited=0.0,
            refusals=0,
            paused=0.0,
            rate=None,
            remaining_requests=None,
            reset_requests=None,
            remaining_tokens=None,
            reset_tokens=None,
        )


async def test_call_whose_turn_comes_too_late_is_not_sent() -> None:
    """It ends at once, as the pause of a retry does that would outlast the deadline."""
    clock = ManualClock()
    limits = RateLimits(requests_per_minute=1)
    async with (
        HostileServer(lambda request: THREAD) as server,
        AsyncClient(server.url, seams=clock.runtime(), limits=limits) as client,
    ):
        await client.threads.retrieve("thread_1")
        with pytest.raises(
            APITimeoutError, match="delay it by 61.2 s, past its deadline"
        ) as caught:
            await client.threads.create(timeout=30)

    assert clock.slept == []
    assert len(server.requests) == 1
    assert not caught.value.sent
    assert not caught.value.maybe_created


@pytest.mark.parametrize(
    ("options", "attempts"),
    [({}, 3), ({"timeout": 600.0}, 9)],
    ids=["without a time-out", "with one"],
)
async def test_refused_create_is_tried_for_its_timeout(
    options: dict[str, Any], attempts: int
) -> None:
    """A 429 says that nothing was done: whoever gave a time waits in a queue."""
    refusals = [error(429, retry_after="0") for _ in range(8)]
    answers: list[Action] = [*refusals, Answer(json=run_json())]
    clock = ManualClock()
    async with (
        HostileServer(lambda request: answers.pop(0)) as server,
        AsyncClient(server.url, seams=clock.runtime()) as client,
    ):
        with nullcontext() if options else pytest.raises(RateLimitError):
            await client.runs.create("thread_1", assistant_id="asst_1", **options)

    assert len(server.requests) == attempts
    assert sum(clock.slept) >= (attempts - 4) * 0.5, "and `Retry-After: 0` makes no flood"


@pytest.mark.parametrize("retry", [RetryPolicy(max_retries=0)])
async def test_refused_call_is_not_repeated_where_retrying_is_off(retry: RetryPolicy) -> None:
    """A time-out does not switch it on."""
    async with (
        HostileServer(lambda request: error(429)) as server,
        AsyncClient(server.url, retry=retry) as client,
    ):
        with pytest.raises(RateLimitError):
            await client.threads.retrieve("thread_1", timeout=5)

    assert len(server.requests) == 1


async def test_refusals_leave_the_budget_for_retries_alone() -> None:
    """They are paced, and do not make other calls fail fast."""
    script = [error(429), error(429), THREAD] * 15 + [error(500), THREAD]
    clock = ManualClock()
    async with (
        HostileServer(lambda request: script.pop(0)) as server,
        AsyncClient(server.url, seams=clock.runtime()) as client,
    ):
        for _ in range(16):
            await client.threads.retrieve("thread_1")

    assert script == []


async def test_closing_the_client_ends_what_waits_for_a_permit() -> None:
    """There is nothing to wait for any more, and the call says why."""
    clock = SimulatedClock()
    limits = RateLimits(requests_per_minute=1)
    failures: list[ConfigError] = []
    async with HostileServer(lambda request: THREAD) as server:
        client = AsyncClient(server.url, seams=clock.runtime(), limits=limits)

        async def retrieve(number: int) -> None:
            with pytest.raises(ConfigError, match="closed") as caught:
                await client.threads.retrieve("thread_1")
            failures.append(caught.value)

        await client.threads.retrieve("thread_1")
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(retrieve, number)
            await anyio.wait_all_tasks_blocked()
            await client.aclose()

        assert len(failures) == 3
        assert len(server.requests) == 1


def usage(tokens: int) -> dict[str, int]:
    """Return what a run used."""
    return {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens}


async def test_runs_wait_while_there_is_a_debt_of_tokens_and_nothing_else_does() -> None:
    """What the first run used is paid off before the second is created."""
    clock = ManualClock()

    def answer(request: Received) -> Action:
        if request.method == "POST":
            return Answer(json=run_json())
        return Answer(json=run_json("completed", usage=usage(6300)))

    async with (
        HostileServer(answer) as server,
        AsyncClient(
            server.url, seams=clock.runtime(), limits=RateLimits(tokens_per_minute=6000)
        ) as client,
    ):
        run = await client.runs.create("thread_1", assistant_id="asst_1")
        for _ in range(3):
            await client.runs.retrieve(run.id, thread_id=run.thread_id)
        assert clock.slept == []
        await client.runs.create("thread_1", assistant_id="asst_1")

    assert sum(clock.slept) == pytest.approx(60, rel=0.1)


async def test_tokens_of_a_create_that_was_refused_are_given_back() -> None:
    """Runs that never were cost nothing."""
    clock = ManualClock()
    answers: list[Action] = [
        Answer(json=run_json("completed", usage=usage(200))),
        *[error(400)] * 5,
        Answer(json=run_json()),
    ]
    limits = RateLimits(tokens_per_minute=6000)
    async with (
        HostileServer(lambda request: answers.pop(0)) as server,
        AsyncClient(server.url, seams=clock.runtime(), limits=limits) as client,
    ):
        await client.runs.create("thread_1", assistant_id="asst_1")
        for _ in range(5):
            with pytest.raises(Exception, match="no"):
                await client.runs.create("thread_1", assistant_id="asst_1")
        await client.runs.create("thread_1", assistant_id="asst_1")

    assert clock.slept == []


async def test_tokens_that_the_server_says_are_used_up_keep_runs_back() -> None:
    """Until their reset; a thread is fetched meanwhile."""
    clock = ManualClock()
    headers = {
        "x-ratelimit-remaining-requests": "99",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "7s",
    }
    answers: list[Action] = [Answer(json={"id": "thread_1"}, headers=headers), THREAD]
    async with (
        HostileServer(lambda r: answers.pop(0) if answers else Answer(json=run_json())) as server,
        AsyncClient(server.url, seams=clock.runtime()) as client,
    ):
        await client.threads.retrieve("thread_1")
        await client.threads.retrieve("thread_1")
        assert clock.slept == []
        await client.runs.create("thread_1", assistant_id="asst_1")

    assert clock.slept == [7.0]


def streamed(*runs: dict[str, Any]) -> Answer:
    """Return a stream with a run in these states."""
    events = "".join(
        f"event: thread.run.{run['status']}\ndata: {json.dumps(run)}\n\n" for run in runs
    )
    body = f"{events}event: done\ndata: [DONE]\n\n".encode()
    return Answer(body=body, headers={"Content-Type": "text/event-stream"})


async def test_stream_is_one_request_and_its_run_is_paid_for() -> None:
    """What is opened is what is sent; the last event tells what the run used."""
    clock = ManualClock()
    answer = streamed(run_json("in_progress"), run_json("completed", usage=usage(6300)))
    limits = RateLimits(requests_per_minute=60, tokens_per_minute=6000)
    async with (
        HostileServer(lambda request: answer) as server,
        AsyncClient(server.url, seams=clock.runtime(), limits=limits) as client,
    ):
        async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
            events = [event.event async for event in stream]
        assert client.limits.calls == len(server.requests) == 1
        async with client.runs.stream("thread_1", assistant_id="asst_1"):
            waited = client.limits.waited

    assert events == ["thread.run.in_progress", "thread.run.completed"]
    assert waited == pytest.approx(60, rel=0.1)
