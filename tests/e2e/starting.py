"""How the tests of the seeds start a run."""

from openai_runs import AsyncClient, Run, RunStatus, await_run
from openai_runs.testing import RunsServer
from tests.canaries import CANARY_PROMPT

__all__ = ["WEATHER", "start", "waiting"]

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


async def start(client: AsyncClient, *, tools: bool = False) -> Run:
    """Return a new run on a new thread."""
    assistant = await client.assistants.create(
        model="gpt-4o", instructions="Be brief.", tools=[WEATHER] if tools else []
    )
    thread = await client.threads.create()
    return await client.runs.create(
        thread.id,
        assistant_id=assistant.id,
        additional_messages=[{"role": "user", "content": CANARY_PROMPT}],
        metadata={"seed": "go"},
    )


async def waiting(client: AsyncClient, server: RunsServer) -> Run:
    """Return a run that waits for the output of one tool call."""
    server.call_tool("weather", {"city": "Oslo"})
    run = await await_run(client, await start(client, tools=True), timeout=10)
    assert run.status == RunStatus.REQUIRES_ACTION
    return run
