"""`POST /import`: whole threads come in with their ids, times and order, or not at all."""

from __future__ import annotations

import copy
import json
from typing import Any

import aiohttp
import anyio
import pytest

from openai_runs.server import ModelRequest, ScriptedBackend
from tests.databases import Database
from tests.samples import load
from tests.server.conftest import Serve
from tests.server.support import Caller, Reply, run_path

THREAD: dict[str, Any] = load("archives/single/thread_1.json")


def thread(**changes: Any) -> dict[str, Any]:
    """Return the sample, changed: keys are paths such as `messages__0__role`."""
    made = copy.deepcopy(THREAD)
    for path, value in changes.items():
        place: Any = made
        *parts, last = [int(part) if part.isdigit() else part for part in path.split("__")]
        for part in parts:
            place = place[part]
        place[last] = value
    return made


async def send(caller: Caller, *lines: Any, query: str = "", **options: Any) -> Reply:
    """Send these lines."""
    data = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return await caller.send("POST", f"/import{query}", data=data.encode(), **options)


async def outcomes(caller: Caller, *lines: Any, query: str = "") -> list[Any]:
    """Return what became of each line."""
    reply = await send(caller, *lines, query=query)
    assert reply.status == 200, reply.text
    return [json.loads(line) for line in reply.text.splitlines()]


async def everything(caller: Caller) -> str:
    """Return all that the server has, as it is answered."""
    texts = [(await caller.send("GET", path)).text for path in ("/assistants", "/threads", "/runs")]
    threads, runs = (json.loads(text)["data"] for text in texts[1:])
    paths = [f"/threads/{each['id']}/messages" for each in threads]
    paths += [f"{run_path(run)}/steps" for run in runs]
    texts += [(await caller.send("GET", path)).text for path in paths]
    return "\n".join(texts)


async def test_thread_is_read_by_its_old_ids(caller: Caller) -> None:
    """The file that people saved: everything at its path, in its order, with its times."""
    (outcome,) = await outcomes(caller, THREAD)

    assert outcome["outcome"] == "created"
    assert (outcome["messages"], outcome["runs"], outcome["steps"]) == (2, 1, 1)
    run = THREAD["runs"][0]
    steps = run["steps"]
    assert {**await caller.get("/threads/thread_1"), **THREAD["thread"]} == await caller.get(
        "/threads/thread_1"
    )
    assert await caller.messages(run) == THREAD["messages"]
    assert await caller.steps(run) == [{**step, "object": "thread.run.step"} for step in steps]
    assert {**await caller.get(run_path(run)), "steps": steps} == run
    written = await caller.get("/threads/thread_1/messages?run_id=run_1")
    assert [message["id"] for message in written["data"]] == ["msg_2"]


async def test_same_line_again_does_no_harm(caller: Caller) -> None:
    """What is there with the same content is passed over, however often it comes."""
    await outcomes(caller, THREAD)
    before = await everything(caller)

    again = await outcomes(caller, THREAD, THREAD)

    assert [each["outcome"] for each in again] == ["unchanged", "unchanged"]
    assert await everything(caller) == before


async def test_imported_objects_are_changed_and_deleted_like_others(caller: Caller) -> None:
    """Metadata of each, then the thread with all that is on it; it may be imported again."""
    await outcomes(caller, THREAD)
    for path in ("/threads/thread_1", "/threads/thread_1/messages/msg_1"):
        await caller.post(path, {"metadata": {"a": "b"}})
    run = await caller.post("/threads/thread_1/runs/run_1", {"metadata": {"a": "b"}})
    cancelled = await caller.send("POST", "/threads/thread_1/runs/run_1/cancel")
    (changed,) = await outcomes(caller, THREAD)
    await caller.send("DELETE", "/threads/thread_1")

    (again,) = await outcomes(caller, THREAD)

    assert (run["metadata"], run["status"]) == ({"a": "b"}, "completed")
    assert cancelled.message == "Cannot cancel run with status 'completed'."
    assert (changed["outcome"], again["outcome"]) == ("conflict", "created")


