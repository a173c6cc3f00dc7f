"""await_run against servers that fail: what is borne, for how long, and what is not."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any

import anyio
import pytest

from openai_runs import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AsyncClient,
    ConfigError,
    NotFoundError,
    OpenAIRunsError,
    PollPolicy,
    RateLimitError,
    RunWaitTimeout,
    await_run,
)
from tests.client.acting import IDS, UNHELD, client_of, of_run, refusal, script
from tests.support import (
    Action,
    Answer,
    Drop,
    Hang,
    HostileServer,
    ManualClock,
    Raw,
    Received,
    Reset,
    run_json,
)

QUEUED = of_run("queued")
DONE = of_run("completed")
HTML = Answer(200, body=b"<html>login</html>", headers={"Content-Type": "text/html"})


async def failure(
    handler: Any, clock: ManualClock, **options: Any
) -> tuple[OpenAIRunsError, list[Received]]:
    """Return how the wait failed, and the requests it took."""
    async with HostileServer(handler) as server, client_of(server, clock) as client:
        with pytest.raises((APIError, RunWaitTimeout)) as caught:
            await await_run(client, **{**IDS, "poll": UNHELD, **options})
    return caught.value, server.requests


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(refusal(503), id="503"),
        pytest.param(refusal(500), id="500"),
        pytest.param(refusal(408), id="408"),
        pytest.param(refusal(409), id="409"),
        pytest.param(refusal(429), id="429"),
        pytest.param(Answer(502, body=b"<html>"), id="a proxy's 502"),
        pytest.param(Drop(), id="dropped"),
        pytest.param(Reset(), id="reset"),
        pytest.param(Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), id="cut short"),
        pytest.param(Raw(b"SSH-2.0-OpenSSH\r\n\r\n"), id="no HTTP"),
        pytest.param(HTML, id="HTML"),
        pytest.param(Answer(200, body=b""), id="empty"),
        pytest.param(Answer(204, body=b""), id="204"),
        pytest.param(Answer(json=[]), id="a list"),
        pytest.param(Answer(json={"id": "run_1"}), id="no run"),
    ],
)
async def test_faults_in_mid_wait_are_borne(fault: Action) -> None:
    """A few faults between good answers do not end a wait, and each costs one request."""
    clock = ManualClock()
    handler = script(QUEUED, fault, fault, of_run("in_progress"), fault, DONE)
    seen: list[str] = []

    async with HostileServer(handler) as server, client_of(server, clock, poll=UNHELD) as client:
        run = await await_run(client, **IDS, on_status=lambda run: seen.append(run.status))

    assert run.status == "completed"
    assert seen == ["queued", "in_progress", "completed"]
    assert len(server.requests) == 6
    assert all(pause > 0 for pause in clock.slept)


async def test_retry_after_is_the_least_pause() -> None:
    """A 503 or 429 that names a pause is asked again after it, and not before."""
    clock = ManualClock()
    handler = script(
        refusal(503, retry_after="7"),
        refusal(429, retry_after="9"),
        refusal(429, retry_after_ms="3500"),
        refusal(429, retry_after="3600"),
        DONE,
    )

    async with HostileServer(handler) as server, client_of(server, clock, poll=UNHELD) as client:
        await await_run(client, **IDS)

    assert clock.slept == [7.0, 9.0, 3.5, 120.0]


@pytest.mark.parametrize("asked", ["0", "0.001"])
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_zero_is_no_busy_loop(asked: str, status: int) -> None:
    """A server that says "at once" for ever is asked at the policy's growing pace."""
    clock = ManualClock()

    _, requests = await failure(script(refusal(status, retry_after=asked)), clock, timeout=55)

    assert len(requests) < 25


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(refusal(503), id="503"),
        pytest.param(refusal(503, retry_after="11"), id="503 with Retry-After"),
        pytest.param(Drop(), id="dropped"),
    ],
)
async def test_outage_ends_the_wait(fault: Action) -> None:
    """Nothing but failures for max_outage seconds is an APIConnectionError with both ids."""
    clock = ManualClock()

    error, requests = await failure(script(QUEUED, fault), clock)

    assert isinstance(error, APIConnectionError)
    assert (error.thread_id, error.run_id) == ("thread_1", "run_1")
    assert error.attempts == len(requests) - 1
    assert 60 <= clock.now - 1000 < 75


async def test_outage_ends_the_wait_where_nobody_listens() -> None:
    """A server that is gone for good does not hang the caller for ten minutes."""
    clock = ManualClock()

    async with HostileServer(script(QUEUED)) as server, client_of(server, clock) as client:
        run = await client.runs.retrieve("run_1", thread_id="thread_1")
        await server.stop()
        with pytest.raises(APIConnectionError) as caught:
            await await_run(client, run)

    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")
    assert "60.0 s" in str(caught.value)
    assert clock.now - 1000 == pytest.approx(60)


