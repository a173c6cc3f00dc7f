"""Many waits at once, the same for every client: started over a second, watched to the end.

Standard library only. The server writes into each finished run at which moment it finished,
on the clock that all processes of a machine share, and its `run_id` says which run it is.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

from tests.benchmarks.clients.stopwatch import Outcome, resident

__all__ = ["ACTIVE", "percentile", "wait_for_all"]

ACTIVE: Final = frozenset({"queued", "in_progress", "requires_action", "cancelling"})
_WARM = 100
"""Requests at once before anything is measured, so that the connections are open."""


async def wait_for_all(
    wait: Callable[[str], Awaitable[Any]],
    retrieve: Callable[[str], Awaitable[Any]],
    given: Mapping[str, Any],
) -> Outcome:
    """Return what so many waits cost, and how late each was.

    Args:
        wait: Waits for one run, and returns it.
        retrieve: Looks at one run; opens the connections before the clock starts.
        given: `runs`, how many; `start`, the seconds over which they start; `limit`, the
            seconds after which the rest is given up.
    """
    count = given["runs"]
    for _ in range(3):
        await asyncio.gather(*(retrieve(f"run_warm{n}") for n in range(_WARM)))
    delays: list[float] = []
    wrong: list[str] = []

    async def one(run_id: str) -> None:
        run = await wait(run_id)
        delays.append(time.monotonic() - float(run.metadata["finished"]))
        if run.id != run_id or run.status != "completed" or run.usage.total_tokens != 579:
            wrong.append(run_id)

    gc.collect()
    before, cpu, began = resident(), time.process_time(), time.monotonic()
    tasks = await _started(one, count, given["start"])
    await asyncio.sleep(0.5)
    held = resident() - before
    late = [task.done() for task in tasks].count(True)
    await asyncio.wait(tasks, timeout=began + given["limit"] - time.monotonic())
    cpu = time.process_time() - cpu
    seen = len(delays)
    await _given_up(tasks)
    metrics = {
        "cpu": cpu / max(seen, 1),
        "memory": held / (count - late) if late < count / 2 else None,
        "p50": percentile(delays, 0.5),
        "p99": percentile(delays, 0.99),
        "seen": seen,
    }
    return {"metrics": metrics, "facts": {"wrong": wrong}}


async def _started(
    one: Callable[[str], Coroutine[Any, Any, None]], count: int, seconds: float
) -> list[asyncio.Task[None]]:
    """Return so many waits, started evenly over these seconds."""
    began, tasks = time.monotonic(), []
    for number in range(count):
        ahead = began + seconds * number / count - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
        tasks.append(asyncio.ensure_future(one(f"run_{number}")))
    return tasks


async def _given_up(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def percentile(figures: list[float], share: float) -> float | None:
    """Return the figure below which this share of them lies."""
    if not figures:
        return None
    return sorted(figures)[min(int(len(figures) * share), len(figures) - 1)]