CONFLICTS = {
    "message": thread(messages__0__metadata={"a": "b"}),
    "text": thread(messages__1__content__0__text__value="Sun."),
    "run": thread(runs__0__status="failed"),
    "step": thread(runs__0__steps__0__completed_at=7),
    "thread": thread(thread__metadata={}),
    "order": thread(messages=[{**THREAD["messages"][0], "id": "msg_0"}, *THREAD["messages"]]),
    "new-step": thread(
        runs__0__steps=[*THREAD["runs"][0]["steps"], {**THREAD["runs"][0]["steps"][0], "id": "s2"}]
    ),
}


@pytest.mark.parametrize("name", CONFLICTS)
async def test_other_content_is_a_conflict_that_changes_nothing(caller: Caller, name: str) -> None:
    """Not even what would be new of the same thread is written; the outcome names what is there."""
    await outcomes(caller, THREAD)
    before = await everything(caller)
    line = copy.deepcopy(CONFLICTS[name])
    line["messages"].append({**THREAD["messages"][0], "id": "msg_9"})

    (outcome,) = await outcomes(caller, line)

    assert outcome["outcome"] == "conflict"
    assert " here" in outcome["reason"]
    assert await everything(caller) == before


@pytest.mark.parametrize("of", ["messages", "runs", "steps"])
async def test_id_that_another_thread_has_leaves_nothing_behind(caller: Caller, of: str) -> None:
    """A thread comes whole or not at all."""
    await outcomes(caller, THREAD)
    before = await everything(caller)
    text = json.dumps(THREAD).replace("thread_1", "thread_2")
    for kind, old in {"messages": "msg_", "runs": "run_1", "steps": "step_1"}.items():
        if kind != of:
            text = text.replace(f'"{old}', f'"other_{old}')

    (outcome,) = await outcomes(caller, text)

    assert outcome["outcome"] == "conflict"
    assert "elsewhere" in outcome["reason"]
    assert await everything(caller) == before


async def test_thread_that_grew_is_extended(caller: Caller) -> None:
    """Messages and runs behind those that are stored are added; a second time adds nothing."""
    await outcomes(caller, THREAD)
    grown = thread(
        messages=[*THREAD["messages"], {**THREAD["messages"][0], "id": "msg_3"}],
        runs=[*THREAD["runs"], {**THREAD["runs"][0], "id": "run_2", "steps": []}],
    )

    first, second = await outcomes(caller, grown, grown)

    assert (first["outcome"], first["messages"], first["runs"]) == ("extended", 1, 1)
    assert second["outcome"] == "unchanged"
    assert [each["id"] for each in await caller.messages(THREAD["runs"][0])] == [
        "msg_1",
        "msg_2",
        "msg_3",
    ]


async def test_thread_that_went_on_here_is_not_touched(caller: Caller) -> None:
    """An import of what it was is passed over; one that wants a place among the new is not."""
    await outcomes(caller, THREAD)
    await caller.post("/threads/thread_1/messages", {"role": "user", "content": "And then?"})
    before = await everything(caller)
    grown = thread(messages=[*THREAD["messages"], {**THREAD["messages"][0], "id": "msg_3"}])

    same, other = await outcomes(caller, THREAD, grown)

    assert same["outcome"] == "unchanged"
    assert other["outcome"] == "conflict"
    assert "meanwhile" in other["reason"]
    assert await everything(caller) == before


@pytest.mark.parametrize("status", ["queued", "in_progress", "requires_action", "cancelling"])
async def test_active_run_is_kept_as_expired_and_never_executed(serve: Serve, status: str) -> None:
    """Its model is not asked; the thread is free, and the same line again is the same."""
    asked: list[str] = []

    def script(request: ModelRequest) -> str:
        asked.append(request.question)
        return "Fine."

    caller = await serve(backend=ScriptedBackend(script))
    line = thread(
        runs__0__status=status,
        runs__0__completed_at=None,
        runs__0__expires_at=1795000600,
        runs__0__steps__0__status="in_progress",
        runs__0__steps__0__completed_at=None,
        messages__1__status="in_progress",
    )

    first, second = await outcomes(caller, line, line)

    run = await caller.get(run_path(line["runs"][0]))
    (step,) = await caller.steps(run)
    assert (first["ended"], second["outcome"]) == (["run_1"], "unchanged")
    assert (run["status"], run["expires_at"], run["required_action"]) == ("expired", None, None)
    assert status in run["last_error"]["message"]
    assert (step["status"], step["expired_at"]) == ("expired", 1795000600)
    assert (await caller.messages(run))[1]["incomplete_details"] == {"reason": "run_expired"}
    made = await caller.post(
        "/threads/thread_1/runs", {"assistant_id": await caller.assistant(), "instructions": "x"}
    )
    await caller.settled(made)
    assert len(asked) == 1


