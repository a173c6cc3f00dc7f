"""A server that kills its client, and the command `batch run` in front of it."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from aiohttp import web
from aiohttp.web_runner import AppRunner, TCPSite

from openai_runs import AsyncClient
from openai_runs.batch import Batch, BatchStatus, read_jsonl
from openai_runs.server import (
    EchoBackend,
    ModelEvent,
    ModelFailure,
    ModelRequest,
    create_app,
)
from tests.cli.processes import start

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

__all__ = [
    "ECHO",
    "TOOLS",
    "Folder",
    "Moody",
    "Site",
    "anonymous",
    "batch_line",
    "errors_of",
    "launch",
    "results_of",
    "site",
    "write_lines",
]

TOOLS = """
import os

def look_up(city: str, context) -> str:
    "Look a city up."
    file = os.open("calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{context.call_id}\\n".encode())
    os.close(file)
    return f"{city} is fine."
look_up.__annotations__["context"] = __import__("openai_runs").ToolContext
"""
"""A module for `--tools`, which notes each call in a file."""


class SlowEcho(EchoBackend):
    """Takes some milliseconds, so that runs are in every state when a process is killed."""

    def __init__(self) -> None:
        self._chance = random.Random(1)

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Answer after a moment."""
        await asyncio.sleep(self._chance.uniform(0, 0.01))
        async for event in super().respond(request):
            yield event


class Moody(EchoBackend):
    """Fails where the question asks for it."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.open = anyio.Event()
        """Until it is set, questions that begin with `wait` are not answered."""
        self.waiting = anyio.Event()
        """Set once one is not."""

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Answer, or fail."""
        question = request.question
        self.asked[question] += 1
        if question.startswith("wait"):
            self.waiting.set()
            await self.open.wait()
            question = question.removeprefix("wait ")
        if question.startswith("flaky") and self.asked[question] == 1:
            message = "Rate limit reached. Please try again in 10ms."
            raise ModelFailure(message, code="rate_limit_exceeded")
        if question.startswith("limited"):
            message = "Rate limit reached. Please try again in 60s."
            raise ModelFailure(message, code="rate_limit_exceeded")
        if question.startswith("bad"):
            message = "No such thing."
            raise ModelFailure(message, code="invalid_prompt")
        async for event in super().respond(request):
            yield event


class Site:
    """A server in this process, which kills its client when told."""

    def __init__(self, db: Path, *, remembers: bool) -> None:
        self._remembers = remembers
        self.url = ""
        self.assistant_id = ""
        self.requests = 0
        self._db = db
        self._kill_at = 0
        self._kill_after = False
        self._victim: asyncio.subprocess.Process | None = None

    def count(self, table: str, of: str = "id") -> int:
        """Return how many different values a column of a table of the server's file has."""
        with closing(sqlite3.connect(self._db)) as file:
            (number,) = file.execute(f"SELECT count(DISTINCT {of}) FROM {table}").fetchone()
        return int(number)

    def kill_at(self, victim: asyncio.subprocess.Process, requests: int, *, after: bool) -> None:
        """Kill the process at its request of this number, before or after it is carried out."""
        self._victim, self._kill_at, self._kill_after = victim, self.requests + requests, after

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Kill, and forget keys."""
        self.requests += 1
        is_time = self._victim is not None and self.requests >= self._kill_at
        if is_time and not self._kill_after:
            self._kill()
        if not self._remembers:
            headers = request.headers.copy()
            headers.popall("idempotency-key", None)
            request = request.clone(headers=headers)
        try:
            return await handler(request)
        finally:  # also where it is cancelled, as the one before was killed while it asked
            if is_time and self._kill_after:
                self._kill()

    async def say_no_features(self, request: web.Request, response: web.StreamResponse) -> None:
        """Be one of the servers that name none."""
        if not self._remembers:
            response.headers.pop("openai-runs-features", None)

    def _kill(self) -> None:
        victim, self._victim = self._victim, None
        if victim is not None and victim.returncode is None:
            victim.send_signal(signal.SIGKILL)


@asynccontextmanager
async def site(
    db: Path, *, remembers: bool = True, backend: Callable[[], Any] = SlowEcho
) -> AsyncIterator[Site]:
    """Serve on a free port; with `remembers=False` as a server without idempotency keys."""
    made = Site(db, remembers=remembers)
    app = create_app(db, backend=backend(), middlewares=[made.middleware])
    app.on_response_prepare.append(made.say_no_features)
    runner = AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        await TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        async with AsyncClient(made.url, api_key=None) as client:
            made.assistant_id = (await client.assistants.create(model="echo")).id
        yield made
    finally:
        await runner.cleanup()


def batch_line(custom_id: str, assistant_id: str, text: str) -> dict[str, Any]:
    """Return a line of the vendor's form."""
    message = {"role": "user", "content": text}
    body = {"assistant_id": assistant_id, "thread": {"messages": [message]}}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/threads/runs", "body": body}


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write a file of JSON lines."""
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


def results_of(path: Path) -> list[Any]:
    """Return the lines of an output; each must be whole."""
    if not path.exists():
        return []
    text = path.read_bytes()
    assert not text or text.endswith(b"\n")
    return [msgspec.json.decode(line) for line in text.splitlines()]


def errors_of(folder: Path) -> list[Any]:
    """Return the lines of the default file of errors."""
    return results_of(folder / "out.errors.jsonl")


async def launch(folder: Path, url: str, *more: str) -> asyncio.subprocess.Process:
    """Start `batch run` on the files of the folder."""
    arguments = ["batch", "run", "in.jsonl", "--out", "out.jsonl", "--checkpoint", "batch.db"]
    return await start([*arguments, "--base-url", url, *more], folder, {})


class Folder:
    """The files of a batch."""

    def __init__(self, path: Path, server: Site, client: AsyncClient) -> None:
        self.path = path
        self.server = server
        self.client = client
        self.source = path / "in.jsonl"
        self.out = path / "out.jsonl"
        self.checkpoint = path / "batch.db"

    def write(self, **texts: str) -> None:
        """Write the input: a line for each custom id."""
        lines = [batch_line(name, self.server.assistant_id, text) for name, text in texts.items()]
        write_lines(self.source, lines)

    def batch(self, **options: Any) -> Batch:
        """Return the batch."""
        return Batch(self.client, checkpoint=self.checkpoint, **options)

    async def run(self, **options: Any) -> BatchStatus:
        """Run it on the input."""
        return await self.batch(**options).run(read_jsonl(self.source), out=self.out)

    def results(self) -> dict[str, str]:
        """Return the text of each result."""
        return {one["custom_id"]: one["response"]["body"]["text"] for one in results_of(self.out)}


ECHO = {"model": "echo", "instructions": "Repeat."}


def anonymous(*texts: str) -> list[tuple[str, dict[str, Any]]]:
    """Return pairs whose bodies name no assistant."""
    pairs = [(text, {"role": "user", "content": text}) for text in texts]
    return [(text, {"thread": {"messages": [message]}}) for text, message in pairs]
