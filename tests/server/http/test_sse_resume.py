"""Taking a stream up again: the same bytes, no gap, nothing twice; or a 409."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from openai_runs.config import EVENTS_TTL
from openai_runs.server import (
    Call,
    CallTools,
    Finish,
    Hang,
    ModelEvent,
    ModelRequest,
    Say,
    ScriptedBackend,
    TextDelta,
)
from tests.databases import Database, Db
from tests.server.conftest import Serve
from tests.server.dooming import doomed
from tests.server.execution.test_restart import finish
from tests.server.http.test_sse_response import (
    assert_valid,
    outputs_of,
    read_until,
    rest_of,
    start_and_read,
)
from tests.server.support import (
    FUNCTION,
    Event,
    ManualClock,
    Streamed,
    run_path,
    told_text,
)

KEY = {"Idempotency-Key": "key-1"}
DONE = b"event: done\ndata: [DONE]\n\n"


async def whole_run(serve: Serve, tmp_path: Path) -> tuple[Any, Streamed, Streamed]:
    """Return who called, and both legs of a run that calls a tool."""
    calls = CallTools([Call("weather", {"city": "Oslo"})], text=["Let me ", "see."], chunk=4)
    caller = await serve(calls, Say(["Sun", "ny", "."]))
    first = await caller.start_stream()
    waiting = first.events[-1].data
    path = f"{run_path(waiting)}/submit_tool_outputs"
    return caller, first, await caller.stream(path, outputs_of(waiting))


async def test_replay_is_byte_for_byte_what_was_read(serve: Serve, tmp_path: Path) -> None:
    """Of a finished run: both legs, one after the other, and one `done`."""
    caller, first, second = await whole_run(serve, tmp_path)
    run = first.events[-1].data

    replays = [await caller.replay(run) for _ in range(2)]

    assert [replay.body for replay in replays] == [first.body.removesuffix(DONE) + second.body] * 2


async def test_stream_is_resumed_after_each_of_its_events(serve: Serve, tmp_path: Path) -> None:
    """The rest comes as it was; after the last event only `done`."""
    caller, first, second = await whole_run(serve, tmp_path)
    events = [*first.events, *second.events]

    for number, event in enumerate(events, 1):
        rest = await caller.replay(first.events[-1].data, after=event.id)
        assert rest.body == b"".join(one.frame for one in events[number:]) + DONE, event.id


async def test_replay_of_a_run_that_waits_ends_there(serve: Serve) -> None:
    """While nobody has answered, `requires_action` is the end of what there is."""
    caller = await serve(CallTools([Call("weather")]))
    first = await caller.start_stream()
    run = first.events[-1].data

    replay = await caller.replay(run)
    nothing = await caller.replay(run, after=first.events[-1].id)

    assert replay.body == first.body
    assert nothing.body == DONE


async def test_reader_that_drops_and_resumes_misses_nothing(serve: Serve) -> None:
    """Cut off again and again while the run goes on: all events once, in order."""
    words = [f"word {number} " for number in range(200)]
    caller = await serve(Say(words, pause=0.002))
    response, events = await start_and_read(caller, "thread.message.created")
    response.close()
    run = events[0].data

    with anyio.fail_after(30):
        while events[-1].name != "thread.run.completed":
            headers = {"Last-Event-ID": events[-1].id}
            url = f"{caller.url}{run_path(run)}/stream"
            async with caller.session.get(url, headers=headers) as response:
                text = b""
                while not text.endswith(b"\n\n"):
                    text += await response.content.readany()
            events += Streamed(200, {}, text).events
    replay = await caller.replay(run)

    assert told_text(events) == "".join(words)
    assert [event.frame for event in events] == [event.frame for event in replay.events]


@pytest.mark.parametrize("position", ["1-999", "2-1", "0-3", "0-0", "9-99"])
async def test_position_that_is_not_in_the_log_is_lost(serve: Serve, position: str) -> None:
    """Beyond its end, or of another epoch: the client polls instead."""
    caller = await serve("Hi.")
    run = (await caller.start_stream()).events[-1].data

    headers = {"Last-Event-ID": position}
    reply = await caller.send("GET", f"{run_path(run)}/stream", headers=headers)

    assert (reply.status, reply.json["error"]["code"]) == (409, "stream_position_lost")
    assert run["id"] in reply.message


@pytest.mark.parametrize("position", ["7", "1-", "-1", "a-b", "1-2-3", "1-" + "9" * 30, "1 - 2"])
async def test_position_that_is_none_is_a_400(serve: Serve, position: str) -> None:
    """The header is named."""
    caller = await serve("Hi.")
    run = (await caller.start_stream()).events[-1].data

    headers = {"Last-Event-ID": position}
    reply = await caller.send("GET", f"{run_path(run)}/stream", headers=headers)

    assert (reply.status, reply.json["error"]["param"]) == (400, "Last-Event-ID")


async def test_events_of_finished_runs_are_forgotten_after_a_week(
    serve: Serve, tmp_path: Path, database: Database
) -> None:
    """Whole logs go, those of waiting runs stay; the runs themselves stay too."""
    clock = ManualClock()
    turns = [Say("Old."), CallTools([Call("weather")]), Say("New.")]
    db = database(tmp_path / "pruned.db")
    caller = await serve(*turns, db=db, clock=clock, run_lifetime=10 * EVENTS_TTL)
    old = (await caller.start_stream()).events[-1].data
    waiting = (await caller.start_stream()).events[-1].data
    clock.advance(EVENTS_TTL + 1)
    new = (await caller.start_stream()).events[-1].data
    await caller.close()

    caller = await serve(db=db, clock=clock)  # a starting server prunes
    with anyio.fail_after(20):
        while (await caller.send("GET", f"{run_path(old)}/stream")).status == 200:
            pass
    lost = await caller.send("GET", f"{run_path(old)}/stream")

    assert (lost.status, lost.json["error"]["code"]) == (409, "stream_position_lost")
    assert (await caller.replay(waiting)).names[-1] == "run.requires_action"
    assert (await caller.replay(new)).names[-1] == "run.completed"
    assert await caller.get(run_path(old)) == old


async def test_events_go_with_their_thread(serve: Serve) -> None:
    """A deleted thread has no run to be streamed."""
    caller = await serve("Hi.")
    run = (await caller.start_stream()).events[-1].data

    await caller.send("DELETE", f"/threads/{run['thread_id']}")

    assert (await caller.send("GET", f"{run_path(run)}/stream")).status == 404


async def test_same_key_replays_the_leg_it_began(
    serve: Serve, tmp_path: Path, database: Database
) -> None:
    """Create and submit, each from its own first event to its own end; also in a new server."""
    db = database(tmp_path / "once.db")
    caller = await serve(CallTools([Call("weather")]), Say(["Sun", "ny."]), db=db)
    body = {"assistant_id": await caller.assistant(tools=[FUNCTION])}
    create = f"/threads/{await caller.thread('Hello')}/runs"
    first = await caller.stream(create, body, headers=KEY)
    waiting = first.events[-1].data
    submit = f"{run_path(waiting)}/submit_tool_outputs"
    other = {"Idempotency-Key": "key-2"}
    second = await caller.stream(submit, outputs_of(waiting), headers=other)

    again = [await caller.stream(create, body, headers=KEY)]
    again.append(await caller.stream(submit, outputs_of(waiting), headers=other))
    await caller.close()
    caller = await serve(db=db)
    again.append(await caller.stream(create, body, headers=KEY))
    again.append(await caller.stream(submit, outputs_of(waiting), headers=other))
    plain = await caller.send("POST", create, json=body, headers=KEY)

    assert [one.body for one in again] == [first.body, second.body] * 2
    assert {one.headers["idempotent-replayed"] for one in again} == {"true"}
    assert "idempotent-replayed" not in first.headers
    assert (plain.status, plain.json["error"]["code"]) == (409, "idempotency_key_reused")
    assert len((await caller.get(create))["data"]) == 1


async def test_same_key_joins_a_stream_that_is_still_going(serve: Serve) -> None:
    """The second request reads the same events to the same end."""
    caller = await serve(Say([f"word {n} " for n in range(50)], pause=0.01))
    body = {"assistant_id": await caller.assistant()}
    path = f"/threads/{await caller.thread('Hello')}/runs"
    streams: list[Streamed] = []

    async def read() -> None:
        streams.append(await caller.stream(path, body, headers=KEY))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(read)

    assert len({one.body for one in streams}) == 1
    assert streams[0].done
    assert ["idempotent-replayed" in one.headers for one in streams].count(True) == 4


async def test_refusal_is_replayed_as_json(serve: Serve) -> None:
    """A key under which a stream was refused gives the refusal again."""
    caller = await serve(Hang())
    run = await caller.start()
    path, body = f"/threads/{run['thread_id']}/runs", {"assistant_id": run["assistant_id"]}

    replies = [
        await caller.send("POST", path, json={**body, "stream": True}, headers=KEY)
        for _ in range(2)
    ]

    assert [reply.status for reply in replies] == [400, 400]
    assert replies[0].text == replies[1].text
    assert replies[1].headers["idempotent-replayed"] == "true"


async def read_and_kill(db: Db, question: str) -> list[Event]:
    """Return what a stream has told when its server was killed in the middle of the turn."""
    async with doomed(db) as server:
        last = "run.step.delta" if question == "call" else "message.delta"
        response, events = await start_and_read(server.caller, f"thread.{last}", question)
        response.close()
        await server.kill()
    return list(events)


async def test_same_key_finds_nothing_when_the_thread_was_deleted(serve: Serve) -> None:
    """A 404 before a stream begins, and no new run."""
    caller = await serve("Hi.")
    body = {"assistant_id": await caller.assistant(), "stream": True}
    first = await caller.stream("/threads/runs", body, headers=KEY)
    thread_id = first.events[0].data["id"]

    await caller.send("DELETE", f"/threads/{thread_id}")
    again = await caller.send("POST", "/threads/runs", json=body, headers=KEY)

    assert (again.status, again.message) == (404, f"No thread found with id '{thread_id}'.")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("question", ["hang", "call", "long"])
async def test_turn_is_told_anew_when_the_server_was_killed(
    serve: Serve, tmp_path: Path, database: Database, question: str
) -> None:
    """What it had begun stays begun, its pieces are taken back, and one story is left."""
    db = database(tmp_path / "killed.db")
    before = await read_and_kill(db, question)
    run, kept = before[0].data, [event.frame for event in before[:7]]

    caller = await serve(backend=ScriptedBackend(finish), db=db)
    ended = await caller.settled(run)
    replay = await caller.replay(run)

    assert ended["status"] == "completed"
    assert replay.done
    assert told_text(replay.events) == "Finished."
    assert [event.frame for event in replay.events[:7]] == kept
    assert replay.names.count("message.created") == replay.names.count("message.completed") == 1
    assert [int(event.id.partition("-")[2]) for event in replay.events] == [
        number + 1 for number in range(len(replay.events))
    ]
    begun = [event for event in replay.events if event.name == "thread.run.step.created"]
    steps = await caller.steps(run)
    assert [event.data["id"] for event in begun] == [step["id"] for step in steps]
    assert [step["status"] for step in steps] == ["completed", "failed"][: len(steps)]
    assert len(steps) == (2 if question == "call" else 1)
    assert_valid(replay.events)


@pytest.mark.timeout(120)
async def test_position_that_was_taken_back_is_lost(
    serve: Serve, tmp_path: Path, database: Database
) -> None:
    """Before the first piece a stream is resumed, after it no more."""
    db = database(tmp_path / "lost.db")
    before = await read_and_kill(db, "hang")
    run = before[0].data

    caller = await serve(backend=ScriptedBackend(finish), db=db)
    await caller.settled(run)
    whole = await caller.replay(run)
    rests = [await caller.replay(run, after=event.id) for event in before[:7]]
    headers = {"Last-Event-ID": before[7].id}
    refused = await caller.send("GET", f"{run_path(run)}/stream", headers=headers)

    for event, rest in zip(before[:7], rests, strict=True):
        assert rest.body == whole.body.partition(event.frame)[2]
    assert before[7].name == "thread.message.delta"
    assert (refused.status, refused.json["error"]["code"]) == (409, "stream_position_lost")


class Waiting:
    """Answers when it is let go."""

    def __init__(self) -> None:
        self.free = anyio.Event()

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Wait, and answer."""
        await self.free.wait()
        yield TextDelta("Finished.")
        yield Finish()


