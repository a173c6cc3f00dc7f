"""How often and after how long a request is sent again."""

from __future__ import annotations

import asyncio
import math
import pickle
from collections import Counter
from typing import Any

import anyio
import pytest

from openai_runs import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncClient,
    ConflictError,
    InternalServerError,
    RateLimitError,
    RetryPolicy,
    Thread,
)
from tests.client.ledger import error
from tests.support import Action, Answer, Drop, Hang, HostileServer, ManualClock, Raw, Reset

THREAD = Answer(json={"id": "thread_1"})
DATE = "Wed, 21 Oct 2026 07:28:00 GMT"
LATER = "Wed, 21 Oct 2026 07:28:09 GMT"
DOUBLING = 0.5
"""Seconds; the first pause of the default policy, without jitter."""


def script(*actions: Action) -> Any:
    """Return a handler that does these in order, the last one for ever."""
    left = list(actions)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]


def client_of(server: HostileServer, clock: ManualClock, **options: Any) -> AsyncClient:
    """Return a client whose pauses take no time."""
    return AsyncClient(server.url, seams=clock.runtime(), **options)


async def get(client: AsyncClient, **options: Any) -> Thread:
    """Do something harmless."""
    return await client.threads.retrieve("thread_1", **options)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "0.25"}, 0.25),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After-Ms": "1500", "Retry-After": "9"}, 1.5),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"Retry-After": LATER, "Date": DATE}, 9.0),
        ({"Retry-After": DATE, "Date": LATER}, 0.0),
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": "nan"}, DOUBLING),
        ({"Retry-After": "-5"}, DOUBLING),
        ({"Retry-After": "soon"}, DOUBLING),
        ({"Retry-After-Ms": "-1", "Retry-After": ""}, DOUBLING),
        ({}, DOUBLING),
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [429, 503])
async def test_pause_is_what_the_server_asks_for(
    status: int, headers: dict[str, str], seconds: float
) -> None:
    """Milliseconds, seconds or a date by the server's own clock; nonsense is ignored."""
    clock = ManualClock()
    refusal = Answer(status, {"error": {"message": "no"}}, headers)
    async with HostileServer(script(refusal, THREAD)) as server, client_of(server, clock) as client:
        thread = await get(client)

    assert clock.slept == [seconds]
    assert thread.http is not None
    assert thread.http.attempts == 2


@pytest.mark.parametrize("asked", ["121", "1e400", "Fri, 31 Dec 2099 23:59:59 GMT"])
async def test_too_long_a_pause_is_refused_at_once(asked: str) -> None:
    """More than 120 s is for the caller to decide; `.retry_after` tells how long."""
    clock = ManualClock()
    refusal = error(429, retry_after=asked)
    async with HostileServer(script(refusal)) as server, client_of(server, clock) as client:
        with pytest.raises(RateLimitError) as caught:
            await get(client)

    assert clock.slept == []
    assert caught.value.attempts == 1
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 120


async def test_pauses_double_up_to_the_maximum_when_the_server_asks_for_none() -> None:
    """0.5, 1, 2, 4, 8, 8: the official SDK's numbers."""
    clock = ManualClock()
    async with (
        HostileServer(script(error(500))) as server,
        client_of(server, clock, max_retries=6) as client,
    ):
        with pytest.raises(InternalServerError) as caught:
            await get(client)

    assert clock.slept == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert caught.value.attempts == len(server.requests) == 7


async def test_jitter_takes_at_most_its_share_away() -> None:
    """With all chance against it, a pause is a quarter shorter."""
    clock = ManualClock()
    async with (
        HostileServer(script(error(500), THREAD)) as server,
        AsyncClient(server.url, seams=clock.runtime(chance=lambda: 1.0)) as client,
    ):
        await get(client)

    assert clock.slept == [0.375]


async def test_default_is_three_attempts() -> None:
    """Two retries, as in the official SDK."""
    clock = ManualClock()
    async with HostileServer(script(error(503))) as server, client_of(server, clock) as client:
        with pytest.raises(InternalServerError):
            await get(client)

    assert len(server.requests) == 3


