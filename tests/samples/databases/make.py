"""Write a database with runs in every status, and what its server answers to each request.

    PYTHONPATH=<worktree of the commit> python tests/samples/databases/make.py <folder>

The folder gets `runs.sqlite3` and `answers.json`. Only public names are used, so that the script
runs on any commit since 36fc0e1. The clock stands still, at `NOW`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import anyio

from openai_runs.server import (
    Call,
    CallTools,
    Cut,
    Fail,
    Hang,
    LocalServer,
    ModelRequest,
    Say,
    ScriptedBackend,
    ScriptedTurn,
)

NOW = 1_780_000_000
"""Unix seconds when the file was written."""
QUIET = 1.5
"""Seconds of silence after which a stream of an active run has sent all there is."""
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Return the {name} of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    for name in ("weather", "time")
]
CALLS = [Call("weather", {"city": "Malmö"}), Call("time", {"city": "東京"})]


ASSISTANT = {
    "model": "model-1",
    "name": "Ada",
    "description": "Answers.",
    "instructions": "Be brief.\n" * 200,  # long enough to be stored once for all runs
    "tools": TOOLS,
    "metadata": {"team": "nördlich", "n": "1"},
    "temperature": 0.5,
    "response_format": {"type": "json_object"},
}
OPTIONS: dict[str, Any] = {
    "additional_instructions": "Answer in German.",
    "additional_messages": [{"role": "user", "content": [{"type": "text", "text": "Please."}]}],
    "max_completion_tokens": 500,
    "truncation_strategy": {"type": "last_messages", "last_messages": 10},
    "parallel_tool_calls": False,
}
"""Of one run, which has everything a run can have."""


class FixedClock:
    """A clock that stands still; `move` sets it before anything waits for it."""

    def __init__(self, now: float) -> None:
        self.moment = now
        self._moved = anyio.Event()

    def now(self) -> float:
        """Return Unix seconds."""
        return self.moment

    def move(self, moment: float) -> None:
        """Set the clock."""
        self.moment = moment
        self._moved.set()
        self._moved = anyio.Event()

    async def sleep_until(self, when: float) -> None:
        """Return once the clock was set that far."""
        while self.moment < when:
            await self._moved.wait()


def pieces(*texts: str) -> Any:
    """Return a text in pieces, whole where the commit's script knows none."""
    return list(texts) if "chunk" in Say.__struct_fields__ else "".join(texts)


def script(request: ModelRequest) -> ScriptedTurn:
    """Return the turn that the question asks for."""
    match request.question:
        case "tools" if not request.turns:
            return CallTools(CALLS, pieces("Let me ", "see. "))
        case "tools" if len(request.turns) == 1:
            return CallTools([Call("weather", {"city": "Oslo"})])
        case "fail":
            return Fail("The model is overloaded.", code="rate_limit_exceeded", text="I was just")
        case "cut":
            return Cut("One, two, three, four")
        case "hang":
            return Hang(pieces("Half ", "a ", "sentence "))
        case "plain":
            return Say("The answer.")
    return Say(pieces("Grüße, ", "\u2028line two\r\n", "🌍"))


class Recorder:
    """Makes the objects, and remembers what to ask for afterwards."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self.posted: list[dict[str, Any]] = []
        """Requests with an `Idempotency-Key`; to be sent again, they change nothing."""
        self.streams = True
        """Whether the server keeps events; those of schema version 1 do not."""

    async def post(self, path: str, body: Any, key: str = "", status: int = 200) -> Any:
        """Return the answer to a POST."""
        request = {"method": "POST", "path": path, "body": body}
        if key:
            request["key"] = key
            self.posted.append(request)
        answer = await exchange(self._session, self._url, request)
        assert answer["status"] == status, answer
        return answer["json"]

    async def get(self, path: str) -> Any:
        """Return the answer to a GET."""
        answer = await exchange(self._session, self._url, {"method": "GET", "path": path})
        assert answer["status"] == 200, answer
        return answer["json"]

    async def start(self, assistant: Any, text: str, key: str = "", **fields: Any) -> Any:
        """Return a new run on a new thread."""
        body = {
            "messages": [{"role": "user", "content": text, "metadata": {"about": text}}],
            "metadata": {"topic": text},
        }
        thread = await self.post("/threads", body)
        body = {"assistant_id": assistant["id"], **fields}
        return await self.post(f"/threads/{thread['id']}/runs", body, key)

    async def reaches(self, run: Any, *statuses: str) -> Any:
        """Return the run once it has one of these statuses."""
        with anyio.fail_after(10):
            while run["status"] not in statuses:
                await asyncio.sleep(0.02)
                run = await self.get(path_of(run))
        return run

    async def has_text(self, run: Any) -> None:
        """Return once a piece of the run's text is on disk, or the first step without a log."""
        async with self._session.get(f"{self._url}{path_of(run)}/stream") as response:
            self.streams = response.status == 200
            with anyio.fail_after(10):
                while not self.streams and not await self.has_step(run):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            async for line in response.content:
                if b"sentence" in line:
                    return

    async def has_step(self, run: Any) -> bool:
        """Return whether the run has begun to write."""
        return bool((await self.get(f"{path_of(run)}/steps"))["data"])

    async def submit(self, run: Any, key: str = "", outputs: tuple[str, ...] = ("rain", "")) -> Any:
        """Answer the calls of a run."""
        calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
        body = {
            "tool_outputs": [
                {"tool_call_id": call["id"], "output": output}
                for call, output in zip(calls, outputs, strict=False)
            ]
        }
        return await self.post(f"{path_of(run)}/submit_tool_outputs", body, key)


