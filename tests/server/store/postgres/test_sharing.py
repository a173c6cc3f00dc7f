"""Several servers on one database: what one has committed, the clients of the others see."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import anyio
import pytest

from openai_runs.server import (
    Backend,
    Call,
    CallTools,
    Finish,
    Hang,
    LocalServer,
    ModelEvent,
    ModelRequest,
    Say,
    ScriptedBackend,
    TextDelta,
)
from tests.databases import execute
from tests.server.http.test_sse_response import read_until, rest_of, start_and_read
from tests.server.store.postgres.proxying import PostgresProxy
from tests.server.support import FUNCTION, Caller, run_path, told_text

Join = Callable[..., Awaitable[Caller]]
WORDS = [f"word {number} " for number in range(30)]
KEY = {"Idempotency-Key": "once"}


@pytest.fixture
async def join() -> AsyncIterator[Join]:
    """A function that opens a server on a database, and returns who calls it."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def open_server(
            url: str, *script: Any, backend: Backend | None = None, **options: Any
        ) -> Caller:
            backend = backend or ScriptedBackend(script or (lambda request: "Fine."))
            server = await stack.enter_async_context(LocalServer(url, backend, **options))
            return Caller(session, server.url, server.aclose)

        yield open_server


async def test_objects_of_one_server_are_there_at_the_other(join: Join, postgres_db: str) -> None:
    """Made here, changed and deleted there: each sees it with the next request."""
    first, second = await join(postgres_db), await join(postgres_db)
    assistant = await first.assistant(name="Ada")
    thread = await second.thread("Hello")

    await second.post(f"/assistants/{assistant}", {"name": "Grace"})
    run = await first.settled(
        await first.post(f"/threads/{thread}/runs", {"assistant_id": assistant})
    )
    await second.send("DELETE", f"/threads/{thread}")

    assert (await first.get(f"/assistants/{assistant}"))["name"] == "Grace"
    assert run["status"] == "completed"
    assert (await first.send("GET", run_path(run))).status == 404


async def test_held_poll_is_answered_when_another_server_ends_the_run(
    join: Join, postgres_db: str
) -> None:
    """The server that only takes requests in hears of each move of the one that executes."""
    asked = await join(postgres_db, executes=False)
    assistant, thread = await asked.assistant(), await asked.thread("Go.")
    run = await asked.post(f"/threads/{thread}/runs", {"assistant_id": assistant})
    ended: list[Any] = []

    async def poll() -> None:
        ended.append(await asked.settled(run))

    async with anyio.create_task_group() as group:
        group.start_soon(poll)
        await join(postgres_db)

    assert [each["status"] for each in ended] == ["completed"]


async def test_stream_is_sent_by_a_server_that_does_not_execute_the_run(
    join: Join, postgres_db: str
) -> None:
    """All events once, in order, and the text equal to its deltas."""
    asked = await join(postgres_db, executes=False)
    await join(postgres_db, *[Say(WORDS, pause=0.002)] * 5)

    for _ in range(5):
        streamed = await asked.start_stream()
        numbers = [int(event.id.partition("-")[2]) for event in streamed.events]
        assert numbers == list(range(1, len(numbers) + 1))
        assert told_text(streamed.events) == "".join(WORDS)
        assert (streamed.names[-1], streamed.done) == ("run.completed", True)


async def test_run_is_cancelled_through_another_server(join: Join, postgres_db: str) -> None:
    """The model call ends there; the stream here ends with what it had said."""
    executing = await join(postgres_db, Hang("Half"))
    other = await join(postgres_db, executes=False)
    response, before = await start_and_read(executing, "Half")
    run = before[0].data

    cancelled = await other.send("POST", f"{run_path(run)}/cancel")
    after = await rest_of(response)

    assert (cancelled.status, cancelled.json["status"]) == (200, "cancelling")
    assert after.names[-1] == "run.cancelled"
    assert (await other.settled(cancelled.json))["status"] == "cancelled"


async def test_outputs_may_be_sent_to_any_server(join: Join, postgres_db: str) -> None:
    """The run goes on wherever there is a free slot."""
    first = await join(postgres_db, CallTools([Call("f")]), executes=True)
    waiting = await first.settled(await first.start())
    await first.close()
    second = await join(postgres_db, "Done.")
    third = await join(postgres_db, executes=False)

    queued = await third.submit(waiting)
    done = await third.settled(queued.json)

    assert done["status"] == "completed"
    assert (await second.messages(done))[-1]["content"][0]["text"]["value"] == "Done."


async def test_request_is_carried_out_once_when_it_comes_to_two_servers(
    join: Join, postgres_db: str
) -> None:
    """With one key, at the same moment: one run, and everybody is answered with it."""
    callers = [await join(postgres_db, executes=False) for _ in range(2)]
    assistant = await callers[0].assistant(tools=[FUNCTION])
    body = {"assistant_id": assistant, "thread": {"messages": []}}
    replies: list[Any] = []

    async def ask(caller: Caller) -> None:
        replies.append(await caller.send("POST", "/threads/runs", json=body, headers=KEY))

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(ask, callers[number % 2])

    assert {reply.status for reply in replies} == {200}
    assert len({reply.json["id"] for reply in replies}) == 1
    assert sum("idempotent-replayed" in reply.headers for reply in replies) == 9
    assert execute(postgres_db, "SELECT count(*) FROM runs") == [(1,)]