@pytest.mark.timeout(120)
async def test_reader_of_what_is_taken_back_is_sent_away(
    serve: Serve, tmp_path: Path, database: Database
) -> None:
    """It has read what is no longer true, so its stream ends without `done`."""
    db, backend = database(tmp_path / "away.db"), Waiting()
    async with doomed(db) as server:
        older = await server.caller.start("hang")
        await server.caller.begun(older)
        response, before = await start_and_read(server.caller, "message.delta", "hang")
        response.close()
        await server.kill()
    run = before[0].data

    # One slot, which the older run has: the other one is taken up only after that.
    caller = await serve(backend=backend, db=db, max_concurrent_runs=1)
    async with caller.session.get(f"{caller.url}{run_path(run)}/stream") as response:
        again = await read_until(response, "message.delta")
        backend.free.set()
        rest = await rest_of(response)
    await caller.settled(run)

    assert [event.frame for event in again] == [event.frame for event in before]
    assert (rest.body, rest.done) == (b"", False)
    assert told_text((await caller.replay(run)).events) == "Finished."


@pytest.mark.timeout(120)
async def test_run_put_back_by_a_stopping_server_is_told_anew(
    serve: Serve, tmp_path: Path, database: Database
) -> None:
    """Queued again, in progress again, and the text once."""
    db = database(tmp_path / "put-back.db")
    caller = await serve(Hang(["Half ", "a"]), db=db)
    response, before = await start_and_read(caller, '"a"')
    run = before[0].data
    await caller.close()
    cut = await rest_of(response)

    caller = await serve(backend=ScriptedBackend(finish), db=db)
    await caller.settled(run)
    replay = await caller.replay(run)

    assert not cut.done
    assert told_text(replay.events) == "Finished."
    places = [event.id for event in replay.events]
    assert not {event.id for event in before[7:]} & set(places), "a place is given away twice"
    assert replay.names[7:] == [
        "run.queued",
        "run.in_progress",
        "message.delta",
        "message.completed",
        "run.step.completed",
        "run.completed",
    ]


@pytest.mark.timeout(120)
async def test_text_of_a_killed_execution_is_kept_when_its_run_ends(
    serve: Serve, tmp_path: Path, database: Database
) -> None:
    """A run that expired while no server was there shows what was told of its message."""
    db = database(tmp_path / "kept.db")
    async with doomed(db) as server:
        run = await server.caller.reaches(await server.caller.start("hang"), "in_progress")
        await server.caller.begun(run)
        await server.kill()

    clock = ManualClock(run["created_at"] + 700)
    caller = await serve(db=db, clock=clock)
    await caller.reaches(run, "expired")

    message = (await caller.messages(run))[-1]
    assert message["status"] == "incomplete"
    assert message["content"][0]["text"]["value"] == "Half a"
    replay = await caller.replay(run)
    assert told_text(replay.events) == "Half a"
    assert replay.names[-3:] == ["message.incomplete", "run.step.expired", "run.expired"]