async def test_outage_counts_from_the_first_failure() -> None:
    """A pause the server itself asked for is no silence of its: one failure after it is borne."""
    clock = ManualClock()
    patient = of_run("queued", {"openai-poll-after-ms": "60000"})
    fault = refusal(503)

    async with (
        HostileServer(script(patient, fault, patient, fault, fault, DONE)) as server,
        client_of(server, clock, poll=UNHELD) as client,
    ):
        run = await await_run(client, **IDS)

    assert run.status == "completed"


async def test_outage_is_logged_once_with_how_long_it_is_tolerated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A record for each outage, however many polls fail, with the ids as attributes."""
    caplog.set_level(logging.INFO, "openai_runs.client")
    clock = ManualClock()
    fault, up = refusal(503), of_run("queued")

    async with (
        HostileServer(script(fault, fault, fault, up, fault, fault, DONE)) as server,
        client_of(server, clock, poll=UNHELD) as client,
    ):
        await await_run(client, **IDS)

    found: list[Any] = [record for record in caplog.records if hasattr(record, "is_outage")]
    assert len(found) == 2
    for record in found:
        assert (record.levelname, record.run_id, record.thread_id) == ("INFO", "run_1", "thread_1")
        assert record.getMessage().endswith("reconnecting for up to 60 s")


async def test_outage_counts_from_the_end_of_a_hold() -> None:
    """A held poll that is cut is a failure of this moment, not of all the time it was held."""
    clock = ManualClock()
    answers = [QUEUED, None, None, DONE]

    def handler(request: Received) -> Action:
        answer = answers.pop(0)
        if answer is not None:
            return answer
        if "prefer" in request.headers:
            clock.now += 30
        return Reset()

    policy = PollPolicy(max_outage=10)
    async with HostileServer(handler) as server, client_of(server, clock) as client:
        run = await await_run(client, **IDS, poll=policy)

    assert run.status == "completed"


async def test_outage_begins_anew_after_each_answer() -> None:
    """Good answers in between, however few, keep the wait alive."""
    clock = ManualClock()
    one: list[Action] = [refusal(503, retry_after="25"), Drop(), QUEUED]
    handler = script(QUEUED, *one, *one, *one, *one, DONE)

    async with HostileServer(handler) as server, client_of(server, clock, poll=UNHELD) as client:
        run = await await_run(client, **IDS, timeout=600)

    assert run.status == "completed"
    assert clock.now - 1000 > 100


async def test_infinite_outage_leaves_the_deadline() -> None:
    """max_outage=inf waits on until the time is up; the last failure is its cause."""
    clock = ManualClock()
    policy = PollPolicy(max_outage=math.inf, long_poll=0)

    error, _ = await failure(script(QUEUED, refusal(503)), clock, poll=policy, timeout=300)

    assert isinstance(error, RunWaitTimeout)
    assert isinstance(error.__cause__, APIStatusError)
    assert clock.now - 1000 == pytest.approx(300)


async def test_rate_limit_is_alive() -> None:
    """A server that answers 429 is there: only the deadline bounds how long it is asked."""
    clock = ManualClock()

    error, _ = await failure(script(QUEUED, refusal(429)), clock, timeout=500)

    assert isinstance(error, RunWaitTimeout)
    assert clock.now - 1000 == pytest.approx(500)


async def test_rate_limit_ends_an_outage() -> None:
    """503s before and after a 429 are two outages."""
    clock = ManualClock()
    handler = script(
        refusal(503, retry_after="40"), refusal(429), refusal(503, retry_after="40"), DONE
    )

    async with HostileServer(handler) as server, client_of(server, clock, poll=UNHELD) as client:
        run = await await_run(client, **IDS)

    assert run.status == "completed"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(refusal(429, code="insufficient_quota"), id="quota"),
        pytest.param(refusal(400), id="400"),
        pytest.param(refusal(401), id="401"),
        pytest.param(refusal(403), id="403"),
        pytest.param(refusal(404), id="404 once seen"),
        pytest.param(refusal(422), id="422"),
        pytest.param(Answer(302, {}, {"Location": "http://127.0.0.1:1/"}), id="302"),
        pytest.param(refusal(503, x_should_retry="false"), id="503 that says so"),
    ],
)
async def test_refusals_end_the_wait_at_once(fault: Action) -> None:
    """What is not transient is raised, with the ids, at the first answer."""
    clock = ManualClock()

    error, requests = await failure(script(QUEUED, fault), clock)

    assert isinstance(error, APIStatusError)
    assert (error.thread_id, error.run_id) == ("thread_1", "run_1")
    assert len(requests) == 2


async def test_quota_is_told_from_a_rate_limit() -> None:
    """insufficient_quota is a RateLimitError like the other, only raised at once."""
    error, requests = await failure(script(refusal(429, code="insufficient_quota")), ManualClock())

    assert isinstance(error, RateLimitError)
    assert len(requests) == 1


async def test_not_found_is_borne_three_times_after_the_create() -> None:
    """A replica that lags behind the create is asked three times more."""
    clock = ManualClock()
    handler = script(*[refusal(404)] * 3, DONE)

    async with HostileServer(handler) as server, client_of(server, clock, poll=UNHELD) as client:
        run = await await_run(client, **IDS)

    assert run.status == "completed"
    assert clock.slept == [0.25, 0.375, 0.5625]


async def test_not_found_is_raised_the_fourth_time() -> None:
    """A run that is not there is not there."""
    error, requests = await failure(script(refusal(404)), ManualClock())

    assert isinstance(error, NotFoundError)
    assert (error.thread_id, error.run_id) == ("thread_1", "run_1")
    assert len(requests) == 4


async def test_unreadable_answers_are_raised_the_fourth_time_in_a_row() -> None:
    """Three pages of a proxy are borne, the fourth is raised; a good answer starts anew."""
    error, requests = await failure(script(QUEUED, HTML, HTML, HTML, QUEUED, HTML), ManualClock())

    assert isinstance(error, APIResponseValidationError)
    assert (error.thread_id, error.run_id) == ("thread_1", "run_1")
    assert len(requests) == 9


async def test_hanging_get_is_given_up_and_asked_again() -> None:
    """An attempt that hangs costs its own time-out, not the wait."""
    handler = script(QUEUED, Hang(), DONE)

    async with HostileServer(handler) as server, client_of(server, ManualClock()) as client:
        run = await await_run(client, **IDS, poll=UNHELD, request_timeout=0.05)

    assert run.status == "completed"
    assert len(server.requests) == 3


async def test_hanging_body_is_given_up_and_asked_again() -> None:
    """Headers alone are no answer."""
    stuck: list[bool] = []

    async def handler(request: Received) -> Action:
        if stuck:
            return DONE
        stuck.append(True)
        return Answer(200, body=b"{", headers={"Content-Length": "100"})

    async with HostileServer(handler) as server, client_of(server, ManualClock()) as client:
        run = await await_run(client, **IDS, poll=UNHELD, request_timeout=0.05)

    assert run.status == "completed"


async def test_hanging_get_ends_with_the_deadline() -> None:
    """No answer ever: the wait ends by its deadline, on the real clock."""
    async with HostileServer(script(Hang())) as server, client_of(server) as client:
        with pytest.raises(APITimeoutError) as caught:
            await await_run(client, **IDS, timeout=0.1)

    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")
    assert len(server.requests) <= 2


async def test_hanging_credential_ends_with_the_deadline() -> None:
    """A callable that never gives the key cannot hold the wait either."""

    async def never() -> str:
        await anyio.sleep_forever()
        raise AssertionError

    async with (
        HostileServer(script(DONE)) as server,
        AsyncClient(server.url, never) as client,
    ):
        with pytest.raises(APITimeoutError):
            await await_run(client, **IDS, timeout=0.1)

    assert server.requests == []


async def test_closed_client_ends_the_wait() -> None:
    """A client closed in mid-wait is a ConfigError, not an outage of the server."""
    async with HostileServer(script(QUEUED)) as server, client_of(server, ManualClock()) as client:
        with pytest.raises(ConfigError, match="closed"):
            await await_run(client, **IDS, on_status=lambda run: client.aclose())


async def test_broken_tls_ends_the_wait() -> None:
    """What is not transient is raised at once: here, a server that speaks no TLS."""
    clock = ManualClock()

    async def answer_in_the_clear(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer_in_the_clear, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with AsyncClient(url, seams=clock.runtime()) as client:
            with pytest.raises(APIConnectionError) as caught:
                await await_run(client, **IDS)

    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")
    assert clock.slept == []


async def test_poll_costs_no_retry_budget() -> None:
    """A wait through many failures leaves the budget of other calls untouched."""
    clock = ManualClock()
    handler = script(QUEUED, *[refusal(503)] * 12, DONE)

    async with HostileServer(handler) as server, client_of(server, clock, poll=UNHELD) as client:
        await await_run(client, **IDS)
        server.requests.clear()

        async def retry(request: Received) -> Action:
            return refusal(503) if len(server.requests) < 3 else Answer(json=run_json())

        server.answer_with(retry)
        await client.runs.retrieve("run_1", thread_id="thread_1")

    assert len(server.requests) == 3
