"""Files that earlier versions wrote open whole, with this and every later version."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from openai_runs.server import LocalServer, Say, ScriptedBackend
from tests.e2e.referee import environments
from tests.samples import differences
from tests.server.conftest import Serve
from tests.server.support import Caller, ManualClock, Reply, run_path

HOME = Path(__file__).parents[2] / "samples" / "databases"
READER = Path(environments.__file__).parent / "read_everything.py"
FILES = sorted(folder.name for folder in HOME.iterdir() if folder.is_dir())
STATUSES = {
    "queued",
    "in_progress",
    "requires_action",
    "cancelling",
    "cancelled",
    "failed",
    "completed",
    "incomplete",
    "expired",
}
STILL: dict[str, Any] = {"backend": ScriptedBackend(), "max_concurrent_runs": 0}
"""A server that executes nothing, so that runs stay as the file has them."""

ENDED = {
    "36fc0e1": {"events": 3, "without events": 7},
    "10517d7": {"events": 125},
    "37d55ae": {"events": 125},
}
"""What is replayed of the runs that have ended; in 36fc0e1 only the cancel of one is logged."""

pytestmark = [
    pytest.mark.parametrize("name", FILES),
    pytest.mark.sqlite("about files of older versions"),
]


def copy_of(name: str, folder: Path) -> Path:
    """Return a copy of the file, to be opened."""
    return Path(shutil.copy(HOME / name / "runs.sqlite3", folder / "runs.db"))


def recorded(name: str) -> Any:
    """Return the clock of the file's server, and what it answered."""
    return json.loads((HOME / name / "answers.json").read_text(encoding="utf-8"))


def query(db: Path, sql: str) -> list[Any]:
    """Return the rows of a closed file."""
    with closing(sqlite3.connect(db)) as file:
        return file.execute(sql).fetchall()


def rows_of(db: Path) -> dict[str, int]:
    """Return how many objects of each kind there are."""
    tables = ("assistants", "threads", "messages", "runs", "steps")
    return {table: len(query(db, f"SELECT 1 FROM {table}")) for table in tables}


def active_runs(answers: list[Any]) -> list[Any]:
    """Return the runs that a server has yet to finish."""
    runs = [each["json"] for each in answers if each["method"] == "GET" and "json" in each]
    active = {"queued", "in_progress", "requires_action"}
    return [run for run in runs if run.get("object") == "thread.run" and run["status"] in active]


async def ask(caller: Caller, request: Any) -> Reply:
    """Return the answer to a recorded request; of a stream, as much as was recorded."""
    headers = {
        name: request[field]
        for name, field in (("Idempotency-Key", "key"), ("Last-Event-ID", "after"))
        if field in request
    }
    body = {"json": request["body"]} if "body" in request else {}
    if "events" not in request:
        return await caller.send(request["method"], request["path"], headers=headers, **body)
    url = caller.url + request["path"]
    async with caller.session.request(request["method"], url, headers=headers, **body) as response:
        length = len(request["events"].encode())
        received = await response.content.readexactly(length)
        return Reply(response.status, response.headers, received.decode())


async def test_every_answer_is_the_same_when_an_old_file_is_opened(
    name: str, tmp_path: Path, serve: Serve
) -> None:
    """Objects, pages, steps, errors, replays of keys and of events: as the old server gave them."""
    record = recorded(name)
    db = copy_of(name, tmp_path)
    caller = await serve(db=db, clock=ManualClock(record["now"]), **STILL)
    with anyio.fail_after(10):  # the run that was being cancelled is ended while it starts
        while (await caller.ready()).json["cancelling"]:  # noqa: ASYNC110 - nobody announces that
            await anyio.sleep(0.01)

    different = {}
    with anyio.fail_after(40):
        for request in record["answers"]:
            reply = await ask(caller, request)
            label = f"{request['method']} {request['path']} {request.get('after', '')}"
            if reply.status != request["status"]:
                different[label] = reply.text
            elif "events" in request:
                if reply.text != request["events"]:
                    different[label] = reply.text
            elif found := differences(request["json"], reply.json):
                different[label] = repr(found)

    assert different == {}


async def test_every_run_ends_when_an_old_file_is_opened(
    name: str, tmp_path: Path, serve: Serve
) -> None:
    """What was under way goes on where the old server left it, and its events can be replayed."""
    record = recorded(name)
    runs = active_runs(record["answers"])
    backend = ScriptedBackend(lambda request: Say("Finished."))
    clock = ManualClock(record["now"])
    caller = await serve(backend=backend, db=copy_of(name, tmp_path), clock=clock)

    ended = {}
    for run in {run["id"]: run for run in runs}.values():
        current = await caller.settled(await caller.get(run_path(run)))
        if current["status"] == "requires_action":
            calls = current["required_action"]["submit_tool_outputs"]["tool_calls"]
            outputs = [{"tool_call_id": call["id"], "output": "sunny"} for call in calls]
            body = {"tool_outputs": outputs}
            current = await caller.post(f"{run_path(run)}/submit_tool_outputs", body)
            current = await caller.settled(current)
        replay = await caller.replay(run)
        ended[run["status"]] = (current["status"], replay.names[-1], replay.done)

    completed = ("completed", "run.completed", True)
    assert ended == dict.fromkeys(["queued", "in_progress", "requires_action"], completed)


async def test_runs_expire_when_an_old_file_is_opened_much_later(
    name: str, tmp_path: Path, serve: Serve
) -> None:
    """A file that lay in a drawer for a year has no run that is stuck."""
    record = recorded(name)
    later = ManualClock(record["now"] + 365 * 24 * 3600)
    caller = await serve(db=copy_of(name, tmp_path), clock=later)

    ended = {
        run["status"]: (await caller.settled(await caller.reaches(run, "expired")))["status"]
        for run in active_runs(record["answers"])
    }

    assert ended == dict.fromkeys(["queued", "in_progress", "requires_action"], "expired")


def test_old_file_has_runs_in_every_status(name: str, tmp_path: Path) -> None:
    """What the other tests open is what they say."""
    db = copy_of(name, tmp_path)

    assert {status for (status,) in query(db, "SELECT status FROM runs")} == STATUSES
    assert len(query(db, "SELECT * FROM idempotency")) == 10
    assert min(rows_of(db).values()) > 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize("version", list(environments.REQUIREMENTS))
async def test_official_client_reads_everything_in_an_old_file(
    name: str, tmp_path: Path, version: str
) -> None:
    """Every object, page and step, validated strictly; as many as there are rows."""
    record = recorded(name)
    db = copy_of(name, tmp_path)
    rows = rows_of(db)
    threads = [thread for (thread,) in query(db, "SELECT id FROM threads")]
    async with LocalServer(db, clock=ManualClock(record["now"]), **STILL) as server:
        done = await anyio.run_process(
            [str(environments.python(version)), str(READER), server.url, *threads], check=False
        )

    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout).items() >= {**rows, **ENDED[name]}.items()