async def test_key_of_another_request_is_refused_by_any_server(
    join: Join, postgres_db: str
) -> None:
    """A 409, wherever the first one came to."""
    first, second = await join(postgres_db), await join(postgres_db)
    await first.post("/threads", {}, headers=KEY)

    other = await second.send("POST", "/threads", json={"metadata": {"a": "b"}}, headers=KEY)

    assert (other.status, other.json["error"]["code"]) == (409, "idempotency_key_reused")


async def test_thread_deleted_at_another_server_ends_its_stream(
    join: Join, postgres_db: str
) -> None:
    """With an active run on it: the reader is not left waiting, nor the executor at work."""
    executing = await join(postgres_db, Hang("Half"), "Fine.", max_concurrent_runs=1)
    other = await join(postgres_db, executes=False)
    response, before = await start_and_read(executing, "Half")

    deleted = await other.send("DELETE", f"/threads/{before[0].data['thread_id']}")
    after = await rest_of(response)
    next_run = await other.settled(await other.start())

    assert deleted.status == 200
    assert not after.done
    assert next_run["status"] == "completed"  # the slot is free again


async def test_reader_moves_to_another_server(join: Join, postgres_db: str) -> None:
    """A client whose server is gone goes on at the next one: the text whole, nothing twice."""
    executing = await join(postgres_db, Say(WORDS, pause=0.02))
    left = await join(postgres_db, executes=False)
    response, before = await start_and_read(left, "word 3")
    response.close()
    await left.close()

    after = await executing.replay(before[0].data, before[-1].id)

    assert told_text([*before, *after.events]) == "".join(WORDS)
    assert after.done


class Gated:
    """Says half a sentence, and the rest once it may."""

    def __init__(self) -> None:
        self.go_on = anyio.Event()

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Answer."""
        yield TextDelta("Half ")
        await self.go_on.wait()
        yield TextDelta("done.")
        yield Finish()


async def cut_off(proxy: PostgresProxy) -> None:
    """Have the server behind the proxy hear of nothing more."""
    proxy.refusing = True
    proxy.cut_all()
    while not proxy.refused:  # noqa: ASYNC110 - nobody announces it
        await anyio.sleep(0.01)


async def test_held_poll_catches_up_when_changes_are_heard_of_again(
    join: Join, postgres_db: str, proxy: PostgresProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """The notification came while nobody listened: what is held is asked for again."""
    caplog.set_level("INFO")
    asked, gated = await join(proxy.url, executes=False), Gated()
    executing = await join(postgres_db, backend=gated)
    run = await asked.reaches(await asked.start(), "in_progress")
    held: list[Any] = []

    async def hold() -> None:
        held.append(await asked.get(run_path(run), headers={"Prefer": "wait=60"}))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(hold)
            await anyio.sleep(0.2)  # it is held by then, or asks later and finds the end
            await cut_off(proxy)
            gated.go_on.set()
            await executing.settled(run)
            proxy.refusing = False

    assert held[0]["status"] == "completed"
    assert "changes are heard of again" in caplog.text


async def test_stream_catches_up_when_changes_are_heard_of_again(
    join: Join, postgres_db: str, proxy: PostgresProxy
) -> None:
    """What was said meanwhile comes from the log: nothing is missing, and nothing twice."""
    asked = await join(proxy.url, executes=False)
    await join(postgres_db, Say(WORDS, pause=0.01))
    response, before = await start_and_read(asked, "word 2")

    await cut_off(proxy)
    await anyio.sleep(0.1)
    proxy.refusing = False
    with anyio.fail_after(30):
        after = await rest_of(response)

    assert told_text([*before, *after.events]) == "".join(WORDS)
    assert after.done


async def test_all_goes_on_when_every_connection_was_ended(join: Join, postgres_db: str) -> None:
    """By an administrator, or a restart: of the pool, of who listens, and of the queue."""
    executing = await join(postgres_db, *["Fine."] * 10)
    ends = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    for _ in range(3):
        assert execute(postgres_db, ends)
        run = await executing.settled(await executing.start())
        assert run["status"] == "completed"


async def test_events_are_read_until_their_end(join: Join, postgres_db: str) -> None:
    """A reader that joins in the middle sees the beginning too."""
    executing = await join(postgres_db, Say(WORDS, pause=0.01))
    other = await join(postgres_db, executes=False)
    response, before = await start_and_read(executing, "word 2")

    url = f"{other.url}{run_path(before[0].data)}/stream"
    async with other.session.get(url) as joined:
        begun = await read_until(joined, "word 5")
        rest = await rest_of(joined)
    whole = await rest_of(response)

    assert [*begun, *rest.events] == [*before, *whole.events]
