"""A batch of many runs in bad weather: what came of it, what it cost, who was held up.

Standard library only. A ticker that should wake up every 10 ms tells how long the event loop
was kept from its other work, and for how much of that by this process and not by others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from tests.benchmarks.clients.stopwatch import Outcome
from tests.benchmarks.clients.waits import asked

__all__ = ["arguments", "carried_out", "is_own"]

_TICK: Final = 0.01
_SETTLING: Final = 1.0
"""Seconds after which whatever the batch began must have ended."""


def arguments(number: int, *, threads: bool) -> dict[str, Any]:
    """Return the arguments of one item's create: on a thread that is there, or with its own."""
    if threads:
        return {"thread_id": f"item_{number}"}
    asked_for = {"role": "user", "content": "Where is my order?"}
    return {"thread": {"messages": [asked_for], "metadata": {"item": f"item_{number}"}}}


def is_own(number: int, run: Any, text: str, steps: int) -> bool:
    """Return whether this is what came of the item, whole."""
    own = run.thread_id == f"item_{number}" or run.thread_id.startswith(f"item_{number}_")
    return (
        own and run.status == "completed" and steps == 1 and text == f"Answer to {run.thread_id}."
    )


async def carried_out(
    outcomes: AsyncGenerator[tuple[int, bool], None], given: Mapping[str, Any]
) -> Outcome:
    """Return what a batch came to.

    Args:
        outcomes: For each item its number, and whether it has the result that is its own.
        given: `leave`, the item after which it is left, if any.
    """
    lags, busy = [0.0], [0.0]
    ticker = asyncio.ensure_future(_tick(lags, busy))
    before = len(asyncio.all_tasks())
    cpu, began = time.process_time(), time.monotonic()
    found: dict[int, bool] = {}
    async for number, is_whole in outcomes:
        found[number] = is_whole
        if len(found) == given.get("leave"):
            break
    cpu, took = time.process_time() - cpu, time.monotonic() - began
    await outcomes.aclose()
    await asyncio.sleep(_SETTLING)
    left = len(asyncio.all_tasks()) - before
    ticker.cancel()
    seen = asked(given["url"], "/seen")
    requests = seen["requests"]
    metrics = {
        "cpu": cpu / len(found),
        "results": sum(found.values()),
        "twice": seen["twice"],
        "requests": requests / max(seen["made"], 1),
        "refused_share": 100 * seen.get("refused", 0) / requests,
        "failed_share": 100 * seen.get("failed", 0) / requests,
        "lag": max(lags),
        "busy": max(busy),
        "took": took,
        "left": left,
    }
    return {"metrics": metrics, "facts": {}}


async def _tick(lags: list[float], busy: list[float]) -> None:
    """Note how late each tick was, and how long this process was at work within it."""
    while True:
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(_TICK)
        lags.append(time.monotonic() - began - _TICK)
        busy.append(time.process_time() - cpu)
