"""A server of short runs in bad weather: storms of 429, and 503 and lost connections at random.

In each storm all requests are refused, and told how long it lasts. Half of the 503s and of
the lost connections come after the request was carried out. `GET /v1/seen` tells what
happened since it was last asked.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from random import Random
from typing import Any

from tests.benchmarks import samples
from tests.benchmarks.servers.wire import Connection, Request, answer, serve

_EVERY, _LASTS = 3.0, 0.4
"""Seconds from one storm to the next, and of each."""
_SHARE = 0.004
"""Of requests that are answered with 503, and as many lose their connection."""
_SHORTEST, _LONGEST = 0.2, 1.5
"""Seconds that a run takes."""


class Storm:
    """The handler."""

    def __init__(self, *, keys: bool) -> None:
        """Say whether this server remembers idempotency keys."""
        self._features = "openai-runs-features: idempotency\r\n" if keys else ""
        self._keys = keys
        self._forget()

    def _forget(self) -> None:
        self._chance = Random(1)
        self._began = time.monotonic()
        self._seen: Counter[str] = Counter()
        self._made: Counter[str] = Counter()
        self._runs: dict[str, dict[str, Any]] = {}
        self._finishes: dict[str, float] = {}
        self._by_key: dict[str, dict[str, Any]] = {}

    def __call__(self, request: Request, connection: Connection) -> bytes | None:
        """Answer one request, or not."""
        if request.path == b"/v1/seen":
            twice = sum(count - 1 for count in self._made.values())
            told = answer(samples.encode({**self._seen, "made": len(self._made), "twice": twice}))
            self._forget()
            return told
        self._seen["requests"] += 1
        storm = (time.monotonic() - self._began) % _EVERY - (_EVERY - _LASTS)
        if storm >= 0:
            self._seen["refused"] += 1
            return answer(
                b'{"error":{}}', 429, f"retry-after-ms: {(_LASTS - storm) * 1000:.0f}\r\n"
            )
        chance = self._chance.random()
        if chance >= 2 * _SHARE:
            return self._answer(request)
        self._seen["failed"] += 1
        if chance < _SHARE / 2 or chance >= 1.5 * _SHARE:
            self._answer(request)  # carried out, although nobody will know
        if chance < _SHARE:
            return answer(b'{"error":{"message":"try again"}}', 503)
        connection.transport.abort()
        return None

    def _answer(self, request: Request) -> bytes:
        told = self._do(request, request.path.decode().split("/")[2:])
        return answer(samples.encode(told), 200, self._features)

    def _do(self, request: Request, parts: list[str]) -> dict[str, Any]:
        match parts:
            case ["threads", "runs"]:
                return self._create(request, "")
            case ["threads", thread, "runs"] if request.method == b"POST":
                return self._create(request, thread)
            case ["threads", thread, "runs"]:
                return samples.page([self._look(thread)] if thread in self._runs else [])
            case ["threads", thread, "runs", _]:
                return self._look(thread)
            case ["threads", thread, "messages"]:
                said = samples.message(f"Answer to {thread}.", "completed")
                return samples.page([{**said, "thread_id": thread, "run_id": f"run_{thread}"}])
            case ["threads", thread, "runs", run_id, "steps"]:
                did = samples.step(0)
                return samples.page([{**did, "thread_id": thread, "run_id": run_id}])
            case _:
                return {"id": "asst_1", "object": "assistant", "created_at": 0, "model": "m"}

    def _create(self, request: Request, thread: str) -> dict[str, Any]:
        key = request.header("idempotency-key")
        if self._keys and key and key in self._by_key:
            return self._by_key[key]
        body = samples.decode(request.body)
        item = thread or body["thread"]["metadata"]["item"]
        thread = thread or f"{item}_{self._made[item]}"
        self._made[item] += 1
        run = {**samples.run(len(self._runs), "queued"), "thread_id": thread}
        run["id"], run["metadata"] = f"run_{thread}", body.get("metadata") or {}
        self._runs[thread] = self._by_key[key] = run
        took = _SHORTEST + self._chance.random() * (_LONGEST - _SHORTEST)
        self._finishes[thread] = time.monotonic() + took
        return run

    def _look(self, thread: str) -> dict[str, Any]:
        run = self._runs[thread]
        if time.monotonic() < self._finishes[thread]:
            return run
        over = samples.run(0)
        return {**over, "id": run["id"], "thread_id": thread, "metadata": run["metadata"]}


if __name__ == "__main__":
    asyncio.run(serve(Storm(keys=sys.argv[1] == "keys")))
