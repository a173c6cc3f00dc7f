"""How each client's process measures itself, and what it found is put into words.

Standard library only: the interpreters of the official client run it too. A process does one
work and prints one line of JSON: `metrics`, numbers that are compared, and `facts`, which
have to be the same for every client, so that nobody wins by skipping work.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

__all__ = ["Outcome", "Work", "enter", "of_page", "of_run", "of_step", "resident", "spent"]

Outcome: TypeAlias = "dict[str, dict[str, Any]]"
Work: TypeAlias = "Callable[[Mapping[str, Any]], Awaitable[Outcome]]"


def enter(works: Mapping[str, Work]) -> None:
    """Do the work named first on the command line, with the JSON that is named second."""
    name, given = sys.argv[1], json.loads(sys.argv[2])
    core = given.get("core")
    if core is not None:
        os.sched_setaffinity(0, {core})
    outcome = asyncio.run(_do(works[name], given))
    print(json.dumps(outcome))


async def _do(work: Work, given: Mapping[str, Any]) -> Outcome:
    return await work(given)


async def spent(
    operation: Callable[[], Awaitable[Any]], *, count: int, at_once: int = 1
) -> tuple[float, Any]:
    """Return the CPU seconds of one operation, and what the last one returned.

    A fifth as many are done before, and not counted.
    """
    await _repeat(operation, max(at_once, count // 5), at_once)
    began = time.process_time()
    last = await _repeat(operation, count, at_once)
    return (time.process_time() - began) / count, last


async def _repeat(operation: Callable[[], Awaitable[Any]], count: int, at_once: int) -> Any:
    async def some(times: int) -> Any:
        for _ in range(times):
            last = await operation()
        return last

    if at_once == 1:
        return await some(count)
    return (await asyncio.gather(*(some(count // at_once) for _ in range(at_once))))[-1]


def resident() -> int:
    """Return the bytes of memory this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def of_run(run: Any) -> list[Any]:
    """Return facts of a decoded run, from its first field to its last, nested ones too."""
    usage = run.usage
    return [
        run.id,
        run.status,
        run.created_at,
        run.completed_at,
        run.model,
        len(run.instructions),
        run.tools[1].function.name,
        dict(run.metadata),
        usage and usage.total_tokens,
        run.truncation_strategy.type,
        run.parallel_tool_calls,
        run.response_format,
    ]


def of_step(step: Any) -> list[Any]:
    """Return facts of a decoded step."""
    details = step.step_details
    if step.type == "tool_calls":
        told = [details.tool_calls[0].id, details.tool_calls[0].function.output]
    else:
        told = [details.message_creation.message_id]
    return [step.id, step.status, step.completed_at, step.usage.total_tokens, *told]


def of_page(page: Any, of_item: Callable[[Any], list[Any]]) -> list[Any]:
    """Return facts of each item of a decoded page."""
    return [page.has_more, *(of_item(item) for item in page.data)]
