"""What tests of `runs.map` stand on: a server of many runs, which end when they are told to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import anyio

from openai_runs import RunMap
from tests.client.ledger import error
from tests.support import Action, Answer, Received, run_json

__all__ = ["EMPTY", "Desk", "again", "drain", "items_of", "outcomes"]

EMPTY = Answer(json={"object": "list", "data": [], "has_more": False})


class Desk:
    """The handler of a `HostileServer`: each create makes a run, named after its thread."""

    def __init__(self) -> None:
        """Let runs be completed when they are looked at."""
        self.statuses: dict[str, str] = {}
        """By thread: what its run is, in place of completed."""
        self.bodies: list[dict[str, Any]] = []
        self.cancelled: list[str] = []
        self.keys: dict[str, dict[str, Any]] | None = None
        """Runs by idempotency key, where this server remembers keys."""
        self.losses: list[Action] = []
        """What the next creates get in place of their answers, after they were carried out."""
        self.polled = 0
        self.polled_ten_times = anyio.Event()

    def __call__(self, request: Received) -> Action:
        """Answer one request."""
        outcome = self._answer(request)
        if self.keys is not None and isinstance(outcome, Answer) and outcome.status < 300:
            return outcome._replace(headers={"openai-runs-features": "idempotency"})
        return outcome

    def _answer(self, request: Received) -> Action:
        if request.path.startswith("/v1/assistants/"):
            return Answer(json={"id": "asst_1", "model": "m"})
        parts = request.path.removeprefix("/v1/threads/").split("/")
        if request.method == "POST":
            return self._post(request, parts)
        if len(parts) == 3 and parts[1] == "runs":
            self.polled += 1
            if self.polled == 10:
                self.polled_ten_times.set()
            return _run(parts[0], self.statuses.get(parts[0], "completed"))
        return EMPTY

    def _post(self, request: Received, parts: list[str]) -> Action:
        if parts[-1] == "cancel":
            self.cancelled.append(parts[0])
            return _run(parts[0], "cancelling")
        answer = self._create(request, parts)
        if self.losses:
            return self.losses.pop(0)
        return answer

    def _create(self, request: Received, parts: list[str]) -> Action:
        key = request.headers["idempotency-key"]
        if self.keys is not None and key in self.keys:
            return Answer(json=self.keys[key])
        self.bodies.append(request.json)
        thread = parts[0] if len(parts) == 2 else f"made_{len(self.bodies)}"
        if thread.startswith("missing"):
            return error(404, f"No thread found with id '{thread}'.")
        made = _run(thread, "queued")
        if self.keys is not None:
            self.keys[key] = made.json
        return made


def _run(thread: str, status: str) -> Answer:
    return Answer(json=run_json(status, id=f"run_of_{thread}", thread_id=thread))


def items_of(threads: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield an item for each thread, with the thread as its key."""
    for thread in threads:
        yield thread, {"thread_id": thread}


async def again(threads: Iterable[str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield the same, asynchronously."""
    for item in items_of(threads):
        yield item


async def drain(batch: RunMap[Any], found: list[Any]) -> None:
    """Read to the end, and keep the keys."""
    async for key, _ in batch:
        found.append(key)


async def outcomes(batch: RunMap[Any]) -> dict[Any, Any]:
    """Return all outcomes by key."""
    return {key: outcome async for key, outcome in batch}