async def test_run_that_is_active_here_is_a_conflict(serve: Serve) -> None:
    """An import does not add to a thread on which this server is at work."""
    caller = await serve(max_concurrent_runs=0)
    await outcomes(caller, THREAD)
    assistant_id = await caller.assistant()
    await caller.post("/threads/thread_1/runs", {"assistant_id": assistant_id})

    grown = thread(messages=[*THREAD["messages"], {**THREAD["messages"][0], "id": "msg_3"}])
    (outcome,) = await outcomes(caller, grown)

    assert outcome["outcome"] == "conflict"
    assert "active" in outcome["reason"]


async def test_imported_run_has_no_events(caller: Caller) -> None:
    """Its stream says so, and advises to poll; polling answers."""
    await outcomes(caller, THREAD)

    reply = await caller.send("GET", "/threads/thread_1/runs/run_1/stream")

    assert (reply.status, reply.json["error"]["code"]) == (409, "stream_position_lost")
    assert (await caller.get("/threads/thread_1/runs/run_1"))["status"] == "completed"


async def test_dry_run_says_the_same_and_writes_nothing(caller: Caller) -> None:
    """It distinguishes created, unchanged, conflict and invalid; nothing is there afterwards."""
    nothing = await everything(caller)
    fresh = await outcomes(caller, THREAD, {"assistant": {"id": "asst_1"}}, query="?dry_run=true")
    assert await everything(caller) == nothing

    await outcomes(caller, THREAD)
    other = CONFLICTS["text"]
    later = await outcomes(caller, THREAD, other, "{", query="?dry_run=true")

    assert [each["outcome"] for each in fresh] == ["created", "created"]
    assert [each["outcome"] for each in later] == ["unchanged", "conflict", "invalid"]


async def test_assistant_is_kept_with_its_id(caller: Caller) -> None:
    """Once, and not over another one."""
    assistant = {"id": "asst_1", "created_at": 7, "model": "m", "name": "Reader", "tools": []}

    found = await outcomes(
        caller,
        {"assistant": assistant},
        {"assistant": assistant},
        {"assistant": {**assistant, "name": "Writer"}},
    )

    assert [(each["object"], each["outcome"]) for each in found] == [
        ("assistant", "created"),
        ("assistant", "unchanged"),
        ("assistant", "conflict"),
    ]
    assert (await caller.get("/assistants/asst_1"))["name"] == "Reader"


INVALID = {
    "no-json": ("{", "parsed"),
    "nothing": ("{}", "either"),
    "both": ({**THREAD, "assistant": {"id": "asst_1"}}, "either"),
    "unknown-field": ({**THREAD, "files": []}, "files"),
    "no-id": (thread(thread={"object": "thread"}), "id"),
    "id-that-is-a-path": (thread(thread__id="../assistants"), "id"),
    "twice": (thread(messages=[THREAD["messages"][0]] * 2), "same id"),
    "other-thread": (thread(messages__0__thread_id="thread_9"), "thread_9"),
    "other-run": (thread(runs__0__steps__0__run_id="run_9"), "run_9"),
    "hopeless": (thread(runs__0__metadata=7), "metadata"),
    "no-time": (json.dumps(thread(runs__0__created_at=7)).replace(": 7,", f": {10**30},"), "time"),
    "time-of-a-column": (thread(runs__0__created_at=10**19), "time"),
    "deeper-than-some-readers-follow": (
        json.dumps(thread(messages__0__content__0="@")).replace(
            '"@"', '{"type": "x", "x": ' + "[" * 128 + "]" * 128 + "}"
        ),
        "nested too deeply",
    ),
    "deep": ('{"thread":' + "[" * 2000 + "]" * 2000 + "}", ""),
}


@pytest.mark.parametrize("name", INVALID)
async def test_line_that_cannot_be_kept_costs_only_itself(caller: Caller, name: str) -> None:
    """It is named with the reason; the lines around it are kept."""
    line, reason = INVALID[name]
    others = [json.dumps(THREAD).replace("_1", f"_{name}{end}") for end in "ab"]

    before, found, after = await outcomes(caller, others[0], line, others[1])

    assert (before["outcome"], after["outcome"]) == ("created", "conflict")  # msg_2 is the same
    assert found["outcome"] == "invalid"
    assert reason in found["reason"]


