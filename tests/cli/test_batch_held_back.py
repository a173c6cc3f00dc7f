"""`openai-runs batch run` before a server that answers 429: since when, until when, and Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
from aiohttp import web
from aiohttp.web_runner import AppRunner, TCPSite

from openai_runs import AsyncClient
from openai_runs.server import EchoBackend, create_app
from tests.batch.batching import launch
from tests.cli.processes import finish, read_until, run_on_terminal
from tests.cli.test_batch import FILES, write

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refusing:
    """A server that answers creates of threads with 429, the first few or all."""

    def __init__(self, times: int, seconds: int) -> None:
        self.url = ""
        self.assistant_id = ""
        self._left = times
        self._seconds = seconds

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse."""
        if request.path.endswith("/threads") and self._left:
            self._left -= 1
            body = {"error": {"message": "Too many requests.", "type": "requests"}}
            headers = {"retry-after": str(self._seconds)}
            return web.json_response(body, status=429, headers=headers)
        return await handler(request)


@asynccontextmanager
async def refusing(folder: Path, *, times: int, seconds: int) -> AsyncIterator[Refusing]:
    """Serve, with three lines in the folder."""
    made = Refusing(times, seconds)
    app = create_app(folder / "server.db", backend=EchoBackend(), middlewares=[made.middleware])
    runner = AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        async with AsyncClient(made.url, api_key=None) as client:
            made.assistant_id = (await client.assistants.create(model="echo")).id
        write(folder, made, "one", "two", "three")
        yield made
    finally:
        await runner.cleanup()


async def test_log_says_when_429s_begin_and_end(tmp_path: Path) -> None:
    """It names the pause that the server asks for; the batch completes."""
    async with refusing(tmp_path, times=1, seconds=2) as server:
        done = await finish(await launch(tmp_path, server.url))

    assert done.code == 0
    begin, end = "held back by 429", "429s hold nothing back any more"
    assert (done.err.count(begin), done.err.count(end)) == (1, 1)
    assert ", next request in " in done.err
    assert done.err.index(begin) < done.err.index(end)


async def test_ctrl_c_says_that_429s_hold_the_lines_back(tmp_path: Path) -> None:
    """Else one waits for lines of which nothing can be sent."""
    async with refusing(tmp_path, times=10_000, seconds=60) as server:
        process = await launch(tmp_path, server.url)
        await read_until("held back by 429", process.stderr)
        process.send_signal(signal.SIGINT)
        said = await read_until("Ctrl-C again leaves them", process.stderr)
        process.send_signal(signal.SIGINT)
        done = await finish(process)

    assert done.code == 130
    assert "finishing 3 lines in progress; held back by 429" in said
    assert "the same command goes on" in done.err


async def test_bar_says_that_429s_hold_requests_back(tmp_path: Path) -> None:
    """Below the counts, where an outage stands otherwise."""
    async with refusing(tmp_path, times=1, seconds=2) as server:
        shown, code = await anyio.to_thread.run_sync(
            lambda: run_on_terminal(
                *("batch", "run", "in.jsonl", *FILES, "--base-url", server.url), folder=tmp_path
            )
        )

    assert code == 0
    assert "held back by 429, next request in 2 s" in shown
