"""What runs have in common is stored once, and nobody who reads a run notices."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import sqlite3
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs.config import IDEMPOTENCY_TTL, MAX_TOOLS_BYTES
from openai_runs.server import Call, CallTools, Hang, ModelRequest, ScriptedBackend
from openai_runs.server.backends.base import Finish, ModelEvent, ToolCallDelta
from openai_runs.server.store.rows import decode
from openai_runs.server.store.shared_json import encode_again, join, split
from openai_runs.types.runs import Run
from openai_runs.types.tools import FunctionDefinition, FunctionTool, Tool
from tests.databases import Database, Db, execute
from tests.server.conftest import Serve
from tests.server.http.test_sse_response import outputs_of
from tests.server.support import FUNCTION, Caller, ManualClock, Reply, run_path

KIB = 1024
CALL = CallTools([Call("weather", {"city": "Rome"})])
TEXT = "".join(hashlib.sha256(b"%d" % n).hexdigest() for n in range(2400))
"""150 KB that no compression makes small."""


def function(size: int, name: str = "weather") -> dict[str, Any]:
    """Return a function whose description has so many characters."""
    return {"type": "function", "function": {"name": name, "description": TEXT[:size]}}


SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "schema": {"type": "object", "description": TEXT[:53_000]}},
}
ASSISTANTS: dict[str, dict[str, Any]] = {
    "tools": {"tools": [function(106 * KIB)]},
    "instructions": {"instructions": TEXT[: 106 * KIB], "tools": [FUNCTION]},
    "half-of-each": {"instructions": TEXT[: 53 * KIB], "tools": [function(53 * KIB)]},
    "schema": {"response_format": SCHEMA, "instructions": TEXT[: 53 * KIB], "tools": [FUNCTION]},
}
RUNS: dict[str, dict[str, Any]] = {
    "as-the-assistant-says": {},
    "additional-instructions": {"additional_instructions": "The user is {user}."},
    "instructions-of-its-own": {"instructions": "You help {user}."},
    "tools-of-its-own": {"tools": [function(60 * KIB)]},
    "metadata": {"metadata": {"user": "{user}", "note": "n" * 512}},
}


def numbered(fields: Any, number: int) -> Any:
    """Return the fields with the number in their texts."""
    return json.loads(json.dumps(fields).replace("{user}", f"user {number}"))


class CallingBackend:
    """Calls the tool, and keeps nothing of what it was asked."""

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Answer one model call."""
        yield ToolCallDelta(name="weather", arguments='{"city": "Rome"}')
        yield Finish()


async def wait_for_outputs(caller: Caller, assistant_id: str, fields: Any, count: int) -> None:
    """Have so many runs wait for outputs, each made with a key of its own."""
    for number in range(count):
        thread_id = await caller.thread("Go.")
        body = {"assistant_id": assistant_id, **numbered(fields, number)}
        key = {"Idempotency-Key": thread_id}
        run = await caller.post(f"/threads/{thread_id}/runs", body, headers=key)
        assert (await caller.settled(run))["status"] == "requires_action"


async def send_large(caller: Caller, path: str, body: Any) -> Reply:
    """Return the answer to a body of which aiohttp would warn."""
    return await caller.send("POST", path, data=io.BytesIO(msgspec.json.encode(body)))