async def test_what_is_not_kept_is_named(caller: Caller) -> None:
    """Fields that our objects do not have; nulls and empty ones say nothing."""
    line = thread(
        thread__owner="me",
        messages__0__content__0__text__language="en",
        runs__0__priority=3,
        runs__0__nothing=None,
        runs__0__empty={},
    )

    (outcome,) = await outcomes(caller, line)

    assert outcome["left_out"] == [
        "thread.owner",
        "message.content[].text.language",
        "run.priority",
    ]


async def test_what_another_server_answers_is_the_same_bytes(
    serve: Serve, tmp_path: Any, database: Database
) -> None:
    """Every page of the copy, byte for byte: order of keys, large shared instructions, tools."""
    origin = await serve(db=database(tmp_path / "origin.db"))
    for number in range(3):
        fields = {"instructions": "Be brief. " * (200 * number)}
        await origin.settled(await origin.start(metadata={"number": str(number)}, **fields))
    before = await everything(origin)
    lines: list[Any] = [
        {"assistant": each} for each in (await origin.get("/assistants?order=asc"))["data"]
    ]
    lines += [
        {
            "thread": await origin.get(f"/threads/{run['thread_id']}"),
            "messages": await origin.messages(run),
            "runs": [{**run, "steps": await origin.steps(run)}],
        }
        for run in (await origin.get("/runs?order=asc"))["data"]
    ]

    copied = await serve(db=database(tmp_path / "copy.db"))
    found = await outcomes(copied, *lines)

    assert {each["outcome"] for each in found} == {"created"}
    assert await everything(copied) == before
    assert {each["outcome"] for each in await outcomes(origin, *lines)} == {"unchanged"}


async def test_too_long_a_line_is_refused_by_its_own_text(serve: Serve) -> None:
    """A 413 that says what to set; after other lines, as the last line of the answer."""
    caller = await serve(max_import_bytes=5000)
    large = thread(thread__id="thread_2", messages__0__content__0__text__value="x" * 6000)

    first = await send(caller, large)
    later = await send(caller, THREAD, large)

    assert first.status == 413
    assert "max_import_bytes" in first.message
    kept, refused = (json.loads(line) for line in later.text.splitlines())
    assert (later.status, kept["outcome"]) == (200, "created")
    assert "5000 bytes" in refused["error"]["message"]


async def test_many_lines_may_be_longer_than_a_request_may_be(serve: Serve) -> None:
    """The bound of a request body is none here: lines are read one at a time."""
    caller = await serve(max_request_bytes=1000)
    lines = [json.dumps(THREAD).replace("_1", f"_{n}a").replace("_2", f"_{n}b") for n in range(20)]

    found = await outcomes(caller, *lines)

    assert [each["outcome"] for each in found] == ["created"] * 20
    assert len((await caller.get("/threads?limit=100"))["data"]) == 20


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"headers": {"content-encoding": "gzip"}}, 415),
        ({"query": "?dry_run=perhaps"}, 400),
        ({"headers": {"host": "example.com"}}, 403),
    ],
    ids=["compressed", "flag", "host"],
)
async def test_request_that_makes_no_sense_is_refused(
    caller: Caller, options: dict[str, Any], status: int
) -> None:
    """Before anything is read."""
    reply = await send(caller, THREAD, **options)

    assert reply.status == status


async def test_empty_body_is_refused(caller: Caller) -> None:
    """An error says what to send."""
    assert (await send(caller, " ", "")).status == 400


async def test_import_asks_for_the_key(serve: Serve) -> None:
    """Who has no key writes nothing."""
    caller = await serve(api_key="sk-another-key-1234")

    assert (await send(caller, THREAD)).status == 401


async def test_silent_sender_is_given_up(serve: Serve) -> None:
    """A body that stops coming does not hold the connection."""
    caller = await serve(body_timeout=0.1)

    async def half() -> Any:
        yield json.dumps(THREAD)[:100].encode()
        await sent.wait()

    sent = anyio.Event()
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{caller.url}/import", data=half()) as response:
            assert response.status == 408
        sent.set()
