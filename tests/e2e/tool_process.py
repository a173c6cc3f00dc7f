"""A program with tools, to be killed: `run` starts a run, `resume` takes one over.

Arguments: the URL, `run` and an assistant's id or `resume` and the run's and thread's ids, and
the names of the tools that never return. Prints a line when a tool is called, and at the end the
run's status and text.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from openai_runs import AsyncClient, ToolContext, tool

_HANGING = set(sys.argv[5:])


def pay(amount: int, context: ToolContext) -> str:
    """Pay."""
    return _call("pay", f"paid {amount} for {context.call_id}")


@tool(timeout=None)
async def look(city: str) -> str:
    """Look."""
    outcome = _say("look", f"looked at {city}")
    if "look" in _HANGING:
        await asyncio.sleep(3600)
    return outcome


def _call(name: str, outcome: str) -> str:
    _say(name, outcome)
    if name in _HANGING:
        time.sleep(3600)
    return outcome


def _say(name: str, outcome: str) -> str:
    sys.stdout.write(f"{name}\n")  # in one piece, as threads write too
    sys.stdout.flush()
    return outcome


async def main() -> None:
    """Run, or resume, and say how it ended."""
    url, mode, first, second = sys.argv[1:5]
    tools: list[Any] = [pay, look]
    timeout: dict[str, Any] = {
        "timeout": 60,
        "tool_timeout": 0.3 if mode == "resume" and _HANGING else None,
    }
    async with AsyncClient(url) as client:
        if mode == "run":
            result = await client.runs.run_tools(second, assistant_id=first, tools=tools, **timeout)
        else:
            result = await client.runs.resume(first, thread_id=second, tools=tools, **timeout)
    print(result.run.status, result.text, sep="\n")  # noqa: T201 - what the test waits for


if __name__ == "__main__":
    asyncio.run(main())
