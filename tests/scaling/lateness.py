"""How late the end of a run is seen: by requests that are held, and by streams.

All wait at once; a process executes 64 of the runs at a time, the others are queued. A model
endpoint in this process holds its calls, and lets them end one after the other, as they have come.
What is measured begins when it has sent the whole answer, and ends when whoever waits has the end
of the run.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import anyio
from aiohttp import web

from tests.scaling.processes import Processes

__all__ = ["Lateness", "measure_lateness"]

_PAUSE = 0.02
"""Seconds between two ends: fast enough to be load, slow enough to queue nowhere."""
_CHUNK = (
    b'data: {"choices":[{"index":0,"delta":{"content":"Paris."},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


class Lateness(NamedTuple):
    """Seconds, of all that waited."""

    polls: list[float]
    streams: list[float]

    @property
    def figures(self) -> tuple[float, float, float, float]:
        """Return p50 and p99 of the polls, and of the streams."""
        return (*_percentiles(self.polls), *_percentiles(self.streams))


def _percentiles(values: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[98]


class Model:
    """An endpoint whose calls end when they are let."""

    def __init__(self) -> None:
        """Start with no call."""
        self._calls, self._waiting = anyio.create_memory_object_stream[anyio.Event](math.inf)
        self.ended_at: dict[str, float] = {}
        """When the answer to a text was sent."""

    async def end_one(self) -> None:
        """Let the call end that came first, once there is one."""
        end = await self._waiting.receive()
        end.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a call once it may."""
        body = await request.json()
        text = body["messages"][-1]["content"]
        end = anyio.Event()
        self._calls.send_nowait(end)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await end.wait()
        self.ended_at[text] = time.monotonic()
        await response.write(_CHUNK)
        await response.write_eof()
        return response


@asynccontextmanager
async def _serving(model: Model) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", model.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def measure_lateness(db: str, held: int, *, apart: bool) -> Lateness:
    """Return how late so many held requests and so many streams see the end of their runs.

    `apart`: whether one process serves and another executes.
    """
    model = Model()
    async with _serving(model) as endpoint, Processes() as processes:
        options = ["--model-url", endpoint, "--model", "m"]
        if apart:
            await processes.work(db, *options)
            url = await processes.serve(db, "--no-execute", *options)
        else:
            url = await processes.serve(db, *options)
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=600)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            return await _Waiters(session, url, model, held).measure()


class _Waiters:
    """Callers that each start a run, and wait for its end."""

    def __init__(self, session: aiohttp.ClientSession, url: str, model: Model, number: int) -> None:
        """Have so many of each kind."""
        self._session = session
        self._url = url
        self._model = model
        self._number = number
        self._assistant = ""
        self._starts = 0
        self._started = anyio.Event()
        self._limiter = anyio.CapacityLimiter(100)
        self._found = Lateness([], [])

    async def measure(self) -> Lateness:
        """Start them all, then let their runs end; return how late they saw it."""
        async with self._session.post(f"{self._url}/assistants", json={"model": "m"}) as answer:
            self._assistant = (await answer.json())["id"]
        async with anyio.create_task_group() as group:
            for number in range(self._number):
                group.start_soon(self._poll, f"poll {number}")
                group.start_soon(self._read, f"stream {number}")
            with anyio.fail_after(300):
                await self._started.wait()
                await anyio.sleep(2)  # for the last one to wait
                for _ in range(2 * self._number):
                    await self._model.end_one()
                    await anyio.sleep(_PAUSE)
        assert len(self._found.polls) == len(self._found.streams) == self._number
        return self._found

    async def _create(self, text: str, *, stream: bool) -> aiohttp.ClientResponse:
        body: dict[str, Any] = {
            "assistant_id": self._assistant,
            "stream": stream,
            "thread": {"messages": [{"role": "user", "content": text}]},
        }
        async with self._limiter:
            response = await self._session.post(f"{self._url}/threads/runs", json=body)
        assert response.status == 200, await response.text()
        self._starts += 1
        if self._starts == 2 * self._number:
            self._started.set()
        return response

    async def _poll(self, text: str) -> None:
        async with await self._create(text, stream=False) as response:
            run = await response.json()
        path = f"{self._url}/threads/{run['thread_id']}/runs/{run['id']}"
        while run["status"] != "completed":
            assert run["status"] in {"queued", "in_progress"}, run
            async with self._session.get(path, headers={"Prefer": "wait=60"}) as response:
                run = await response.json()
        self._found.polls.append(time.monotonic() - self._model.ended_at[text])

    async def _read(self, text: str) -> None:
        async with await self._create(text, stream=True) as response:
            async for line in response.content:
                if line.startswith(b"event: thread.run.completed"):
                    late = time.monotonic() - self._model.ended_at[text]
                    self._found.streams.append(late)
