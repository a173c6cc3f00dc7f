"""`Prefer: wait`: the answer is held until there is news."""

from __future__ import annotations

from typing import Any

import aiohttp
import anyio
import pytest

from openai_runs.server import Call, CallTools, Hang, LocalServer, ScriptedBackend
from openai_runs.server.reading import preferred_wait
from tests.server.conftest import Serve
from tests.server.support import Caller, run_path

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


async def test_closing_server_answers_what_it_holds() -> None:
    """Nobody is left hanging when the server stops."""
    server = LocalServer(backend=ScriptedBackend([Hang()]))
    await server.start()
    async with aiohttp.ClientSession() as session, anyio.create_task_group() as group:
        caller = Caller(session, server.url)
        run = await caller.reaches(await caller.start(), "in_progress")
        held: list[Any] = []

        async def hold() -> None:
            held.append(await caller.send("GET", run_path(run), headers={"Prefer": "wait=60"}))

        group.start_soon(hold)
        await caller.get(run_path(run))
        with anyio.fail_after(20):
            await server.aclose()

    assert held[0].status == 200
    assert held[0].json["status"] in {"in_progress", "queued"}