def disk_bytes(db: Path) -> int:
    """Return what the file takes once its log is copied into it."""
    with closing(sqlite3.connect(db)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (pages,) = file.execute("PRAGMA page_count").fetchone()
        (size,) = file.execute("PRAGMA page_size").fetchone()
    return int(pages * size)


PAIRS = [
    *((assistant, "additional-instructions") for assistant in ASSISTANTS),
    *(("half-of-each", run) for run in RUNS if run != "additional-instructions"),
]


@pytest.mark.sqlite("measures the file")
@pytest.mark.parametrize(("assistant", "run"), PAIRS, ids=[" and ".join(pair) for pair in PAIRS])
async def test_waiting_run_takes_little_however_large_its_assistant_is(
    serve: Serve, tmp_path: Path, assistant: str, run: str
) -> None:
    """Under 40 KiB of memory and of disk each, with 106 KiB and more that they share."""
    caller = await serve(backend=CallingBackend())
    assistant_id = await caller.assistant(**ASSISTANTS[assistant])
    await wait_for_outputs(caller, assistant_id, RUNS[run], 2)  # what is stored and kept once
    count = 12

    gc.collect()
    disk = disk_bytes(tmp_path / "runs.db")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await wait_for_outputs(caller, assistant_id, RUNS[run], count)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (after - before) / count < 40 * KIB
    assert (disk_bytes(tmp_path / "runs.db") - disk) / count < 40 * KIB


@pytest.mark.sqlite("measures the file")
async def test_runs_on_the_largest_assistant_take_little(serve: Serve, tmp_path: Path) -> None:
    """Twenty-five small requests: under 50 MB of memory at any time, and of disk."""
    caller = await serve(backend=CallingBackend())
    tools = [FUNCTION, *(function(100_000, f"f{n}") for n in range(10))]
    assert MAX_TOOLS_BYTES * 0.9 < len(json.dumps(tools)) < MAX_TOOLS_BYTES
    fields = {"model": "m", "tools": tools, "instructions": "\N{GRINNING FACE}" * 256_000}
    assistant_id = (await send_large(caller, "/assistants", fields)).json["id"]
    disk = disk_bytes(tmp_path / "runs.db")

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await wait_for_outputs(caller, assistant_id, {}, 25)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak - before < 50_000_000
    assert disk_bytes(tmp_path / "runs.db") - disk < 50_000_000


LARGE = {"type": "object", "description": "x" * MAX_TOOLS_BYTES}
TOO_LARGE: dict[str, dict[str, Any]] = {
    "tools": {"tools": [{"type": "function", "function": {"name": "f", "parameters": LARGE}}]},
    "response_format": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": LARGE}}
    },
    "instructions": {"instructions": "x" * 256_001},
}


@pytest.mark.parametrize("param", TOO_LARGE)
async def test_what_is_too_large_for_every_run_to_show_is_refused(
    caller: Caller, param: str
) -> None:
    """Of an assistant, made or changed, and of a run; the field is named."""
    fields = TOO_LARGE[param]
    assistant_id, thread_id = await caller.assistant(), await caller.thread("Go.")
    run = {"assistant_id": assistant_id, **fields}

    for path, body in (
        ("/assistants", {"model": "m", **fields}),
        (f"/assistants/{assistant_id}", fields),
        (f"/threads/{thread_id}/runs", run),
        ("/threads/runs", run),
    ):
        reply = await send_large(caller, path, body)
        if param == "instructions" and "assistants" not in path and reply.status == 200:
            continue  # the API bounds those of an assistant only
        assert (reply.status, reply.json["error"]["param"]) == (400, param), path
        assert len(reply.text) < 500


INSTRUCTIONS = TEXT[:4000] + '"\\\n\N{GRINNING FACE}'
LARGE_ASSISTANT = {
    "instructions": INSTRUCTIONS,
    "tools": [FUNCTION, function(5000, "f")],
    "response_format": SCHEMA,
}
ADDED = 'Say "yes".\n'


def assert_whole(run: Any) -> None:
    """Assert that the run shows what it was started with."""
    assert run["instructions"] == f"{INSTRUCTIONS}\n\n{ADDED}"
    assert [tool["function"]["name"] for tool in run["tools"]] == ["weather", "f"]
    assert run["tools"][1]["function"]["description"] == TEXT[:5000]
    assert run["response_format"]["json_schema"]["schema"] == SCHEMA["json_schema"]["schema"]
    assert "_shared" not in run


async def start_large(caller: Caller, **options: Any) -> Any:
    """Return a new run of a large assistant."""
    assistant_id, thread_id = await caller.assistant(**LARGE_ASSISTANT), await caller.thread("Go.")
    body = {"assistant_id": assistant_id, "additional_instructions": ADDED}
    return await caller.post(f"/threads/{thread_id}/runs", body, **options)


