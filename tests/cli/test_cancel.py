"""`openai-runs runs cancel`: a run ends, whoever started it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openai_runs import AsyncClient
from openai_runs.testing import RunsServer
from tests.cli.processes import execute, serving
from tests.cli.test_runs_commands import ids_of, start_run


@pytest.mark.parametrize("waits_for", ["its model", "tool outputs"])
async def test_active_run_is_cancelled(
    waits_for: str, runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """Exit code 0 once it is: the shell may go on."""
    if waits_for == "its model":
        runs_server.hang()
    else:
        runs_server.call_tool("look_up", {"x": 1})
    run = await start_run(runs_client)

    done = await execute(
        "runs", "cancel", *ids_of(run), "--base-url", runs_server.url, folder=tmp_path
    )

    after = await runs_client.runs.retrieve(run.id, thread_id=run.thread_id)
    assert (done.code, done.out, done.err) == (0, f"{run.id} cancelled\n", "")
    assert after.status == "cancelled"


async def test_run_that_has_ended_is_shown_as_it_is(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """Exit code 1: it was too late."""
    run = await runs_client.runs.wait(await start_run(runs_client))
    command = ["runs", "cancel", *ids_of(run), "--base-url", runs_server.url]

    words = await execute(*command, folder=tmp_path)
    document = await execute(*command, "--json", folder=tmp_path)

    assert (words.code, words.out) == (1, f"{run.id} completed\n")
    assert (document.code, json.loads(document.out)["status"]) == (1, "completed")


async def test_run_in_a_file_is_cancelled_by_its_server(tmp_path: Path) -> None:
    """--db finds the server that has the file; where there is none, the sentence says so."""
    async with (
        serving("--db", "kept.db", folder=tmp_path) as server,
        AsyncClient(server.url) as one,
    ):
        assistant = await one.assistants.create(
            model="echo", tools=[{"type": "function", "function": {"name": "look_up"}}]
        )
        run = await one.threads.create_and_run_poll(
            assistant_id=assistant.id,
            thread={"messages": [{"role": "user", "content": "Use the tool look_up for 1."}]},
        )
        done = await execute("runs", "cancel", *ids_of(run), "--db", "kept.db", folder=tmp_path)
    alone = await execute("runs", "cancel", *ids_of(run), "--db", "kept.db", folder=tmp_path)

    assert (done.code, done.out) == (0, f"{run.id} cancelled\n")
    assert alone.code == 1
    assert "openai-runs serve --db kept.db" in alone.err