def path_of(run: Any) -> str:
    """Return the path of a run."""
    return f"/threads/{run['thread_id']}/runs/{run['id']}"


async def exchange(
    session: aiohttp.ClientSession, url: str, request: dict[str, Any]
) -> dict[str, Any]:
    """Return the request with its answer: `status` and `json`, or `events` of a stream."""
    headers = {"Idempotency-Key": request["key"]} if "key" in request else {}
    if "after" in request:
        headers["Last-Event-ID"] = request["after"]
    body = {"json": request["body"]} if "body" in request else {}
    async with session.request(
        request["method"], url + request["path"], headers=headers, **body
    ) as response:
        if response.content_type != "text/event-stream":
            return {**request, "status": response.status, "json": await response.json()}
        received = b""
        while True:
            with anyio.move_on_after(QUIET):
                piece = await response.content.readany()
                received += piece
                if piece:
                    continue
            break
        return {**request, "status": response.status, "events": received.decode()}


async def make_objects(recorder: Recorder, clock: FixedClock) -> list[Any]:
    """Make runs that have ended or wait, and return them."""
    assistant = await recorder.post("/assistants", ASSISTANT, "assistant-1")
    plain = await recorder.post("/assistants", {"model": "model-2"})
    doomed = await recorder.post("/assistants", {"model": "model-3", "name": "To be deleted"})
    clock.move(NOW - 1000)
    expired = await recorder.start(plain, "hang")
    await recorder.has_text(expired)
    clock.move(NOW - 300)
    await recorder.reaches(expired, "expired")
    completed = await recorder.start(
        assistant,
        "hello",
        "run-completed",
        metadata={"customer": "42", "empty": ""},
        **OPTIONS,
    )
    await recorder.reaches(completed, "completed")
    second = await recorder.post(
        f"/threads/{completed['thread_id']}/runs", {"assistant_id": doomed["id"]}
    )
    await recorder.reaches(second, "completed")
    await recorder.post(f"{path_of(second)}", {"metadata": {"seen": "yes"}}, "run-changed")
    clock.move(NOW - 200)
    return [expired, completed, second, *await make_others(recorder, clock, assistant, plain)]


async def make_others(
    recorder: Recorder, clock: FixedClock, assistant: Any, plain: Any
) -> list[Any]:
    """Make more of them."""
    used = await recorder.start(assistant, "tools", metadata={"customer": "43"})
    used = await recorder.reaches(used, "requires_action")
    await recorder.submit(used, "outputs-1", ("rain", "noon"))
    used = await recorder.reaches(await recorder.get(path_of(used)), "requires_action")
    await recorder.submit(used, "outputs-2", ("ünïcode " * 5,))
    await recorder.reaches(used, "completed")
    failed = await recorder.start(plain, "fail")
    await recorder.reaches(failed, "failed")
    cut = await recorder.start(plain, "cut", max_completion_tokens=256)
    await recorder.reaches(cut, "incomplete")
    cancelled = await recorder.start(plain, "hang")
    await recorder.has_text(cancelled)
    await recorder.post(f"{path_of(cancelled)}/cancel", {}, "cancel-1")
    await recorder.reaches(cancelled, "cancelled")
    clock.move(NOW - 100)
    body = {
        "assistant_id": assistant["id"],
        "thread": {
            "messages": [
                {"role": "assistant", "content": "What do you need?"},
                {"role": "user", "content": "tools"},
            ]
        },
        "metadata": {"customer": "44"},
    }
    waiting = await recorder.post("/threads/runs", body, "run-waiting")
    waiting = await recorder.reaches(waiting, "requires_action")
    return [used, failed, cut, cancelled, waiting]


