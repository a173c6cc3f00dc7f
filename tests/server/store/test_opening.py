"""Opening and closing: by any task, more than once, and nothing is left."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from openai_runs.errors import ConfigError
from openai_runs.server import EchoBackend, Hang, LocalServer, ScriptedBackend, create_app
from tests.server.support import Caller


async def test_server_is_opened_in_one_task_and_closed_in_another() -> None:
    """No scope belongs to the task that opened it, and no task or thread stays."""
    before = asyncio.all_tasks()
    server = LocalServer(backend=ScriptedBackend([Hang()]))

    await asyncio.create_task(server.start())
    async with aiohttp.ClientSession() as session:
        caller = Caller(session, server.url)
        await caller.reaches(await caller.start(), "in_progress")
    await asyncio.create_task(server.aclose())
    await server.aclose()

    assert asyncio.all_tasks() == before
    assert not [t for t in threading.enumerate() if t.name.startswith("openai_runs")]
    with pytest.raises(RuntimeError, match="not open"):
        _ = server.url


async def test_server_is_closed_whole_when_its_scope_was_cancelled() -> None:
    """A caller's deadline ends the server, and leaves no file, thread or lock behind."""
    with anyio.CancelScope() as scope:
        async with LocalServer(backend=ScriptedBackend([Hang()])) as server:
            folder = server.path.parent
            scope.cancel()
            await anyio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    assert not await anyio.Path(folder).exists()
    assert not [t for t in threading.enumerate() if t.name.startswith("openai_runs")]


@pytest.mark.parametrize("steps", range(1, 13))
async def test_start_that_is_cancelled_leaves_nothing_open(steps: int, tmp_path: Path) -> None:
    """However far it came: no thread stays, and the next server has the file at once."""
    path = tmp_path / "runs.db"

    async def cancel_after(scope: anyio.CancelScope) -> None:
        for _ in range(steps):
            await anyio.sleep(0.002)  # the file is opened in another thread meanwhile
        scope.cancel()

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(cancel_after, scope)
            server = LocalServer(path)
            await server.start()
        await server.aclose()

    assert not [t for t in threading.enumerate() if t.name.startswith("openai_runs")]
    async with LocalServer(path) as server:
        assert server.path == path


@pytest.mark.parametrize("by", ["scope", "task"])
async def test_start_that_is_cancelled_while_it_binds_its_port_leaves_no_socket(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What listens is closed; a `create_server` of asyncio that is cancelled then drops it."""
    bound: list[socket.socket] = []
    listen = socket.socket.listen
    starting: asyncio.Task[None] | None = None
    scope = anyio.CancelScope()

    def listen_and_cancel(listener: socket.socket, backlog: int) -> None:
        bound.append(listener)
        listen(listener, backlog)
        if by == "scope":
            scope.cancel()
        elif starting is not None:
            starting.cancel()

    async def start() -> None:
        with scope:
            await server.start()

    server = LocalServer()
    monkeypatch.setattr(socket.socket, "listen", listen_and_cancel)
    starting = asyncio.create_task(start())
    await asyncio.wait([starting])

    assert starting.cancelled() is (by == "task")
    assert [listener.fileno() for listener in bound] == [-1]
    with pytest.raises(RuntimeError, match="not open"):
        _ = server.url


async def test_application_that_cannot_start_leaves_nothing_open(tmp_path: Path) -> None:
    """What of a user's own fails while it starts is raised, and the file is given up."""
    path = tmp_path / "runs.db"

    app = create_app(path, backend=EchoBackend())

    async def fail(app: web.Application) -> None:
        message = "no"
        raise RuntimeError(message)

    app.on_startup.append(fail)
    runner = web.AppRunner(app)
    with pytest.raises(RuntimeError, match="no"):
        await runner.setup()
    await runner.cleanup()

    assert not [t for t in threading.enumerate() if t.name.startswith("openai_runs")]


class Connections:
    """Makes SQLite's connections and keeps them; of more than `most`, each is refused."""

    def __init__(self, most: int) -> None:
        self.made: list[sqlite3.Connection] = []
        self._most = most
        self._connect = sqlite3.connect

    def connect(self, *args: Any, **options: Any) -> sqlite3.Connection:
        """Return a connection, or fail as where the process may open no more files."""
        if len(self.made) == self._most:
            problem = "unable to open database file"
            raise sqlite3.OperationalError(problem)
        self.made.append(self._connect(*args, **options))
        return self.made[-1]


def give_newer_version(path: Path) -> None:
    """Make a file as a later version of this package would."""
    with closing(sqlite3.connect(path)) as file, file:
        for table in ("assistants", "threads", "messages", "runs", "steps"):
            file.execute(f"CREATE TABLE {table} (id)")
        file.execute("PRAGMA user_version = 99")


REFUSED: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "no-database": (lambda path: path.write_bytes(b"x" * 5000), 9, "not a database"),
    "newer": (give_newer_version, 9, "schema version 99"),
    "no-writer": (Path.touch, 0, "unable to open"),
    "no-reader": (Path.touch, 1, "unable to open"),
    "one-reader": (Path.touch, 2, "unable to open"),
}


