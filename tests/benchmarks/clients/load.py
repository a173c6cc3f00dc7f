"""Load for a server: threads with a question, run to their end, so many at once.

The client is the baseline's, so that what is measured is the server. Each run is one POST to
/threads/runs and then looks at it: held back by the server, or one after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from yarl import URL

from tests.benchmarks.clients.baseline import Baseline
from tests.benchmarks.clients.stopwatch import Outcome, enter
from tests.benchmarks.clients.waits import ACTIVE, percentile

_PAUSE: Final = 0.01
"""Seconds between two looks where they are not held back."""


class _Ids(msgspec.Struct):
    id: str
    status: str = ""
    thread_id: str = ""


class _Load:
    def __init__(self, baseline: Baseline, assistant_id: str, *, held: bool) -> None:
        self._baseline = baseline
        self._headers = {"Prefer": "wait=30"} if held else {}
        self._pause = 0 if held else _PAUSE
        asked = {"role": "user", "content": "Where is my order?"}
        body = {"assistant_id": assistant_id, "thread": {"messages": [asked]}}
        self._body = msgspec.json.encode(body)
        self.seconds: list[float] = []
        self.last = _Ids(id="")

    async def ask(self) -> None:
        """Have one question answered."""
        began = time.monotonic()
        run = await self._sent("POST", "/threads/runs", self._body)
        path = f"/threads/{run.thread_id}/runs/{run.id}"
        while run.status in ACTIVE:
            if self._pause:
                await asyncio.sleep(self._pause)
            run = await self._sent("GET", path, None)
        if run.status != "completed":
            raise RuntimeError(run)
        self.seconds.append(time.monotonic() - began)
        self.last = run

    async def _sent(self, method: str, path: str, body: bytes | None) -> _Ids:
        headers = self._headers if body is None else {"Content-Type": "application/json"}
        async with self._baseline.session.request(
            method, URL(self._baseline.url + path, encoded=True), data=body, headers=headers
        ) as response:
            return msgspec.json.decode(await response.read(), type=_Ids)


async def load(given: Mapping[str, Any]) -> Outcome:
    """Run so many at once, after a tenth of them to warm up; tell runs per second and times."""
    count, at_once = given["runs"], given["at_once"]
    async with Baseline(given["url"], 200) as baseline:
        headers = {"Content-Type": "application/json"}
        path = URL(f"{given['url']}/assistants", encoded=True)
        async with baseline.session.post(
            path, data=b'{"model":"instant"}', headers=headers
        ) as made:
            assistant = msgspec.json.decode(await made.read(), type=_Ids)
        users = _Load(baseline, assistant.id, held=given["held"])

        async def user(times: int) -> None:
            for _ in range(times):
                await users.ask()

        await asyncio.gather(*(user(max(count // 10 // at_once, 1)) for _ in range(at_once)))
        users.seconds.clear()
        began = time.monotonic()
        await asyncio.gather(*(user(count // at_once) for _ in range(at_once)))
        took = time.monotonic() - began
        answer = await baseline.get(f"/threads/{users.last.thread_id}/messages?limit=1")
    text = msgspec.json.decode(answer)["data"][0]["content"][0]["text"]["value"]
    metrics = {
        "rate": len(users.seconds) / took,
        "p50": percentile(users.seconds, 0.5),
        "p99": percentile(users.seconds, 0.99),
    }
    return {"metrics": metrics, "facts": {"text": text, "runs": len(users.seconds)}}


if __name__ == "__main__":
    enter({"load": load})