async def test_every_answer_shows_what_is_stored_once(serve: Serve) -> None:
    """Made, read, listed, changed, given outputs, cancelled, and read by the next server."""
    caller = await serve(backend=ScriptedBackend([CALL, Hang()]))
    made = await start_large(caller)
    run = await caller.settled(made)
    answers = [made, run, await caller.post(run_path(run), {"metadata": {"_shared": "x"}})]
    outputs = outputs_of(run)
    answers.append(await caller.post(f"{run_path(run)}/submit_tool_outputs", outputs))
    answers.append(await caller.post(f"{run_path(run)}/cancel"))
    ended = await caller.settled(answers[-1])
    await caller.close()
    caller = await serve()
    answers += [ended, await caller.get(run_path(run))]
    answers += (await caller.get(f"/threads/{run['thread_id']}/runs"))["data"]

    assert [answer["status"] for answer in answers] == [
        *("queued", "requires_action", "requires_action", "queued", "cancelling"),
        *("cancelled", "cancelled", "cancelled"),
    ]
    for answer in answers:
        assert_whole(answer)
    assert answers[-1] == answers[-2]
    assert ended["metadata"] == {"_shared": "x"}


async def test_every_event_shows_what_is_stored_once(serve: Serve) -> None:
    """As they are committed, and replayed after any of them, by the next server too."""
    caller = await serve(backend=ScriptedBackend([CALL, "Fine."]))
    assistant_id, thread_id = await caller.assistant(**LARGE_ASSISTANT), await caller.thread("Go.")
    body = {"assistant_id": assistant_id, "additional_instructions": ADDED}
    first = await caller.stream(f"/threads/{thread_id}/runs", body)
    run = first.events[-1].data
    rest = await caller.stream(f"{run_path(run)}/submit_tool_outputs", outputs_of(run))
    live = [*first.events, *rest.events]
    replays = [await caller.replay(run, after=event.id) for event in live]
    await caller.close()
    whole = await (await serve()).replay(run)

    runs = [event.data for event in live if event.data["object"] == "thread.run"]
    assert len(runs) == 7
    for each in runs:
        assert_whole(each)
    assert [event.frame for event in whole.events] == [event.frame for event in live]
    for number, replay in enumerate(replays, 1):
        assert [e.frame for e in replay.events] == [e.frame for e in live[number:]]


@pytest.mark.parametrize("restarted", [False, True], ids=["same-server", "next-server"])
async def test_answer_under_a_key_is_whole_when_it_is_given_again(
    serve: Serve, restarted: bool
) -> None:
    """Of the same bytes, also when the run and its thread were deleted meanwhile."""
    caller = await serve(backend=ScriptedBackend([Hang()]))
    assistant_id, thread_id = await caller.assistant(**LARGE_ASSISTANT), await caller.thread("Go.")
    path = f"/threads/{thread_id}/runs"
    body = {"assistant_id": assistant_id, "additional_instructions": ADDED}
    key = {"Idempotency-Key": "k"}
    first = await caller.send("POST", path, json=body, headers=key)
    assert (await caller.send("DELETE", f"/threads/{thread_id}")).status == 200
    if restarted:
        await caller.close()
        caller = await serve()

    again = await caller.send("POST", path, json=body, headers=key)

    assert (again.status, again.text) == (first.status, first.text)
    assert again.headers["idempotent-replayed"] == "true"
    assert_whole(again.json)


async def test_model_is_told_what_is_stored_once(serve: Serve) -> None:
    """The whole run; runs with the same tools share one object of them."""
    requests: list[ModelRequest] = []

    def answer(request: ModelRequest) -> str:
        requests.append(request)
        return "Fine."

    caller = await serve(backend=ScriptedBackend(answer))
    assistant_id = await caller.assistant(**LARGE_ASSISTANT)
    for _ in range(2):
        body = {"assistant_id": assistant_id, "additional_instructions": ADDED}
        await caller.settled(await caller.post(f"/threads/{await caller.thread('Go.')}/runs", body))

    first, second = (request.run for request in requests)
    assert_whole(first.to_dict())
    assert first.tools is second.tools
    assert first.response_format is second.response_format


