"""A conversation of many runs, of which some fail, are cancelled, or say nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from openai_runs import AsyncClient, Run, await_run
from openai_runs.types.events import MessageDeltaEvent
from tests.server.backends.fake_turns import SECRET

__all__ = ["EXPECTED", "INSTRUCTIONS", "KINDS", "MORE", "assistant", "converse", "perform"]

INSTRUCTIONS = "Be brief."

EXPECTED: dict[str, set[str]] = {
    **dict.fromkeys(
        [
            *(
                "plain",
                "tool",
                "tools",
                "many",
                "broken",
                "list",
                "bare",
                "thought",
                "more_thoughts",
            ),
            *("tool_empty", "tool_fails", "loading", "busy", "busy_in_200"),
        ],
        {"completed"},
    ),
    **dict.fromkeys(["unknown", "filter", "cut", "half_call", "refused", "nothing"], {"failed"}),
    **dict.fromkeys(["length", "length_silent", "call_length"], {"incomplete"}),
    **dict.fromkeys(["cancel", "cancel_tool"], {"cancelled"}),
    **dict.fromkeys(["empty", "blank"], {"completed", "failed"}),
}
"""Word of the question -> how its run may end."""
KINDS = [
    *("plain", "tool", "empty", "tools", "length", "broken", "unknown", "bare", "cut", "thought"),
    *("cancel", "tool_empty", "nothing", "list", "cancel_tool", "blank", "refused"),
    *("length_silent", "tool_fails", "plain"),
]
"""Of 20 runs."""
MORE = [
    "more_thoughts",
    "filter",
    "half_call",
    "call_length",
    "loading",
    "busy",
    "busy_in_200",
    "plain",
]
"""Of the runs that a longer conversation has besides."""


async def assistant(client: AsyncClient) -> str:
    """Return the id of an assistant with both tools."""
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    functions = [{"name": "weather", "parameters": parameters}, {"name": "now"}]
    made = await client.assistants.create(
        model="m",
        instructions=INSTRUCTIONS,
        tools=[{"type": "function", "function": each} for each in functions],
    )
    return made.id


def tools_for(kind: str) -> list[Callable[..., str]]:
    """Return the functions that the model may call."""

    def weather(city: str = "") -> str:
        """Return the weather."""
        if kind == "tool_fails":
            raise ValueError(city)
        return "" if kind == "tool_empty" else f"Fine in {city}."

    def now() -> str:
        """Return the time."""
        return "Noon."

    return [weather, now]


async def perform(client: AsyncClient, fields: dict[str, Any], kind: str, number: int) -> Run:
    """Ask one question; return its run at its end."""
    question = {"role": "user", "content": f"{number}: {kind}"}
    fields = {**fields, "additional_messages": [question]}
    if kind == "cancel":
        return await _cancelled(client, await _written(client, fields))
    if kind == "cancel_tool":
        run = await client.runs.create(**fields)
        return await _cancelled(client, await await_run(client, run, timeout=60))
    result = await client.runs.run_tools(**fields, tools=tools_for(kind), timeout=60)
    return result.run


async def _written(client: AsyncClient, fields: dict[str, Any]) -> Run:
    """Start a run; return it once it has begun to write, or has ended."""
    async with client.runs.stream(**fields) as stream:
        async for event in stream:
            if isinstance(event, MessageDeltaEvent):
                break
    assert stream.run is not None
    return await client.runs.retrieve(stream.run.id, thread_id=stream.run.thread_id)


async def _cancelled(client: AsyncClient, run: Run) -> Run:
    if run.status in {"in_progress", "requires_action"}:
        return await client.runs.cancel_and_wait(run.id, thread_id=run.thread_id)
    return run


async def converse(
    client: AsyncClient, kinds: Sequence[str], *, first: int = 1, **fields: Any
) -> list[str]:
    """Ask all of it on one thread; return what ended in another way than it should."""
    thread = await client.threads.create()
    fields = {"thread_id": thread.id, **fields}
    wrong = []
    for number, kind in enumerate(kinds, first):
        run = await perform(client, fields, kind, number)
        if run.status not in EXPECTED[kind]:
            said = run.last_error and run.last_error.message
            wrong.append(f"{number}: {kind} ended as {run.status}: {said}")
    wrong += await _shown(client, thread.id)
    return wrong


async def _shown(client: AsyncClient, thread_id: str) -> list[str]:
    """Return what is on our wire of that which only the endpoint and we should know."""
    seen = [repr(one) async for one in client.messages.list(thread_id)]
    async for run in client.runs.list(thread_id):
        seen += [repr(one) async for one in client.runs.steps.list(run.id, thread_id=thread_id)]
    return [f"a secret: {text[:300]}" for text in seen if re.search(SECRET, text)]
