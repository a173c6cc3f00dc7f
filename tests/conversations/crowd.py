"""Users that write to two bots at once, one of which is killed: what comes of their messages.

`python -m tests.conversations.crowd` does it with 100 users, as `poe long bots`.
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.abc
from aiohttp import web
from anyio.streams.text import TextReceiveStream

from openai_runs import AsyncClient
from openai_runs.conversations import SQLiteStore
from openai_runs.server import LocalServer, Say, ScriptedBackend

ROOT = Path(__file__).resolve().parents[2]
ANSWER = Say("This is the answer to what you said.", chunk=4, pause=0.06)
ARRIVALS = """
CREATE TABLE arrivals (key TEXT, id INTEGER, text TEXT, PRIMARY KEY (key, id));
CREATE TRIGGER note_arrival AFTER INSERT ON conversations
WHEN json_extract(CAST(new.data AS TEXT), '$.waiting[#-1].id')
    = json_extract(CAST(new.data AS TEXT), '$.last_id')
BEGIN
    INSERT OR IGNORE INTO arrivals VALUES (
        new.key,
        json_extract(CAST(new.data AS TEXT), '$.last_id'),
        json_extract(CAST(new.data AS TEXT), '$.waiting[#-1].text')
    );
END;
"""
"""Notes the order in which messages arrive at the store."""


class Outcome(NamedTuple):
    """What has come of all messages."""

    messages: int
    """That arrived at the store."""
    runs: int
    rejections: list[str]
    """Requests with a 4xx answer."""
    wrong: list[str]
    """Conversations that are not in order, or hold a message without an answer."""
    events: list[list[Any]]
    """What the bots printed."""
    after_kill: float
    """Seconds from the kill to the last answer."""

    def count(self, what: str) -> int:
        """Return how many events there are of a kind."""
        return sum(event[0] == what for event in self.events)


class Bot:
    """One bot process."""

    def __init__(self, process: anyio.abc.Process, events: list[list[Any]]) -> None:
        self._process = process
        self._all = events
        self.events: list[list[Any]] = []
        self.ready = anyio.Event()

    async def read(self) -> None:
        """Note what it prints, to its end."""
        assert self._process.stdout is not None
        rest = ""
        async for text in TextReceiveStream(self._process.stdout):
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                event = json.loads(line)
                self.events.append(event)
                self._all.append(event)
            self.ready.set()

    async def write(self, user: str, text: str) -> None:
        """Have a user write to it."""
        assert self._process.stdin is not None
        await self._process.stdin.send(json.dumps([user, text]).encode() + b"\n")

    def kill(self) -> None:
        """End it by force, if it still runs."""
        with suppress(ProcessLookupError):
            self._process.kill()

    @property
    def is_answering(self) -> bool:
        """Return whether it has shown the first words of an answer, and not the last."""
        kinds = [event[0] for event in self.events]
        return kinds.count("begun") > kinds.count("answered") + kinds.count("cancelled")


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Return once the condition holds, which another process brings about."""
    with anyio.fail_after(seconds):
        while not await condition():  # noqa: ASYNC110
            await anyio.sleep(0.05)


@asynccontextmanager
async def bots(arguments: list[str], events: list[list[Any]]) -> AsyncIterator[list[Bot]]:
    """Run two bots, and end them after the block."""
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        running = []
        for _ in range(2):
            command = [sys.executable, "-m", "tests.conversations.bot", *arguments]
            process = await stack.enter_async_context(
                await anyio.open_process(command, cwd=ROOT, stderr=None)
            )
            bot = Bot(process, events)
            tasks.start_soon(bot.read)
            running.append(bot)
        try:
            for bot in running:
                await bot.ready.wait()
            yield running
        finally:
            for bot in running:
                bot.kill()


class Server:
    """The server that the bots use: a model that takes its time, and a note of each 4xx."""

    def __init__(self) -> None:
        self.rejections: list[str] = []
        backend = ScriptedBackend(lambda request: ANSWER)

        @web.middleware
        async def note(request: web.Request, handler: Any) -> web.StreamResponse:
            answer: web.StreamResponse = await handler(request)
            if 400 <= answer.status < 500:
                self.rejections.append(f"{answer.status} {request.method} {request.path}")
            return answer

        self.local = LocalServer(backend=backend, middlewares=[note])


async def crowd(folder: Path, mode: str, *, users: int, each: int, lease: float) -> Outcome:
    """Have users write `each` messages within a second, kill a bot, return what comes of them."""
    file = folder / f"{mode}.db"
    store = SQLiteStore(file)
    await store.open_keys()
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(ARRIVALS)
    events: list[list[Any]] = []
    server = Server()
    patience = 50 if users < 20 else 600
    async with server.local as local, AsyncClient(local.url) as client:
        assistant = await client.assistants.create(model="scripted")
        arguments = [local.url, str(file), assistant.id, str(lease), mode]
        async with bots(arguments, events) as running:
            await _write(running, users, each)

            async def has_come() -> bool:
                return len(_arrivals(file)) == users * each and running[1].is_answering

            async def is_over() -> bool:
                return not await store.open_keys()

            await until(has_come, patience)
            running[1].kill()
            killed_at = anyio.current_time()
            await until(is_over, patience)
            after_kill = anyio.current_time() - killed_at
        wrong, runs = await _check(client, store, file, mode)
    await store.aclose()
    return Outcome(users * each, runs, server.rejections, wrong, events, after_kill)


async def _write(running: list[Bot], users: int, each: int) -> None:
    chance = random.Random(users)
    for message in range(each):
        for user in range(users):
            await chance.choice(running).write(f"user {user}", f"{user}.{message}")
            await anyio.sleep(1 / (users * each))


def _arrivals(file: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(file, timeout=30)) as connection:
        return connection.execute("SELECT key, text FROM arrivals ORDER BY key, id").fetchall()


async def _check(
    client: AsyncClient, store: SQLiteStore, file: Path, mode: str
) -> tuple[list[str], int]:
    wrong, runs = [], 0
    arrived: dict[str, list[str]] = {}
    for key, text in _arrivals(file):
        arrived.setdefault(key, []).append(text)
    for key, texts in arrived.items():
        data = await store.change(key, lambda data: (None, data))
        thread_id = json.loads(data or b"{}")["thread_id"]
        messages = [one async for one in client.messages.list(thread_id, order="asc", limit=100)]
        listed = [one async for one in client.runs.list(thread_id, limit=100)]
        runs += len(listed)
        completed = {run.id for run in listed if run.status == "completed"}
        said = [one.text for one in messages if one.role == "user"]
        is_answered = messages[-1].run_id in completed and messages[-1].role == "assistant"
        ended = {run.status for run in listed}
        allowed = {"completed", "cancelled"} if mode == "interrupt" else {"completed"}
        if said != texts or not is_answered or not ended <= allowed:
            wrong.append(f"{key}: {texts} arrived, {said} asked, runs {sorted(ended)}")
    return wrong, runs


async def main() -> None:
    """Print what comes of 100 users in each mode."""
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for mode in ("queue", "join", "interrupt"):
            found = await crowd(Path(folder), mode, users=100, each=5, lease=5.0)
            assert found.wrong == [], found.wrong
            if mode != "interrupt":
                assert found.rejections == [], found.rejections
            parts.append(
                f"{mode}: {found.messages} messages, {found.runs} runs, "
                f"{found.count('merged')} merged, {len(found.rejections)} rejected, "
                f"the last answer {found.after_kill:.1f} s after the kill"
            )
    print("; ".join(parts))  # noqa: T201


if __name__ == "__main__":
    anyio.run(main)
