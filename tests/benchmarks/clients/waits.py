"""Many waits at once, the same for every client: started over a second, watched to the end.

Standard library only. The server knows at which moment each run finished, on the clock that
all processes of a machine share, and is asked for it at the end.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tests.benchmarks.clients.stopwatch import Outcome, resident

__all__ = ["ACTIVE", "Waiting", "asked", "percentile", "wait_for_all"]

ACTIVE: Final = frozenset({"queued", "in_progress", "requires_action", "cancelling"})
_WARM: Final = 100
"""Waits at once before anything is measured, so that connections are open and code is loaded."""
_QUESTION: Final = {"messages": [{"role": "user", "content": "Where is my order?"}]}


class Waiting(NamedTuple):
    """How one client does what it is asked to; ids are those of a run and its thread."""

    wait: Callable[[str, str], Awaitable[Any]]
    create: Callable[[Mapping[str, Any]], Awaitable[Any]]
    """Create a thread and a run with this body."""


async def wait_for_all(client: Waiting, given: Mapping[str, Any]) -> Outcome:
    """Return what so many waits cost, and how late each was.

    Args:
        client: What is measured.
        given: `runs`, how many; `start`, the seconds over which they start; `limit`, the
            seconds after which the rest is given up; `served`, whether the runs have to be
            made on our server first.

    Raises:
        Exception: A wait failed, by a server that refuses nothing.
    """
    runs = await (_made if given.get("served") else _named)(client, given)
    returned: dict[str, float] = {}
    wrong: list[str] = []

    async def one(run_id: str, thread_id: str) -> None:
        run = await client.wait(run_id, thread_id)
        returned[run_id] = time.monotonic()
        if run.id != run_id or run.status != "completed" or run.usage.total_tokens < 15:
            wrong.append(run_id)

    gc.collect()
    before, cpu, began = resident(), time.process_time(), time.monotonic()
    tasks = await _started(one, runs, given["start"])
    await asyncio.sleep(0.5)
    held, early = resident() - before, len(returned)
    await asyncio.wait(tasks, timeout=began + given["limit"] - time.monotonic())
    cpu = time.process_time() - cpu
    failed = await _given_up(tasks)
    seen = asked(given["url"], "/seen")
    delays = [at - seen["finished"][run_id] for run_id, at in returned.items()]
    count = max(len(delays), 1)
    metrics = {
        "cpu": cpu / count,
        "requests": seen["requests"] / count,
        "memory": held / (len(runs) - early) if early < len(runs) / 2 else None,
        "late_p50": percentile(delays, 0.5),
        "late_p99": percentile(delays, 0.99),
        "seen": len(delays),
    }
    if "refused" in seen:
        metrics |= {"refused": seen["refused"], "raised": len(failed)}
    elif failed:
        raise failed[0]
    return {"metrics": metrics, "facts": {"wrong": wrong}}


async def _named(client: Waiting, given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return ids the plain server makes runs of; waits before for some that are finished."""
    for _ in range(3):
        await asyncio.gather(*(client.wait(f"run_done{n}", "thread_1") for n in range(_WARM)))
    return [(f"run_{number}", "thread_1") for number in range(given["runs"])]


async def _made(client: Waiting, given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Make runs on our server, which holds them back until all are there."""
    assistant = asked(given["url"], "/assistants", {"model": "timed"})
    body = {"assistant_id": assistant["id"], "thread": _QUESTION}
    runs: list[tuple[str, str]] = []

    async def some(times: int) -> None:
        for _ in range(times):
            run = await client.create(body)
            runs.append((run.id, run.thread_id))

    await asyncio.gather(*(some(given["runs"] // 20) for _ in range(20)))
    asked(given["url"], "/go")
    return runs


async def _started(
    one: Callable[[str, str], Coroutine[Any, Any, None]],
    runs: Sequence[tuple[str, str]],
    seconds: float,
) -> list[asyncio.Task[None]]:
    """Return a wait for each run, started evenly over these seconds."""
    began, tasks = time.monotonic(), []
    for number, ids in enumerate(runs):
        ahead = began + seconds * number / len(runs) - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
        tasks.append(asyncio.ensure_future(one(*ids)))
    return tasks


async def _given_up(tasks: list[asyncio.Task[None]]) -> list[Exception]:
    """End what still waits, and return what the others raised."""
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return [outcome for outcome in outcomes if isinstance(outcome, Exception)]


def asked(url: str, path: str, body: Any = None) -> Any:
    """Return what the server says, asked between measurements, by none of the clients."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url + path, data, headers)) as answer:
        return json.load(answer)


def percentile(figures: list[float], share: float) -> float | None:
    """Return the figure below which this share of them lies."""
    if not figures:
        return None
    return sorted(figures)[min(int(len(figures) * share), len(figures) - 1)]
