"""A command that waits for a server which is away says so: since when, why, and when it is back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient
from openai_runs.testing import RunsServer
from tests.batch.batching import batch_line, launch, results_of, write_lines
from tests.cli.processes import finish, read_until, start
from tests.cli.terminals import at_terminal
from tests.support import Answer, HostileServer, run_json

BATCH = ["batch", "run", "in.jsonl", "--out", "out.jsonl", "--checkpoint", "batch.db"]


@pytest.fixture
async def two_lines(runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path) -> Path:
    """Return the folder of a batch whose first run hangs until the server is stopped."""
    assistant = await runs_client.assistants.create(model="m")
    lines = [batch_line(f"id-{n}", assistant.id, "Hello!") for n in range(2)]
    write_lines(tmp_path / "in.jsonl", lines)
    runs_server.hang()
    runs_server.hang()
    return tmp_path


async def until_asked(runs_server: RunsServer, times: int) -> None:
    """Return once the model, which hangs, was asked so often."""
    while len(runs_server.model_requests) < times:  # noqa: ASYNC110 - nobody announces it
        await anyio.sleep(0.01)


async def test_bar_of_a_batch_says_that_it_reconnects(
    runs_server: RunsServer, two_lines: Path
) -> None:
    """With the seconds, which go on; the line is gone once the server is back."""
    where = ["--base-url", runs_server.url]
    async with at_terminal(*BATCH, *where, folder=two_lines) as terminal:
        await terminal.until("2 running")
        await until_asked(runs_server, 2)
        await runs_server.stop()
        await terminal.until("reconnecting for 1 s: ")
        await terminal.until("reconnecting for 3 s: ")
        runs_server.reply("Back again.")
        runs_server.reply("Back again.")
        await runs_server.restart()
        await terminal.until("2 of 2 done")
        code = await terminal.end()

    last = terminal.shown.rpartition("2 of 2 done")[2]
    assert code == 0
    assert "reconnecting" not in last
    assert "Traceback" not in terminal.shown
    assert len(results_of(two_lines / "out.jsonl")) == 2


async def test_log_of_a_batch_says_once_that_it_reconnects_and_once_that_it_is_back(
    runs_server: RunsServer, two_lines: Path
) -> None:
    """However many lines are in progress, each of which is retried."""
    process = await launch(two_lines, runs_server.url)
    await until_asked(runs_server, 2)
    await runs_server.stop()
    said = await read_until("reconnecting for up to 60 s\n", process.stderr)
    runs_server.reply("Back again.")
    runs_server.reply("Back again.")
    await runs_server.restart()
    said += await read_until("the server answers again\n", process.stderr)
    left = await finish(process)

    assert left.code == 0
    assert (said + left.err).count("reconnecting") == 1


async def test_wait_at_a_terminal_says_that_it_reconnects(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """Beside what is waited for."""
    runs_server.hang()
    assistant = await runs_client.assistants.create(model="m")
    run = await runs_client.threads.create_and_run(assistant_id=assistant.id)
    command = ["runs", "wait", run.id, "--thread", run.thread_id, "--base-url", runs_server.url]
    async with at_terminal(*command, folder=tmp_path) as terminal:
        await terminal.until("in_progress")
        await until_asked(runs_server, 1)
        await runs_server.stop()
        await terminal.until("reconnecting for 2 s")
        runs_server.reply("Back again.")
        await runs_server.restart()
        await terminal.until(f"{run.id} completed")
        code = await terminal.end()

    assert code == 0


async def test_cancel_at_a_terminal_says_what_it_waits_for(tmp_path: Path) -> None:
    """The run's status, and that the server is away."""
    state: dict[str, Any] = {"status": "cancelling", "is_up": True}

    def respond(request: Any) -> Answer:
        if not state["is_up"]:
            return Answer(503, json={"error": {"message": "Back soon."}})
        return Answer(json=run_json(status=state["status"]))

    async with HostileServer(respond) as server:
        command = ["runs", "cancel", "run_1", "--thread", "thread_1", "--base-url", server.url]
        async with at_terminal(*command, folder=tmp_path) as terminal:
            await terminal.until("waiting for run_1: cancelling")
            state["is_up"] = False
            await terminal.until("reconnecting for 1 s")
            state.update(is_up=True, status="cancelled")
            await terminal.until("run_1 cancelled")
            code = await terminal.end()

    assert code == 0


@pytest.mark.parametrize("command", ["ask", "chat"])
async def test_answer_that_is_piped_says_that_it_reconnects(
    command: str, runs_server: RunsServer, tmp_path: Path
) -> None:
    """On standard error, at once, and for how long."""
    runs_server.hang()
    where = ["--base-url", runs_server.url]
    process = await start([command, *where], tmp_path, {}, stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"x\n")
    process.stdin.close()
    await until_asked(runs_server, 1)
    await runs_server.stop()
    said = await read_until("reconnecting for up to 10 s\n", process.stderr)
    runs_server.reply("Back again.")
    await runs_server.restart()
    left = await finish(process)

    assert "127.0.0.1" in said
    assert (left.code, left.out) == (0, "Back again.\n")


async def test_seconds_at_the_prompt_are_those_of_what_is_done_now(
    runs_server: RunsServer, tmp_path: Path
) -> None:
    """A connection that has just been lost is not said to be away since the question."""
    runs_server.hang()
    async with at_terminal("ask", "x", "--base-url", runs_server.url, folder=tmp_path) as terminal:
        await until_asked(runs_server, 1)
        await terminal.until("thinking 2 s")
        await runs_server.stop()
        await terminal.until("reconnecting 0 s")
        runs_server.reply("Back again.")
        await runs_server.restart()
        await terminal.until("Back again.")
        code = await terminal.end()

    assert code == 0
