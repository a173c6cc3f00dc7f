"""The client under aioresponses, with sessions and with middlewares of its users."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from aioresponses import CallbackResult, aioresponses
from yarl import URL

from openai_runs import (
    APIConnectionError,
    APITimeoutError,
    AsyncClient,
    NotFoundError,
    RateLimitError,
)
from tests.support import Answer, HostileServer, ManualClock, run_json

BASE = "https://runs.example/v1"
RUN = f"{BASE}/threads/thread_1/runs/run_1"
RUNS = f"{BASE}/threads/thread_1/runs"


@pytest.fixture
def mocked() -> Iterator[aioresponses]:
    """Aioresponses, mended by our plugin; nothing reaches the network."""
    with aioresponses() as mock:
        yield mock


def client_of(**options: Any) -> AsyncClient:
    """Return a client that does not wait."""
    return AsyncClient(BASE, "k", seams=ManualClock().runtime(), **options)


async def test_answer_is_read(mocked: aioresponses) -> None:
    """Status, JSON and headers of a mocked answer come through, and what was sent is recorded."""
    mocked.get(RUN, payload=run_json("completed"), headers={"x-request-id": "req_1"})
    async with client_of() as client:
        run = await client.runs.retrieve("run_1", thread_id="thread_1")

    assert run.status == "completed"
    assert run.http is not None
    assert run.http.request_id == "req_1"
    (call,) = mocked.requests["GET", URL(RUN)]
    assert call.kwargs["headers"]["Authorization"] == "Bearer k"


async def test_body_of_a_create_is_recorded(mocked: aioresponses) -> None:
    """Users assert on what they sent; a callback may answer by it."""
    bodies: list[bytes] = []

    def callback(url: URL, **kwargs: Any) -> CallbackResult:
        bodies.append(kwargs["data"])
        return CallbackResult(payload=run_json())

    mocked.post(RUNS, callback=callback)
    async with client_of() as client:
        await client.runs.create("thread_1", assistant_id="asst_1", model="m")

    assert b'"assistant_id":"asst_1"' in bodies[0]


async def test_query_is_part_of_the_mocked_address(mocked: aioresponses) -> None:
    """A page is found under its query."""
    page = {"object": "list", "data": [run_json()], "has_more": False}
    mocked.get(f"{RUNS}?limit=2&order=asc", payload=page)
    async with client_of() as client:
        runs = [run async for run in client.runs.list("thread_1", limit=2, order="asc")]

    assert [run.id for run in runs] == ["run_1"]


async def test_error_answers_and_retries_work(mocked: aioresponses) -> None:
    """A mocked 429 is waited for; a 404 raises what it should."""
    mocked.get(RUN, status=429, headers={"Retry-After": "2"}, payload={"error": {"message": "x"}})
    mocked.get(RUN, payload=run_json())
    mocked.get(RUN, status=404, body="nothing here")
    clock = ManualClock()
    async with AsyncClient(BASE, seams=clock.runtime()) as client:
        run = await client.runs.retrieve("run_1", thread_id="thread_1")
        with pytest.raises(NotFoundError, match="nothing here"):
            await client.runs.retrieve("run_1", thread_id="thread_1")

    assert run.id == "run_1"
    assert clock.slept == [2.0]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (aiohttp.ServerDisconnectedError(), APIConnectionError),
        (ConnectionResetError(), APIConnectionError),
        (TimeoutError(), APITimeoutError),
    ],
    ids=repr,
)
async def test_mocked_faults_become_ours(
    mocked: aioresponses, fault: Exception, kind: type[Exception]
) -> None:
    """What `exception=` throws in is translated as on a real connection."""
    mocked.get(RUN, exception=fault, repeat=True)
    async with client_of() as client:
        with pytest.raises(kind):
            await client.runs.retrieve("run_1", thread_id="thread_1")

    assert len(mocked.requests["GET", URL(RUN)]) == 3


async def test_large_answer_is_read(mocked: aioresponses) -> None:
    """More than the 128 KiB at which aioresponses alone breaks under aiohttp 3.14."""
    mocked.get(RUN, payload=run_json(instructions="x" * 1_000_000))
    async with client_of() as client:
        run = await client.runs.retrieve("run_1", thread_id="thread_1")

    assert len(run.instructions or "") == 1_000_000


async def test_wait_works(mocked: aioresponses) -> None:
    """`create_and_poll` over mocked answers, without a second of real time."""
    mocked.post(RUNS, payload=run_json("queued"))
    mocked.get(RUN, payload=run_json("in_progress"))
    mocked.get(RUN, payload=run_json("completed"))
    async with client_of() as client:
        run = await client.runs.create_and_poll("thread_1", assistant_id="asst_1")

    assert run.status == "completed"


async def test_session_of_the_caller_works_and_stays_open(mocked: aioresponses) -> None:
    """A mocked session is as good as a real one."""
    mocked.get(RUN, payload=run_json())
    async with (
        aiohttp.ClientSession() as session,
        client_of(session=session) as client,
    ):
        await client.runs.retrieve("run_1", thread_id="thread_1")
        assert not session.closed


async def test_vendors_own_404_names_the_shutdown_and_the_ways_on(mocked: aioresponses) -> None:
    """Whoever still points at the vendor learns why, from the exception itself."""
    url = "https://api.openai.com/v1"
    mocked.get(f"{url}/threads/thread_1", status=404, payload={"error": {"message": "Not found"}})
    async with AsyncClient(url, "k") as client:
        with pytest.raises(NotFoundError) as caught:
            await client.threads.retrieve("thread_1")

    for words in ("Not found", "2026-08-26", "base_url", "AsyncClient.local()"):
        assert words in str(caught.value)


async def test_middleware_of_the_caller_sees_each_attempt_and_may_answer() -> None:
    """Tracing, signing, recording: a session's middlewares work as aiohttp documents them."""
    seen: list[tuple[str, str]] = []

    async def note(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        request.headers["X-Signed"] = "yes"
        response = await handler(request)
        seen.append((request.method, str(response.status)))
        return response

    answers = [Answer(429, {"error": {"message": "x"}}), Answer(json={"id": "thread_1"})]
    async with (
        HostileServer(lambda _: answers.pop(0)) as server,
        aiohttp.ClientSession(middlewares=[note]) as session,
        AsyncClient(server.url, session=session, seams=ManualClock().runtime()) as client,
    ):
        await client.threads.create()

    assert seen == [("POST", "429"), ("POST", "200")]
    assert [request.headers["x-signed"] for request in server.requests] == ["yes", "yes"]


async def test_traces_of_the_caller_see_the_requests() -> None:
    """`TraceConfig` works on a session of the caller's."""
    trace, seen = aiohttp.TraceConfig(), list[str]()

    async def on_end(session: Any, context: Any, params: aiohttp.TraceRequestEndParams) -> None:
        seen.append(f"{params.method} {params.response.status}")

    trace.on_request_end.append(on_end)
    async with (
        HostileServer(lambda _: Answer(json={"id": "thread_1"})) as server,
        aiohttp.ClientSession(trace_configs=[trace]) as session,
        AsyncClient(server.url, session=session) as client,
    ):
        await client.threads.retrieve("thread_1")

    assert seen == ["GET 200"]


async def test_rate_limit_of_a_mocked_answer_is_read(mocked: aioresponses) -> None:
    """What the quota says is on the exception's headers."""
    mocked.get(
        RUN,
        status=429,
        payload={"error": {"message": "spent", "code": "insufficient_quota"}},
        headers={"x-ratelimit-remaining-requests": "0"},
    )
    async with client_of() as client:
        with pytest.raises(RateLimitError) as caught:
            await client.runs.retrieve("run_1", thread_id="thread_1")

    assert caught.value.code == "insufficient_quota"
    assert caught.value.headers["x-ratelimit-remaining-requests"] == "0"
