"""A program killed while its tools run: another takes the run over, and nothing is sent twice."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from openai_runs import AsyncClient
from openai_runs.server import Call
from openai_runs.testing import RunsServer
from tests.e2e.tooling import answered, calls_of

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "tests.e2e.tool_process"


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[Process]:
    """Run the program, and kill it at the end if it has not ended by itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", PROGRAM, *arguments, stdout=PIPE, cwd=ROOT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def lines(process: Process, count: int) -> list[str]:
    """Return the next lines it prints."""
    assert process.stdout is not None
    return [(await process.stdout.readline()).decode().strip() for _ in range(count)]


@pytest.mark.parametrize("hanging", ["pay", "look"])
async def test_killed_program_is_followed_by_another(
    runs_server: RunsServer, runs_client: AsyncClient, hanging: str
) -> None:
    """SIGKILL while a tool runs, sync or async: each call id is answered once, by the second."""
    runs_server.call_tools(
        Call("pay", {"amount": 3}, "call_p"),
        Call("look", {"city": "Oslo"}, "call_l"),
        Call("pay", {"amount": 4}, "call_q"),
    )
    runs_server.reply("All paid.")
    assistant = await runs_client.assistants.create(model="m")
    thread = await runs_client.threads.create()

    async with program(runs_server.url, "run", assistant.id, thread.id, hanging) as first:
        assert sorted(await lines(first, 3)) == ["look", "pay", "pay"]
        first.kill()
    (run,) = await runs_client.runs.list(thread.id)
    assert run.needs_action
    assert answered(runs_server) == []

    async with program(runs_server.url, "resume", run.id, thread.id) as second:
        said = await lines(second, 5)
        assert await second.wait() == 0

    assert sorted(said[:3]) == ["look", "pay", "pay"]
    assert said[3:] == ["completed", "All paid."]
    outputs = ["paid 3 for call_p", "looked at Oslo", "paid 4 for call_q"]
    assert [one["output"] for one in answered(runs_server)] == outputs
    done = await runs_client.runs.retrieve(run.id, thread_id=thread.id)
    assert calls_of(await runs_client.runs.result(done)) == [
        ("call_p", outputs[0]),
        ("call_l", outputs[1]),
        ("call_q", outputs[2]),
    ]


async def test_killed_after_its_answer_nothing_is_called_again(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """The second finds the run at work, calls nothing, and has the result."""
    runs_server.call_tool("look", {"city": "Oslo"})
    runs_server.reply("Sunny.", delay=1.0)
    assistant = await runs_client.assistants.create(model="m")
    thread = await runs_client.threads.create()

    async with program(runs_server.url, "run", assistant.id, thread.id, "-") as first:
        assert await lines(first, 1) == ["look"]
        (run,) = await runs_client.runs.list(thread.id)
        while run.needs_action:
            run = await runs_client.runs.retrieve(run.id, thread_id=thread.id)
        first.kill()

    async with program(runs_server.url, "resume", run.id, thread.id) as second:
        assert await lines(second, 2) == ["completed", "Sunny."]
        assert await second.wait() == 0

    assert len(answered(runs_server)) == 1


async def test_tool_that_hangs_does_not_keep_the_program_from_ending(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """Its thread is left behind when the result is there."""
    runs_server.call_tool("pay", {"amount": 3})
    runs_server.reply("Not paid.")
    assistant = await runs_client.assistants.create(model="m")
    run = await runs_client.threads.create_and_run(assistant_id=assistant.id)

    async with program(runs_server.url, "resume", run.id, run.thread_id, "pay") as hanging:
        assert await lines(hanging, 3) == ["pay", "completed", "Not paid."]
        with anyio.fail_after(20):
            assert await hanging.wait() == 0

    (one,) = answered(runs_server)
    assert one["output"] == '{"error":"the tool did not finish within 0.3 s"}'
