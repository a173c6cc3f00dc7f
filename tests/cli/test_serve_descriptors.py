"""`openai-runs serve` with few descriptors: strangers lock nobody out, and the log stays short."""

import asyncio
import resource
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import anyio
import pytest

from openai_runs import AsyncClient
from openai_runs.config import MAX_CONCURRENT_RUNS, MAX_SERVER_CONNECTIONS
from openai_runs.server.listening import max_connections, raise_descriptor_limit
from tests.cli.processes import COMMAND, Serving, clean_env, finish
from tests.support import Action, Answer, Hang, HostileServer, Received, without_list

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sets limits of processes")

FEW = 64
"""Descriptors of the server."""
MANY = 200
"""Connections that a stranger opens."""
MOST_LOG = 2000
"""Bytes that the log may have after it: some lines."""
BEGINNINGS = {
    "idle": b"",
    "slow-headers": b"GET /v1/threads HTTP/1.1\r\nHost: a\r\nX-Slow: ",
    "slow-line": b"GE",
    "slow-body": b"POST /v1/threads HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
    "kept": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
}
"""What each of them sends."""
CHOICE = {
    "index": 0,
    "finish_reason": "stop",
    "message": {"role": "assistant", "content": "In the end."},
}


@asynccontextmanager
async def serving_with(
    soft: int, hard: int, folder: Path, *arguments: str, **env: str
) -> AsyncIterator[Serving]:
    """Run `openai-runs serve` under these limits of descriptors."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "serve",
        "--port",
        "0",
        *arguments,
        cwd=folder,
        env=clean_env(**env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
    )
    try:
        assert process.stdout is not None
        yield Serving(process, (await process.stdout.readline()).decode())
    finally:
        if process.returncode is None:
            process.kill()
            await finish(process)


@asynccontextmanager
async def crowd(url: str, number: int, sent: bytes) -> AsyncIterator[list[socket.socket]]:
    """Open connections, each of which sends this and reads nothing."""
    address = urlsplit(url)
    opened: list[socket.socket] = []
    async with AsyncExitStack() as stack:
        for _ in range(number):
            stream = await anyio.connect_tcp(str(address.hostname), address.port or 0)
            await stack.enter_async_context(stream)
            raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
            opened.append(raw)
            try:
                await stream.send(sent)
            except anyio.BrokenResourceError:  # closed already, to make way for others
                continue
        yield opened


async def answers(url: str, api_key: str | None = None) -> None:
    """Return once a client that comes now was served."""
    with anyio.fail_after(30):
        async with AsyncClient(url, api_key=api_key) as client:
            thread = await client.threads.create()
            await client.threads.retrieve(thread.id)


@pytest.mark.parametrize("sent", BEGINNINGS.values(), ids=BEGINNINGS)
async def test_strangers_with_many_connections_lock_nobody_out(sent: bytes, tmp_path: Path) -> None:
    """Of connections without a whole request, the longest idle make way; the log is some lines."""
    env = {"SERVER_KEY": "sk-of-the-server"}
    options = ["--api-key-env", "SERVER_KEY"]
    async with serving_with(FEW, FEW, tmp_path, *options, **env) as server:
        async with crowd(server.url, MANY, sent):
            await answers(server.url, api_key=env["SERVER_KEY"])
        await answers(server.url, api_key=env["SERVER_KEY"])
        left = await server.end(15)

    assert left.code == 0
    assert len(left.err) < MOST_LOG, left.err[:5000]
    assert "Traceback" not in left.err


async def test_idle_connection_is_kept_while_nobody_else_comes(tmp_path: Path) -> None:
    """As many as there may be: none is closed without need."""
    async with serving_with(FEW, FEW, tmp_path) as server:
        address = urlsplit(server.url)
        opened = [await asyncio.open_connection(address.hostname, address.port) for _ in range(16)]
        with anyio.fail_after(20):
            for reader, writer in [*opened, opened[0]]:
                writer.write(BEGINNINGS["kept"])
                assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 OK")
        for _, writer in opened:
            writer.close()
        left = await server.end(15)

    assert "connections are open" not in left.err


async def test_request_that_is_being_answered_outlasts_a_crowd(tmp_path: Path) -> None:
    """Only idle connections make way: a held poll and a stream go on."""
    asked, free = anyio.Event(), anyio.Event()

    async def answer(request: Received) -> Action:
        asked.set()
        await free.wait()
        return Answer(json={"choices": [CHOICE], "model": "m", "object": "chat.completion"})

    bodies = {}

    async def read(session: aiohttp.ClientSession, url: str, **headers: str) -> None:
        async with session.get(url, headers=headers) as response:
            bodies[url] = await response.text()

    async with HostileServer(without_list(answer)) as model:
        options = ["--model-url", model.url]
        async with serving_with(FEW, FEW, tmp_path, *options) as server:
            async with AsyncClient(server.url) as client, aiohttp.ClientSession() as session:
                assistant = await client.assistants.create(model="m")
                thread = await client.threads.create()
                run = await client.runs.create(thread.id, assistant_id=assistant.id)
                await asked.wait()
                async with anyio.create_task_group() as group:
                    url = f"{server.url}/threads/{thread.id}/runs/{run.id}"
                    group.start_soon(read, session, f"{url}/stream")
                    group.start_soon(lambda: read(session, url, Prefer="wait=30"))
                    async with crowd(server.url, MANY, b""):
                        await answers(server.url)
                    free.set()
            await server.end(15)

    stream, held = bodies[f"{url}/stream"], bodies[url]
    assert stream.endswith("data: [DONE]\n\n")
    assert "In the end." in stream
    assert '"status":"completed"' in held


async def test_burst_that_goes_away_leaves_a_server_that_answers(tmp_path: Path) -> None:
    """Again and again: no descriptor is lost by it."""
    async with serving_with(FEW, FEW, tmp_path) as server:
        for _ in range(5):
            async with crowd(server.url, MANY, b""):
                pass
            await answers(server.url)
        left = await server.end(15)

    assert left.code == 0
    assert len(left.err) < MOST_LOG, left.err[:5000]


async def test_limit_that_is_lowered_while_the_server_runs_is_kept_to(tmp_path: Path) -> None:
    """Also below what is open: connections are given up, nothing is logged without end."""
    async with serving_with(256, 256, tmp_path) as server:
        async with crowd(server.url, 100, b""):
            await answers(server.url)
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (48, 256))
            await answers(server.url)
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (4, 256))
            async with crowd(server.url, 20, b""):
                resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (256, 256))
                await answers(server.url)
        await answers(server.url)
        left = await server.end(15)

    assert left.code == 0
    assert len(left.err) < MOST_LOG, left.err[:5000]


async def test_runs_that_hold_many_model_connections_lock_nobody_out(tmp_path: Path) -> None:
    """More runs than descriptors for their models: the server answers, and the log is short."""
    async with HostileServer(lambda request: Hang()) as model:
        options = ["--model-url", model.url]
        async with serving_with(FEW, FEW, tmp_path, *options) as server:
            async with AsyncClient(server.url) as client:
                assistant = await client.assistants.create(model="m")
                for _ in range(MAX_CONCURRENT_RUNS):
                    thread = await client.threads.create()
                    await client.runs.create(thread.id, assistant_id=assistant.id)
            async with crowd(server.url, MANY, b""):
                await answers(server.url)
            server.process.send_signal(15)
            left = await server.end(15)

    assert left.code in {0, 143}
    assert len(left.err) < MOST_LOG + 200 * MAX_CONCURRENT_RUNS, left.err[:5000]


async def test_soft_limit_is_raised_towards_the_hard_one(tmp_path: Path) -> None:
    """A shell's soft limit is for programs of another time."""
    async with serving_with(FEW, 512, tmp_path) as server:
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)

    assert limits == (512, 512)


@contextmanager
def limited(soft: int) -> Iterator[None]:
    """Give this process another soft limit."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(("soft", "most"), [(48, 8), (64, 16), (128, 48), (256, 160), (1024, 928)])
def test_connections_leave_descriptors_for_everything_else(soft: int, most: int) -> None:
    """For the database, and for a model connection of each run, as far as there are as many."""
    with limited(soft):
        assert max_connections() == most


@pytest.mark.parametrize("soft", [resource.RLIM_INFINITY, 2**31, 1_000_000])
def test_connections_are_bounded_where_descriptors_are_not(
    soft: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit without end is none to go by."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, soft))

    assert max_connections() == MAX_SERVER_CONNECTIONS
    raise_descriptor_limit()  # leaves it


def test_limit_that_cannot_be_raised_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system may have a bound of its own, as macOS does, whatever the hard limit says."""

    def refuse(kind: int, limits: tuple[int, int]) -> None:
        message = "current limit exceeds maximum limit"
        raise ValueError(message)

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)

    raise_descriptor_limit()
