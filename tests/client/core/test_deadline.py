"""Every call ends by its time, whatever hangs; what is closed stays closed."""

import anyio
import pytest

from openai_runs import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    AsyncClient,
    AuthenticationError,
    PollPolicy,
    RetryPolicy,
    await_run,
)
from tests.client.acting import IDS, client_of, refusal, script
from tests.support import Action, Answer, Hang, HostileServer, ManualClock, Received, run_json

EMPTY = Answer(json={"object": "list", "data": [], "has_more": False})


async def never() -> str:
    """Give no key, ever."""
    await anyio.sleep_forever()
    return "key"


async def test_key_that_never_comes_ends_with_the_attempt() -> None:
    """A hanging callable is bounded by `request_timeout`, is asked once, and nothing is sent."""
    async with (
        HostileServer(script(EMPTY)) as server,
        AsyncClient(server.url, never, request_timeout=0.05) as client,
    ):
        with pytest.raises(APITimeoutError, match="callable that gives the key"):
            await client.runs.list("thread_1")

    assert server.requests == []


async def test_recovering_is_bounded_as_a_whole() -> None:
    """`timeout` covers both requests and the pause between them."""

    def slow(request: Received) -> Action:
        return EMPTY if len(server.requests) == 1 else Hang()

    async with HostileServer(slow) as server, AsyncClient(server.url, "k") as client:
        with pytest.raises(APITimeoutError, match="recovering a run"):
            await client.runs.recover("thread_1", idempotency_key="key-1", timeout=0.7)


async def test_gathering_a_result_is_bounded_as_a_whole() -> None:
    """The first list answers, the second hangs: one time-out for both, with the ids."""

    def half(request: Received) -> Action:
        if request.path.endswith("/run_1"):
            return Answer(json=run_json("completed"))
        return EMPTY if request.path.endswith("/messages") else Hang()

    async with HostileServer(half) as server, AsyncClient(server.url, "k") as client:
        run = await client.runs.retrieve("run_1", thread_id="thread_1")
        with pytest.raises(APITimeoutError, match="gathering the result") as caught:
            await client.runs.result(run, timeout=0.2)

    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")


async def test_closed_client_tells_calls_that_wait_for_a_connection() -> None:
    """They end with an error of ours, not with a cancellation that nobody asked for."""
    outcomes: list[BaseException] = []
    arrived = anyio.Event()

    def hang(request: Received) -> Action:
        arrived.set()
        return Hang()

    async with HostileServer(hang) as server:
        client = AsyncClient(server.url, "k", max_connections=1, retry=RetryPolicy(max_retries=0))

        async def call() -> None:
            try:
                await client.threads.create()
            except APIError as error:
                outcomes.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await arrived.wait()
            group.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            await client.aclose()

    assert len(outcomes) == 2
    assert any("the client was closed" in str(one) for one in outcomes)


async def test_servers_mention_of_our_key_is_masked() -> None:
    """A key of any form is not repeated, in text, body or headers."""
    key = "my-own-key-0123456789"
    body = {"error": {"message": f"{key} is wrong", "type": "x", "code": None, "param": None}}
    answer = Answer(401, json=body, headers={"X-Key": key})

    async with HostileServer(script(answer)) as server, AsyncClient(server.url, key) as client:
        with pytest.raises(AuthenticationError) as caught:
            await client.threads.create()

    assert key not in f"{caught.value} {caught.value!r} {caught.value.body} {caught.value.headers}"
    assert "*** is wrong" in str(caught.value)


async def test_no_key_is_sent_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """`api_key=None` overrules the environment; leaving it out does not."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")

    async with HostileServer(script(EMPTY)) as server:
        async with AsyncClient(server.url, api_key=None) as client:
            await client.runs.list("thread_1")
        async with AsyncClient(server.url) as client:
            await client.runs.list("thread_1")

    sent = [request.headers.get("authorization") for request in server.requests]
    assert sent == [None, "Bearer sk-from-the-environment"]


async def test_outage_is_not_stretched_by_what_a_dead_server_asks_for() -> None:
    """503 with a long Retry-After ends at `max_outage` all the same."""
    clock = ManualClock()
    gone = refusal(503, retry_after="110")

    async with HostileServer(script(gone)) as server, client_of(server, clock) as client:
        with pytest.raises(APIConnectionError):
            await await_run(client, **IDS, poll=PollPolicy(max_outage=60))

    assert sum(clock.slept) == pytest.approx(60)


async def test_next_page_ends_where_the_cursor_turns_in_circles() -> None:
    """a, b, a: the third page is not followed again."""

    def circle(request: Received) -> Action:
        last = "run_b" if request.query.get("after") == ["run_a"] else "run_a"
        data = [run_json(id=last)]
        return Answer(json={"object": "list", "data": data, "has_more": True, "last_id": last})

    async with HostileServer(circle) as server, AsyncClient(server.url, "k") as client:
        page = await client.runs.list("thread_1")
        pages = [page]
        while following := await pages[-1].next_page():
            pages.append(following)

    assert len(pages) == 3


async def test_cancel_in_the_pause_after_a_refusal_creates_nothing() -> None:
    """A create that was refused by 429 is not ambiguous: undoing it sends nothing."""
    busy = refusal(429, openai_runs_features="idempotency, prefer-wait", retry_after="5")
    paused = anyio.Event()

    async def sleep(seconds: float) -> None:
        paused.set()
        await anyio.sleep_forever()

    runtime = ManualClock().runtime(sleep=sleep)
    async with (
        HostileServer(script(busy)) as server,
        AsyncClient(server.url, "k", seams=runtime) as client,
        anyio.create_task_group() as group,
    ):

        async def create() -> None:
            await client.runs.create_and_poll("thread_1", assistant_id="asst_1", on_cancel="cancel")

        group.start_soon(create)
        await paused.wait()
        group.cancel_scope.cancel()

    assert [request.method for request in server.requests] == ["POST"]