async def make_active(recorder: Recorder, clock: FixedClock, assistant: str) -> list[Any]:
    """Make runs that stay queued, in_progress and cancelling, since the engine is stopped."""
    clock.move(NOW)
    by_id = {"id": assistant}
    working = await recorder.start(by_id, "hang", metadata={"customer": "45"})
    leaving = await recorder.start(by_id, "hang")
    for run in (working, leaving):
        await recorder.has_text(run)
    (engine,) = [task for task in asyncio.all_tasks() if task.get_name() == "openai_runs.engine"]
    engine.cancel()
    await asyncio.wait([engine])
    await recorder.post(f"{path_of(leaving)}/cancel", {}, "cancel-2")
    queued = await recorder.start(by_id, "plain", "run-queued", metadata={"customer": "46"})
    refused = {"assistant_id": assistant}
    await recorder.post(f"/threads/{queued['thread_id']}/runs", refused, "refused", status=400)
    statuses = [(await recorder.get(path_of(run)))["status"] for run in (working, leaving, queued)]
    assert statuses == ["in_progress", "cancelling", "queued"], statuses
    return [working, leaving, queued]


async def requests_for(recorder: Recorder, runs: list[Any]) -> list[dict[str, Any]]:
    """Return all requests whose answers are kept."""
    paths: list[str] = []
    streams: list[dict[str, Any]] = []
    assistants = (await recorder.get("/assistants?limit=100"))["data"]
    paths += [f"/assistants/{each['id']}" for each in assistants]
    cursor = assistants[0]["id"]
    paths += ["/assistants", "/assistants?limit=1", f"/assistants?order=asc&before={cursor}"]
    paths += [f"/assistants?limit=1&after={cursor}"]
    for thread in dict.fromkeys(f"/threads/{run['thread_id']}" for run in runs):
        paths += [thread, f"{thread}/messages", f"{thread}/messages?order=asc&limit=1"]
        found = (await recorder.get(f"{thread}/messages?limit=100"))["data"]
        paths += [f"{thread}/messages/{message['id']}" for message in found]
        paths += [f"{thread}/messages?after={found[0]['id']}&limit=2"]
        paths += [f"{thread}/runs", f"{thread}/runs?order=asc&limit=1"]
    for run in runs:
        path = path_of(run)
        steps = (await recorder.get(f"{path}/steps?limit=100"))["data"]
        paths += [path, f"{path}/steps", f"{path}/steps?order=asc&limit=1"]
        paths += [f"{path}/steps/{step['id']}" for step in steps]
        paths += [f"/threads/{run['thread_id']}/messages?run_id={run['id']}"]
        if recorder.streams:
            stream = {"method": "GET", "path": f"{path}/stream"}
            streams += [stream, *({**stream, "after": place} for place in ("0-2", "1-4", "9-999"))]
    gets = [{"method": "GET", "path": path} for path in paths]
    other = {**recorder.posted[0], "body": {"model": "another"}}
    return [*gets, *streams, *recorder.posted, other]


async def write_file(db: Path) -> list[dict[str, Any]]:
    """Write the database, and return the requests to be asked of it."""
    clock = FixedClock(NOW - 1000)
    working = db.with_name("working.db")
    async with (
        LocalServer(working, ScriptedBackend(script), clock=clock) as server,
        aiohttp.ClientSession() as session,
    ):
        recorder = Recorder(session, server.url)
        runs = await make_objects(recorder, clock)
        runs += await make_active(recorder, clock, runs[0]["assistant_id"])
        async with session.delete(f"{server.url}/assistants/{runs[2]['assistant_id']}") as reply:
            assert reply.status == 200
        requests = await requests_for(recorder, runs)
        source = sqlite3.connect(working)
        source.execute("VACUUM INTO ?", (str(db),))
        source.close()
    return requests


async def health(session: aiohttp.ClientSession, url: str) -> Any:
    """Return what the page of readiness counts."""
    async with session.get(f"{url.removesuffix('/v1')}/readyz") as response:
        return await response.json()


async def ask(db: Path, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the answers of a server that opens the file and executes no run of it."""
    async with (
        LocalServer(db, ScriptedBackend(), clock=FixedClock(NOW), max_concurrent_runs=0) as server,
        aiohttp.ClientSession() as session,
    ):
        with anyio.fail_after(10):  # what was `cancelling` is ended while the server starts
            while (await health(session, server.url))["cancelling"]:  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.02)
        return [await exchange(session, server.url, request) for request in requests]


async def main(folder: Path) -> None:
    """Write both files."""
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch, "runs.sqlite3")
        requests = await write_file(written)
        opened = Path(shutil.copy(written, Path(scratch, "opened.sqlite3")))
        answers = await ask(opened, requests)
        shutil.copy(written, folder / "runs.sqlite3")
    text = json.dumps({"now": NOW, "answers": answers}, indent=1, ensure_ascii=False)
    (folder / "answers.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
