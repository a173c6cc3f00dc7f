"""`Prefer: wait`: the answer is held until there is news."""

from __future__ import annotations

import gc
import sqlite3
import threading
from contextlib import suppress
from typing import Any

import aiohttp
import anyio
import pytest

from openai_runs.server import Call, CallTools, Hang, LocalServer, ScriptedBackend
from openai_runs.server.events.change_bus import ChangeBus
from openai_runs.server.http.request_parsing import preferred_wait
from openai_runs.server.store import Moved, Removed
from tests.server.conftest import Serve
from tests.server.support import Caller, Reply, run_path

HEADERS: dict[str, tuple[list[str], int | None]] = {
    "plain": (["wait=5"], 5),
    "capped": (["wait=3600"], 60),
    "zero": (["wait=0"], 0),
    "any-case": (["WAIT=7"], 7),
    "among-others": (["respond-async, wait=7; foo=bar, handling=lenient"], 7),
    "second-header": (["respond-async", "wait=7"], 7),
    "first-counts": (["wait=3, wait=9"], 3),
    "quoted": (['wait="8"'], 8),
    "spaces": (["  wait = 8 "], 8),
    "word": (["wait=long"], None),
    "negative": (["wait=-1"], None),
    "fraction": (["wait=1.5"], None),
    "bare": (["wait"], None),
    "other": (["waiting=5"], None),
    "none": ([], None),
    "empty": ([""], None),
}


@pytest.mark.parametrize(("headers", "expected"), HEADERS.values(), ids=HEADERS)
def test_preference_is_read_as_rfc_7240_has_it(headers: list[str], expected: int | None) -> None:
    """What is understood is capped, and what is not is no preference."""
    assert preferred_wait(headers) == expected


def moved(number: int, status: str, size: int) -> Moved:
    """Return a change to this status of a run whose JSON has so many bytes."""
    return Moved(
        id=f"run_{number}",
        thread_id=f"thread_{number}",
        status=status,
        stored=b"x" * size,
        created_at=1,
        expires_at=None,
        total_tokens=0,
    )


def kept_bytes(bus: ChangeBus, numbers: range) -> int:
    """Return how many bytes of these runs are at hand."""
    states = [bus.latest(f"run_{number}") for number in numbers]
    return sum(len(state.stored) for state in states if state is not None)


def test_states_are_kept_up_to_a_number_of_bytes() -> None:
    """The oldest go first; one that changes is counted once, one that is over not at all."""
    bus, mib = ChangeBus(10), 1024 * 1024
    for number in range(100):
        for status in ("queued", "in_progress", "requires_action"):
            bus.publish(moved(number, status, mib))

    assert kept_bytes(bus, range(100)) == 32 * mib
    assert bus.latest("run_67") is None
    assert bus.latest("run_68") is not None

    for number in range(68, 99):
        bus.publish(moved(number, "completed", mib))
    bus.publish(Removed("run_99"))
    assert kept_bytes(bus, range(100)) == 0

    for number in range(200, 232):
        bus.publish(moved(number, "queued", mib))
    assert kept_bytes(bus, range(200, 232)) == 32 * mib
    bus.publish(moved(300, "queued", 33 * mib))
    assert bus.latest("run_300") is None


async def test_held_answer_comes_with_the_next_status(serve: Serve) -> None:
    """The request is answered by the change itself, and says that it was held."""
    caller = await serve(Hang())
    run = await caller.reaches(await caller.start(), "in_progress")
    held: list[Any] = []

    async def hold() -> None:
        held.append(await caller.send("GET", run_path(run), headers={"Prefer": "wait=30"}))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(hold)
        await caller.post(f"{run_path(run)}/cancel")

    assert len(held) == 5
    assert {reply.headers["preference-applied"] for reply in held} == {"wait=30"}
    assert {reply.json["status"] for reply in held} <= {"cancelling", "cancelled"}


async def test_held_answer_comes_unchanged_when_the_time_is_up(serve: Serve) -> None:
    """Nothing happened, and that is an answer too."""
    caller = await serve(Hang())
    run = await caller.reaches(await caller.start(), "in_progress")

    reply = await caller.send("GET", run_path(run), headers={"Prefer": "wait=1"})

    assert (reply.json["status"], reply.headers["preference-applied"]) == ("in_progress", "wait=1")
    assert reply.headers["openai-poll-after-ms"] == "250"


async def test_settled_run_is_answered_at_once(serve: Serve) -> None:
    """Neither a finished run nor one that waits for outputs is held."""
    caller = await serve(CallTools([Call("weather")]), "Done.")
    waiting = await caller.settled(await caller.start())

    with anyio.fail_after(20):
        at_once = await caller.send("GET", run_path(waiting), headers={"Prefer": "wait=60"})
        done = await caller.settled((await caller.submit(waiting)).json)
        after = await caller.send("GET", run_path(done), headers={"Prefer": "wait=60"})

    assert at_once.json["status"] == "requires_action"
    assert at_once.headers["openai-poll-after-ms"] == "250"
    assert after.json["status"] == "completed"
    assert "openai-poll-after-ms" not in after.headers


async def test_junk_preference_is_ignored(serve: Serve) -> None:
    """The answer comes at once and promises nothing."""
    caller = await serve(Hang())
    run = await caller.reaches(await caller.start(), "in_progress")

    reply = await caller.send("GET", run_path(run), headers={"Prefer": "wait=soon"})

    assert reply.status == 200
    assert "preference-applied" not in reply.headers