async def test_same_body_is_sent_each_time() -> None:
    """A repeated POST does not differ from the first in anything."""
    clock = ManualClock()
    async with (
        HostileServer(script(error(429), error(429), THREAD)) as server,
        client_of(server, clock) as client,
    ):
        await client.threads.create(messages=({"role": "user", "content": c} for c in "ab"))

    assert len({(request.body, str(request.headers)) for request in server.requests}) == 1
    assert len(server.requests) == 3
    assert [m["content"] for m in server.requests[0].json["messages"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("refusal", "attempts"),
    [
        (error(408), 2),
        (error(409), 2),
        (error(429), 2),
        (error(500), 2),
        (error(599), 2),
        (error(400), 1),
        (error(401), 1),
        (error(403), 1),
        (error(404), 1),
        (error(422), 1),
        (error(503, x_should_retry="false"), 1),
        (error(400, x_should_retry="true"), 2),
        (Answer(429, {"error": {"message": "no", "code": "insufficient_quota"}}), 1),
        (Drop(), 2),
        (Reset(), 2),
        (Raw(b"garbage\r\n\r\n"), 2),
        (Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}"), 2),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_get_is_repeated_where_that_may_help(refusal: Action, attempts: int) -> None:
    """Faults that pass are tried again, others are raised; each attempt is one request."""
    clock = ManualClock()
    async with (
        HostileServer(script(refusal)) as server,
        client_of(server, clock, max_retries=1) as client,
    ):
        with pytest.raises((APIStatusError, APIConnectionError)) as caught:
            await get(client)

    assert len(server.requests) == attempts
    assert caught.value.attempts == attempts
    assert not caught.value.maybe_created


async def test_no_retry_is_made_when_none_is_allowed() -> None:
    """`max_retries=0` is one request, also where the connection is lost."""
    clock = ManualClock()
    async with (
        HostileServer(script(Drop())) as server,
        client_of(server, clock, retry=RetryPolicy(max_retries=0)) as client,
    ):
        with pytest.raises(APIConnectionError):
            await get(client)

    assert len(server.requests) == 1


async def test_retries_fail_fast_once_the_budget_is_spent() -> None:
    """Of 50 calls that fail at once, 20 are retried; the others give up without a pause."""
    clock, failed = ManualClock(), Counter[int]()
    async with (
        HostileServer(script(error(500))) as server,
        client_of(server, clock, max_retries=1) as client,
    ):

        async def call() -> None:
            with pytest.raises(InternalServerError) as caught:
                await get(client)
            failed[caught.value.attempts] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(call())

    assert failed == {1: 30, 2: 20}
    assert len(clock.slept) == 20


SPENT_ON: dict[str, tuple[Any, str]] = {
    "server-errors": ([error(500)], "20 after InternalServerError"),
    "lost-connections": ([Drop()], "20 after APIConnectionError"),
    "resets": ([Reset()], "20 after APIConnectionError"),
    "both": (
        [error(503), Drop()],
        "10 after InternalServerError, 10 after APIConnectionError",
    ),
}


@pytest.mark.parametrize("kind", SPENT_ON)
async def test_spent_budget_is_named_in_text_and_as_an_attribute(kind: str) -> None:
    """How many retries in what time, after which failures, and what to set."""
    clock = ManualClock()
    actions, what = SPENT_ON[kind]
    async with (
        HostileServer(script(*actions * 40)) as server,
        client_of(server, clock, max_retries=30) as client,
    ):
        with pytest.raises(APIError) as caught:
            await get(client)
        with pytest.raises(APIError) as again:
            await get(client.with_options(max_retries=1))
        patient = client.with_options(retry=RetryPolicy(patience=10.0))
        with pytest.raises(APIError) as outside:
            await get(patient)

    seconds = math.ceil(sum(clock.slept[:20]))
    for error_of in (caught.value, again.value, pickle.loads(pickle.dumps(caught.value))):
        assert error_of.retry_budget_spent
        assert f"budget for retries is spent: 20 retries in the last {seconds} s" in str(error_of)
        assert what in str(error_of)
        assert "RetryPolicy(patience=...)" in str(error_of)
    assert not outside.value.retry_budget_spent


async def test_budget_that_is_not_spent_is_not_named() -> None:
    """A call whose own retries are used up, or that may not be repeated, says nothing of it."""
    async with (
        HostileServer(script(error(500), error(500), error(400))) as server,
        client_of(server, ManualClock(), max_retries=1) as client,
    ):
        for _ in range(2):
            with pytest.raises(APIError) as caught:
                await get(client)
            assert not caught.value.retry_budget_spent
            assert "budget" not in str(caught.value)


async def test_budget_is_shared_with_copies_and_refilled_by_successes() -> None:
    """Five answers that succeed pay for one more retry."""
    clock = ManualClock()
    good = [THREAD] * 5
    async with (
        HostileServer(script(*[error(500)] * 21, *good, error(500))) as server,
        client_of(server, clock, max_retries=20) as client,
    ):
        copy = client.with_options(max_retries=3)
        with pytest.raises(InternalServerError):
            await get(client)
        for _ in good:
            await get(client)
        with pytest.raises(InternalServerError) as caught:
            await get(copy)

    assert caught.value.attempts == 2


async def test_call_ends_at_once_when_the_pause_would_outlast_its_deadline() -> None:
    """A `Retry-After` beyond `timeout` is not slept through."""
    clock = ManualClock()
    refusal = error(429, retry_after="30")
    async with HostileServer(script(refusal)) as server, client_of(server, clock) as client:
        with pytest.raises(APITimeoutError, match="30 s more") as caught:
            await get(client, timeout=10)

    assert clock.slept == []
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value.__cause__, RateLimitError)
    assert caught.value.thread_id == "thread_1"


async def test_deadline_covers_all_attempts() -> None:
    """`timeout` is the whole call; what was ambiguous at its end is said."""
    async with HostileServer(script(Hang())) as server, AsyncClient(server.url) as client:
        with pytest.raises(APITimeoutError) as caught:
            await client.threads.create(timeout=0.1)
        with pytest.raises(APITimeoutError) as harmless:
            await get(client, timeout=0.1)

    assert caught.value.maybe_created
    assert caught.value.attempts == 1
    assert not harmless.value.maybe_created


async def test_attempt_time_out_is_retried_where_that_is_safe() -> None:
    """`request_timeout` bounds one attempt, not the call."""
    clock = ManualClock()
    async with HostileServer(script(Hang(), THREAD)) as server, client_of(server, clock) as client:
        thread = await get(client, request_timeout=0.1)

    assert thread.id == "thread_1"
    assert len(server.requests) == 2


async def test_time_out_of_a_callers_own_function_is_not_taken_for_the_deadline() -> None:
    """What `api_key` raises reaches the caller as it is."""

    def key() -> str:
        raise TimeoutError("vault")  # noqa: EM101 - the caller's own

    async with AsyncClient("http://127.0.0.1:9/v1", key) as client:
        with pytest.raises(TimeoutError, match="vault") as caught:
            await get(client, timeout=5)

    assert type(caught.value) is TimeoutError


async def test_create_is_repeated_when_it_never_reached_the_server() -> None:
    """Connection refused: nothing was sent, so the server, once it is up, sees one create."""
    server = HostileServer(script(THREAD))
    async with server:
        address = server.url
        await server.stop()

        async def come_up(seconds: float) -> None:
            clock.slept.append(seconds)
            await server.start(int(address.split(":")[2].partition("/")[0]))

        clock = ManualClock()
        async with AsyncClient(address, seams=clock.runtime(sleep=come_up)) as client:
            thread = await client.threads.create()

    assert thread.id == "thread_1"
    assert clock.slept == [0.5]
    assert len(server.requests) == 1


async def test_create_that_never_reached_a_server_was_not_made() -> None:
    """Refused until the retries are spent: `maybe_created` is False."""
    async with HostileServer(script(THREAD)) as server:
        address = server.url
    clock = ManualClock()
    async with AsyncClient(address, seams=clock.runtime()) as client:
        with pytest.raises(APIConnectionError) as caught:
            await client.threads.create()

    assert caught.value.attempts == 3
    assert not caught.value.sent
    assert not caught.value.maybe_created


@pytest.mark.parametrize("end", [Drop(), Reset()], ids=["closed", "reset"])
async def test_kept_alive_connection_is_replaced_when_the_server_ends_it(end: Action) -> None:
    """A GET is sent again; an ambiguous create is not."""
    clock = ManualClock()
    async with (
        HostileServer(script(THREAD, end, THREAD, end)) as server,
        client_of(server, clock) as client,
    ):
        await get(client)
        again = await get(client)
        with pytest.raises(APIConnectionError) as caught:
            await client.threads.create()

    assert again.http is not None
    assert again.http.attempts == 2
    assert caught.value.maybe_created
    assert len(server.requests) == 4


async def test_conflict_is_retried_when_the_server_honours_keys() -> None:
    """The first request with the key may still be at work; the same key cannot do it twice."""
    features = {"openai-runs-features": "idempotency"}
    busy = Answer(409, {"error": {"message": "busy", "code": None}}, features)
    reused = Answer(409, {"error": {"message": "no", "code": "idempotency_key_reused"}}, features)
    clock = ManualClock()
    async with (
        HostileServer(script(busy, THREAD, reused)) as server,
        client_of(server, clock) as client,
    ):
        await client.threads.create()
        with pytest.raises(ConflictError) as caught:
            await client.threads.create()

    assert caught.value.attempts == 1
    assert len(server.requests) == 3


async def test_cancellation_is_never_lost_around_the_deadline() -> None:
    """`task.cancel()` within 2 ms of the deadline, 200 times: cancelled or timed out."""
    outcomes = Counter[str]()
    async with HostileServer(script(Hang())) as server, AsyncClient(server.url) as client:
        for number in range(200):
            timeout = 0.005
            task = asyncio.create_task(get(client, timeout=timeout, request_timeout=5))
            asyncio.get_running_loop().call_later(timeout + (number % 41 - 20) / 1e4, task.cancel)
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            outcomes[type(outcome).__name__] += 1
            assert task.cancelling() == 0 or task.cancelled()

    assert outcomes.keys() <= {"CancelledError", "APITimeoutError"}
    assert outcomes.total() == 200


async def test_cancellation_closes_the_connection() -> None:
    """A cancelled call leaves nothing open, and the client goes on working."""
    reached = anyio.Event()

    def handler(request: Any) -> Action:
        reached.set()
        return Hang() if len(server.requests) == 1 else THREAD

    async with (
        HostileServer(handler) as server,
        AsyncClient(server.url, max_connections=1) as client,
    ):
        task = asyncio.create_task(get(client))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        thread = await get(client)

    assert thread.id == "thread_1"