async def test_run_is_not_answered_when_what_it_shares_is_damaged(
    serve: Serve, tmp_path: Path, database: Database
) -> None:
    """A 500, and nothing half; runs that do not need it go on."""
    caller = await serve()
    run = await caller.settled(await start_large(caller))
    await caller.close()
    db = database(tmp_path / "runs.db")
    for name, whole in execute(db, "SELECT hash, body FROM shared_json"):
        execute(db, "UPDATE shared_json SET body = ? WHERE hash = ?", whole[:2000], name)

    caller = await serve()
    damaged = await caller.send("GET", run_path(run))
    other = await caller.settled(await caller.start())

    assert damaged.status == 500
    assert TEXT[:100] not in damaged.text
    assert other["status"] == "completed"


def shared_rows(db: Db) -> int:
    """Return how many texts are stored once."""
    ((count,),) = execute(db, "SELECT count(*) FROM shared_json")
    return int(count)


async def test_shared_text_is_deleted_when_nothing_needs_it(
    serve: Serve, tmp_path: Path, database: Database
) -> None:
    """Not while a run names it, nor while a key may give its answer again."""
    clock, db = ManualClock(), database(tmp_path / "runs.db")

    async def pruned() -> int:
        """Return how many texts a server leaves that is started now."""
        caller = await serve(clock=clock)
        with anyio.fail_after(10):
            for _ in range(3):  # pruning begins with the server; each write comes after it
                await caller.thread()
        await caller.close()
        return shared_rows(db)

    caller = await serve(clock=clock)
    run = await caller.settled(await start_large(caller))
    await caller.close()
    clock.advance(3 * IDEMPOTENCY_TTL)
    kept = await pruned()
    caller = await serve(clock=clock)
    other = await caller.settled(await start_large(caller))
    await caller.send("DELETE", f"/threads/{run['thread_id']}")
    await caller.send("DELETE", f"/threads/{other['thread_id']}")
    await caller.close()

    assert kept == shared_rows(db) == 3
    assert await pruned() == 3
    clock.advance(IDEMPOTENCY_TTL + 3 * 3600)
    assert await pruned() == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["_shared", "instructions", "tools"]), inner)
    ),
    max_leaves=8,
)
LONG = st.sampled_from(["", '"', '","_shared":{"tools":["x"]}}', "\N{GRINNING FACE}\n"]).flatmap(
    lambda text: st.sampled_from([1, 90, 500, 2000]).map(lambda times: text * times)
)


def tool(description: str, schema: Any) -> FunctionTool:
    """Return a function tool."""
    parameters = {"a": schema}
    return FunctionTool(
        function=FunctionDefinition(name="f", description=description, parameters=parameters)
    )


@given(
    base=LONG,
    rest=LONG,
    tools=st.lists(st.builds(tool, LONG, JSON), max_size=2),
    answer=JSON,
    metadata=st.dictionaries(st.sampled_from(["_shared", "instructions"]), LONG),
)
def test_stored_run_is_the_same_run_when_it_is_joined(
    base: str, rest: str, tools: list[Tool], answer: Any, metadata: dict[str, str]
) -> None:
    """Whatever its texts hold, and after any number of moves."""
    run = Run(
        id="run_1",
        thread_id="thread_1",
        status="queued",
        instructions=base + rest,
        tools=tools,
        response_format={"type": "odd", "a": answer},  # type: ignore[arg-type]
        metadata=metadata,
    )
    found = split(run, base)

    stored = found.stored
    for status in ("in_progress", "requires_action", "queued"):
        read = decode(Run, stored.decode())
        stored = encode_again(msgspec.structs.replace(read, status=status), stored)

    for text in (found.stored, stored):
        whole = msgspec.json.decode(join(text, found.texts.get))
        assert whole == msgspec.json.decode(msgspec.json.encode(run))
