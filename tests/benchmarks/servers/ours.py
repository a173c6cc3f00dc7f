"""Our server, as `openai-runs serve` runs it: durable, on a file on disk.

    python -m tests.benchmarks.servers.ours model     # in front of an instant model endpoint
    python -m tests.benchmarks.servers.ours timed 8   # runs of 2 to 8 s, from `GET /v1/go` on

The process ends when its standard input does. `GET /v1/seen` tells how many looks at runs
were answered since it was last asked, and when each run finished.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from aiohttp import web

from openai_runs._cli.commands.serve import spare_collections
from openai_runs.server import (
    Backend,
    ChatBackend,
    Finish,
    LocalServer,
    ModelEvent,
    ModelRequest,
    TextDelta,
)
from openai_runs.types import Usage

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

_AT_ONCE = 2000
"""Runs at work at the same time, at most."""


class Timed:
    """A backend whose runs last 2 s and more, counted from the moment they are let go."""

    def __init__(self, longest: float) -> None:
        """Hold all runs back."""
        self._span = longest - 2
        self.go = anyio.Event()
        self.finished: dict[str, float] = {}
        self._runs = 0

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Say something after the run's time."""
        self._runs += 1
        seconds = 2 + self._runs * 0.6180339887498949 % 1 * self._span
        await self.go.wait()
        await anyio.sleep(seconds)
        yield TextDelta("It is on its way.")
        self.finished[request.run.id] = time.monotonic()
        yield Finish(usage=Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15))


def _watched(backend: Backend, looks: list[str]) -> Middleware:
    """Return what counts looks at runs, and answers the questions of the benchmark."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if isinstance(backend, Timed) and request.path == "/v1/go":
            backend.go.set()
            return web.json_response({})
        if isinstance(backend, Timed) and request.path == "/v1/seen":
            told = {"requests": len(looks), "finished": dict(backend.finished)}
            looks.clear()
            backend.finished.clear()
            backend.go = anyio.Event()
            return web.json_response(told)
        if request.method == "GET" and "/runs/" in request.path:
            looks.append(request.path)
        return await handler(request)

    return middleware


async def serve(folder: str, backend: Backend) -> None:
    """Print the address, and serve until standard input is closed."""
    looks: list[str] = []
    server = LocalServer(
        Path(folder) / "runs.db",
        backend,
        max_concurrent_runs=_AT_ONCE,
        middlewares=[_watched(backend, looks)] if isinstance(backend, Timed) else [],
    )
    closed = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), closed.set)
    await server.start()
    spare_collections()
    print(server.url, flush=True)
    await closed.wait()
    await server.aclose()


def main() -> None:
    """Serve from a new file, removed at the end."""
    # Not the system's temporary folder, which may be memory: the file is to be on a disk.
    build = Path(__file__).resolve().parents[3] / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build) as folder:
        if sys.argv[1] == "timed":
            asyncio.run(serve(folder, Timed(float(sys.argv[2]))))
            return
        command = [sys.executable, "-m", "tests.benchmarks.servers.model"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as model:
            assert model.stdout is not None
            assert model.stdin is not None
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(model.pid, {cores[-1]})
            url = model.stdout.readline().strip()
            asyncio.run(serve(folder, ChatBackend(url)))
            model.stdin.close()


if __name__ == "__main__":
    main()