@pytest.mark.parametrize(("prepare", "most", "problem"), REFUSED.values(), ids=REFUSED)
async def test_server_that_cannot_use_its_file_closes_every_connection(
    prepare: Callable[[Path], object],
    most: int,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """None is left to the garbage collector, which warns of it from Python 3.13 on."""
    path = tmp_path / "runs.db"
    await anyio.to_thread.run_sync(prepare, path)
    connections = Connections(most)
    monkeypatch.setattr(sqlite3, "connect", connections.connect)

    with pytest.raises(ConfigError, match=problem):
        await LocalServer(path).start()

    for connection in connections.made:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            _ = connection.total_changes
    monkeypatch.undo()
    await anyio.to_thread.run_sync(path.unlink)
    async with LocalServer(path) as server:
        assert server.path == path


async def test_server_cannot_be_opened_twice() -> None:
    """A closed server is made anew, not opened again."""
    async with LocalServer() as server:
        with pytest.raises(RuntimeError, match="only once"):
            await server.start()


async def test_address_for_others_needs_a_key() -> None:
    """What other machines can reach is never open to everybody."""
    with pytest.raises(ConfigError, match="needs an api_key"):
        LocalServer(host="0.0.0.0")

    async with LocalServer(host="0.0.0.0", api_key="secret-key-1") as server:
        assert server.url.startswith("http://0.0.0.0:")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.8.8.8", "x.localhost"]
)
def test_loopback_needs_no_key(host: str) -> None:
    """Only this machine reaches it."""
    LocalServer(host=host)


@pytest.mark.parametrize("host", ["::1", "[::1]"])
async def test_address_of_version_6_is_served_with_or_without_brackets(host: str) -> None:
    """Either form that people write, and one in the URL."""
    async with LocalServer(host=host) as server, aiohttp.ClientSession() as session:
        assert server.url.startswith("http://[::1]:")
        reply = await Caller(session, server.url).health()

    assert reply.status == 200


async def test_taken_port_is_an_error_that_leaves_nothing_open(tmp_path: Path) -> None:
    """The file is free again for the next try."""
    async with LocalServer() as first:
        port = int(first.url.rpartition(":")[2].removesuffix("/v1"))
        with pytest.raises(OSError, match="address already in use"):
            await LocalServer(tmp_path / "p.db", port=port).start()

    async with LocalServer(tmp_path / "p.db", port=port) as second:
        assert second.url.endswith(f":{port}/v1")


async def test_application_runs_in_a_server_of_the_callers_own(tmp_path: Path) -> None:
    """`create_app` is an aiohttp application like any other."""
    app = create_app(tmp_path / "app.db", backend=EchoBackend(), drain_grace=0)

    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        caller = Caller(session, str(server.make_url("/v1")))
        run = await caller.settled(await caller.start("Say it again"))
        message = (await caller.messages(run))[-1]

    assert message["content"][0]["text"]["value"] == "Say it again"


async def test_draining_server_answers_but_begins_no_run(tmp_path: Path) -> None:
    """What comes while it drains waits for the next server."""
    server = LocalServer(tmp_path / "drain.db")
    await server.start()
    async with aiohttp.ClientSession() as session:
        caller = Caller(session, server.url)
        await server.drain(1)
        run = await caller.start()
        await server.aclose()
        async with LocalServer(tmp_path / "drain.db") as following:
            caller = Caller(session, following.url)
            ended = await caller.settled(run)

    assert run["status"] == "queued"
    assert ended["status"] == "completed"


async def test_run_may_finish_while_the_server_drains(tmp_path: Path) -> None:
    """Work that ends within the grace is not done again."""
    from openai_runs.server import Say

    backend = ScriptedBackend([Say("Done.", delay=0.2)])
    server = LocalServer(tmp_path / "grace.db", backend)
    await server.start()
    async with aiohttp.ClientSession() as session:
        caller = Caller(session, server.url)
        run = await caller.reaches(await caller.start(), "in_progress")
        with anyio.fail_after(10):
            await server.drain(20)
        ended = await caller.settled(run)
    await server.aclose()

    assert ended["status"] == "completed"
    assert len(backend.requests) == 1


async def test_health_says_so_when_nothing_is_carried_out() -> None:
    """A server whose engine is gone is not well, though it answers."""
    async with LocalServer() as server, aiohttp.ClientSession() as session:
        (root,) = [t for t in asyncio.all_tasks() if t.get_name() == "openai_runs.engine"]
        root.cancel()
        await asyncio.wait([root])

        reply = await Caller(session, server.url).health()

    assert (reply.status, reply.json["status"]) == (503, "stopped")