def statements_from_now_on() -> list[str]:
    """Return a list that gets each statement any connection of this process executes."""
    seen: list[str] = []
    for connection in gc.get_objects():
        if isinstance(connection, sqlite3.Connection):
            with suppress(sqlite3.ProgrammingError):  # one that is closed
                connection.set_trace_callback(seen.append)
    return seen


class Holding:
    """Requests that are held, of which it is known when all have been sent."""

    def __init__(self, url: str, number: int) -> None:
        self.url = url
        self.replies: list[Reply] = []
        self._number = number
        self._all_sent = anyio.Event()
        self._sent = 0

    async def _note(self, *_: object) -> None:
        self._sent += 1
        if self._sent == self._number:
            self._all_sent.set()

    async def hold(self, run: Any) -> None:
        """Ask for the run as often as is wanted, and keep the answers."""
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(self._note)
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as session,
            anyio.create_task_group() as group,
        ):
            for _ in range(self._number):
                group.start_soon(self._ask, Caller(session, self.url), run)

    async def _ask(self, caller: Caller, run: Any) -> None:
        headers = {"Prefer": "wait=60"}
        self.replies.append(await caller.send("GET", run_path(run), headers=headers))

    async def arrived(self, caller: Caller) -> None:
        """Return once the server has them all: it reads what was sent first."""
        with anyio.fail_after(20):
            await self._all_sent.wait()
            for _ in range(3):
                await caller.post("/threads")


@pytest.mark.sqlite("counts its statements; with PostgreSQL the answer is read once for all")
async def test_held_requests_cost_no_query_and_no_thread_each(serve: Serve) -> None:
    """200 wait on one run, 50 on another: a commit wakes its own, with one answer for all."""
    caller = await serve(Hang(), Hang())
    run = await caller.reaches(await caller.start(), "in_progress")
    other = await caller.reaches(await caller.start(), "in_progress")
    held, bystanders = Holding(caller.url, 200), Holding(caller.url, 50)
    threads = threading.active_count()

    async with anyio.create_task_group() as group:
        group.start_soon(bystanders.hold, other)
        async with anyio.create_task_group() as inner:
            inner.start_soon(held.hold, run)
            await held.arrived(caller)
            await bystanders.arrived(caller)
            statements = statements_from_now_on()
            more_threads = threading.active_count() - threads
            cancelling = await caller.send("POST", f"{run_path(run)}/cancel")
        reads = [one for one in statements if one == "BEGIN"]
        waiting = len(bystanders.replies)
        await caller.post(f"{run_path(other)}/cancel")

    assert {reply.text for reply in held.replies} == {cancelling.text}
    assert (reads, more_threads, waiting) == ([], 0, 0)
    assert any("UPDATE runs" in one for one in statements)
    assert {reply.json["status"] for reply in bystanders.replies} == {"cancelling"}


async def test_requests_beyond_the_bound_are_answered_at_once(serve: Serve) -> None:
    """The preference is then not said to be applied, so the client polls."""
    caller = await serve(Hang(), max_held=2)
    run = await caller.reaches(await caller.start(), "in_progress")
    held = Holding(caller.url, 2)

    async with anyio.create_task_group() as group:
        group.start_soon(held.hold, run)
        await held.arrived(caller)
        with anyio.fail_after(20):
            more = await caller.send("GET", run_path(run), headers={"Prefer": "wait=60"})
        await caller.post(f"{run_path(run)}/cancel")

    assert "preference-applied" not in more.headers
    assert (more.json["status"], more.headers["openai-poll-after-ms"]) == ("in_progress", "250")
    assert all("preference-applied" in reply.headers for reply in held.replies)


async def test_change_of_metadata_is_seen_at_once_and_holds_on(serve: Serve) -> None:
    """It is no change of the status; who asks, or has waited long enough, gets it."""
    caller = await serve(Hang())
    run = await caller.reaches(await caller.start(), "in_progress")
    replies: list[Reply] = []

    async def hold() -> None:
        replies.append(await caller.send("GET", run_path(run), headers={"Prefer": "wait=1"}))

    async with anyio.create_task_group() as group:
        group.start_soon(hold)
        await caller.health()
        changed = await caller.post(run_path(run), {"metadata": {"colour": "red"}})
        read = await caller.get(run_path(run))

    assert changed["metadata"] == read["metadata"] == {"colour": "red"}
    assert replies[0].json == read
    assert replies[0].headers["preference-applied"] == "wait=1"


async def test_run_is_found_on_its_own_thread_only(serve: Serve) -> None:
    """Also while it is at work, and its state at hand."""
    caller = await serve(Hang())
    run = await caller.reaches(await caller.start(), "in_progress")

    elsewhere = await caller.send("GET", run_path({**run, "thread_id": await caller.thread()}))

    assert elsewhere.status == 404


async def test_closing_server_answers_what_it_holds() -> None:
    """Nobody is left hanging when the server stops."""
    server = LocalServer(backend=ScriptedBackend([Hang()]))
    await server.start()
    async with aiohttp.ClientSession() as session, anyio.create_task_group() as group:
        caller = Caller(session, server.url)
        run = await caller.reaches(await caller.start(), "in_progress")
        held = Holding(server.url, 1)
        group.start_soon(held.hold, run)
        await held.arrived(caller)
        with anyio.fail_after(20):
            await server.aclose()

    assert held.replies[0].status == 200
    assert held.replies[0].json["status"] in {"in_progress", "queued"}
