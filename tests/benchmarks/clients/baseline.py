"""The baseline: tuned bare aiohttp and msgspec, as somebody writes it who wants just this.

One session, no cookies, no automatic headers, URLs already encoded, no total time-out, the
body read whole and decoded by a decoder made beforehand. It retries nothing, refuses
nothing, bounds nothing: what a package adds to it is what is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from tests.benchmarks import samples
from tests.benchmarks.clients import baseline_types as types
from tests.benchmarks.clients.stopwatch import (
    Outcome,
    enter,
    of_page,
    of_run,
    of_step,
    spent,
)
from tests.benchmarks.clients.waits import ACTIVE, Waiting, wait_for_all

_HEADERS = {
    "Authorization": "Bearer k",
    "OpenAI-Beta": "assistants=v2",
    "Accept": "application/json",
}
_ENCODER = msgspec.json.Encoder()


class RefusedError(RuntimeError):
    """The server said no; `after` are the seconds it asks for, if it does."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        super().__init__(response.status)
        self.after = float(response.headers.get("Retry-After", "nan"))


class Baseline:
    """The client."""

    def __init__(self, url: str, connections: int = 100) -> None:
        """Open the session; must be called in the event loop."""
        self.url = url
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Content-Type"),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        )

    async def __aenter__(self) -> Baseline:
        """Return itself."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close the session."""
        await self.session.close()

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        """Return the body of what is there."""
        url = URL(self.url + path, encoded=True)
        async with self.session.get(url, headers=headers) as response:
            body = await response.read()
            if response.status >= 300:
                raise RefusedError(response)
            return body

    async def retrieve(
        self, run_id: str, thread_id: str = "thread_1", headers: Mapping[str, str] | None = None
    ) -> types.Run:
        """Return a run."""
        path = f"/threads/{thread_id}/runs/{run_id}"
        return types.RUN.decode(await self.get(path, headers))

    async def create(
        self, body: Mapping[str, Any], path: str = "/threads/thread_1/runs"
    ) -> types.Run:
        """Start a run."""
        async with self.session.post(
            URL(self.url + path, encoded=True),
            data=_ENCODER.encode(body),
            headers={"Content-Type": "application/json"},
        ) as response:
            content = await response.read()
            if response.status >= 300:
                raise RefusedError(response)
            return types.RUN.decode(content)

    async def events(self, thread_id: str) -> AsyncIterator[tuple[bytes, Any]]:
        """Yield name and object of each event; cut out of the chunks, not of lines."""
        async with self.session.post(
            URL(f"{self.url}/threads/{thread_id}/runs", encoded=True),
            data=b'{"assistant_id":"asst_1","stream":true}',
            headers={"Content-Type": "application/json"},
        ) as response:
            rest = b""
            async for chunk in response.content.iter_any():
                *told, rest = (rest + chunk).split(b"\n\n")
                for event in told:
                    name, _, data = event.partition(b"\n")
                    if name == b"event: done":
                        return
                    yield name[7:], types.EVENT.decode(data[6:])


async def retrieve(given: Mapping[str, Any]) -> Outcome:
    """Retrieve a run again and again."""
    async with Baseline(given["url"]) as baseline:
        cpu, run = await spent(
            lambda: baseline.retrieve("run_1"), count=given["count"], at_once=given["at_once"]
        )
    return {"metrics": {"cpu": cpu}, "facts": {"run": of_run(run)}}


async def create(given: Mapping[str, Any]) -> Outcome:
    """Create a run again and again."""
    body = given["body"]
    async with Baseline(given["url"]) as baseline:
        cpu, run = await spent(lambda: baseline.create(body), count=given["count"])
    return {"metrics": {"cpu": cpu}, "facts": {"run": of_run(run)}}


async def list_runs(given: Mapping[str, Any]) -> Outcome:
    """List a hundred runs again and again."""
    async with Baseline(given["url"]) as baseline:

        async def listed() -> Any:
            return types.RUNS.decode(await baseline.get("/threads/thread_1/runs?limit=100"))

        cpu, page = await spent(listed, count=given["count"])
    return {"metrics": {"cpu": cpu}, "facts": {"runs": of_page(page, of_run)}}


async def list_steps(given: Mapping[str, Any]) -> Outcome:
    """List a hundred steps again and again."""
    async with Baseline(given["url"]) as baseline:

        async def listed() -> Any:
            path = "/threads/thread_1/runs/run_1/steps?limit=100"
            return types.STEPS.decode(await baseline.get(path))

        cpu, page = await spent(listed, count=given["count"])
    return {"metrics": {"cpu": cpu}, "facts": {"steps": of_page(page, of_step)}}


async def stream(given: Mapping[str, Any]) -> Outcome:
    """Read a stream again and again; only where snapshots are asked for, join its text."""
    keeps = given.get("snapshots", False)
    async with Baseline(given["url"]) as baseline:

        async def read() -> tuple[int, int, str]:
            count, last = 0, None
            pieces: list[str] = []
            async for _, data in baseline.events(given["thread"]):
                count += 1
                if isinstance(data, types.Delta):
                    pieces += [
                        part.text.value
                        for part in data.delta.content or ()
                        if isinstance(part, types.Text) and part.text.value
                    ]
                elif isinstance(data, types.Run):
                    last = data
            assert last is not None
            text = "".join(pieces) if keeps else ""
            return count, sum(map(len, pieces)), f"{last.status} {len(text)}"

        cpu, (count, characters, end) = await spent(read, count=given["count"])
    facts = {"events": count, "characters": characters, "end": end}
    return {"metrics": {"cpu": cpu / count}, "facts": facts}


async def decode(given: Mapping[str, Any]) -> Outcome:
    """Decode the same bytes again and again."""
    many, count = given["many"], given["count"]
    body = samples.encode(
        samples.page([samples.run(n) for n in range(100)]) if many else samples.run(1)
    )
    decoder: Callable[[bytes], Any] = types.RUNS.decode if many else types.RUN.decode
    for _ in range(count // 5):
        decoder(body)
    began = time.process_time()
    for _ in range(count):
        last = decoder(body)
    cpu = (time.process_time() - began) / count
    return {
        "metrics": {"cpu": cpu},
        "facts": {"it": of_page(last, of_run) if many else of_run(last)},
    }


async def wait(given: Mapping[str, Any]) -> Outcome:
    """Wait for many runs: a loop in each task, at a fixed interval or held back by the server."""
    hold = given.get("long_poll", 0)
    interval = 0 if hold else given["interval"]
    headers = {"Prefer": f"wait={hold}"} if hold else None
    async with Baseline(given["url"], given.get("connections", 100)) as baseline:

        async def until_settled(run_id: str, thread_id: str) -> types.Run:
            while True:
                pause = interval
                try:
                    run = await baseline.retrieve(run_id, thread_id, headers)
                    if run.status not in ACTIVE:
                        return run
                except RefusedError as error:
                    pause = error.after  # not a number: sleep() refuses it
                await asyncio.sleep(pause)

        create = partial(baseline.create, path="/threads/runs")
        return await wait_for_all(Waiting(until_settled, create), given)


WORKS = {
    "retrieve": retrieve,
    "create": create,
    "list_runs": list_runs,
    "list_steps": list_steps,
    "stream": stream,
    "decode": decode,
    "wait": wait,
}

if __name__ == "__main__":
    enter(WORKS)
