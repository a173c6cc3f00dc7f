"""What tests of tools against the real server have in common."""

from __future__ import annotations

from typing import Any

import msgspec

from openai_runs import AsyncClient, Run, RunResult
from openai_runs.testing import RunsServer

__all__ = ["answer", "answered", "calls_of", "outputs", "run_tools", "waiting_run"]


async def run_tools(client: AsyncClient, *tools: Any, **options: Any) -> RunResult:
    """Return the result of a run with these tools on a thread of its own."""
    assistant = await client.assistants.create(model="scripted")
    thread = await client.threads.create()
    options.setdefault("timeout", 30)
    return await client.runs.run_tools(
        thread.id, assistant_id=assistant.id, tools=list(tools), **options
    )


async def waiting_run(client: AsyncClient) -> Run:
    """Return a run that waits for what the script asks first."""
    assistant = await client.assistants.create(model="scripted")
    thread = await client.threads.create()
    run = await client.runs.create_and_poll(thread.id, assistant_id=assistant.id, timeout=30)
    assert run.needs_action
    return run


def answered(server: RunsServer) -> list[dict[str, str]]:
    """Return every tool output the server has received, in order."""
    requests = server.seen("POST", "submit_tool_outputs")
    return [output for request in requests for output in request.json["tool_outputs"]]


def outputs(server: RunsServer) -> list[Any]:
    """Return what the server has received as outputs, decoded where it is JSON."""
    return [_decoded(one["output"]) for one in answered(server)]


def answer(server: RunsServer) -> Any:
    """Return the one output the server has received."""
    (output,) = outputs(server)
    return output


def calls_of(result: RunResult) -> list[tuple[str, str | None]]:
    """Return id and output of each call in the steps of a run."""
    return [
        (call.id, call.function.output)
        for step in result.steps
        for call in getattr(step.step_details, "tool_calls", [])
    ]


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
