"""`openai-runs ask` that ends early: what it started ends with it, and nothing is lost."""

import json
import os
import signal
from asyncio.subprocess import Process
from pathlib import Path

import anyio.to_thread
import pytest

from openai_runs import AsyncClient, Run
from openai_runs.server import LocalServer, Say, ScriptedBackend
from openai_runs.testing import Cut, FaultProxy, RunsServer
from tests.cli.processes import execute, files_in, finish, launch, read_until, received, start
from tests.cli.test_ask import IDS
from tests.support import HostileServer, Stall


async def the_run(client: AsyncClient, words: str) -> Run:
    """Return the run that standard error names."""
    found = IDS.search(words)
    assert found is not None, words
    return await client.runs.retrieve(found[1], thread_id=found[2])


async def started(runs_server: RunsServer, folder: Path, *options: str) -> Process:
    """Return the command in mid-answer: it has shown the words "Once upon"."""
    runs_server.hang(text="Once upon")
    process = await launch("ask", "x", "--base-url", runs_server.url, *options, folder=folder)
    assert await read_until("Once upon", process.stdout) == "Once upon"
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
async def test_signal_in_mid_answer_cancels_the_run(
    number: signal.Signals,
    code: int,
    runs_server: RunsServer,
    runs_client: AsyncClient,
    tmp_path: Path,
) -> None:
    """Tokens have come before the end; then the run, and only the run, is cancelled."""
    process = await started(runs_server, tmp_path)

    process.send_signal(number)
    left = await finish(process)

    run = await runs_client.runs.wait(await the_run(runs_client, left.err))
    assert (left.code, left.out, run.status) == (code, "", "cancelled")
    assert f"asked to cancel run {run.id}" in left.err
    assert "Traceback" not in left.err
    assert [one async for one in runs_client.assistants.list()] == []


async def test_interrupted_embedded_server_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C with the server inside this command: no file, no traceback."""
    chunk = '{"choices": [{"index": 0, "delta": {"content": "Once upon"}}]}'
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    stall = Stall(f"{head}data: {chunk}\n\n".encode())
    async with HostileServer(lambda request: stall) as model:
        where = ["--model-url", model.url]
        process = await launch("ask", "x", *where, folder=tmp_path, TMPDIR=str(tmp_path))
        await read_until("Once upon", process.stdout)
        assert files_in(tmp_path) != []

        process.send_signal(signal.SIGINT)
        left = await finish(process)

    assert (left.code, left.out) == (130, "")
    assert "Traceback" not in left.err
    assert files_in(tmp_path) == []


async def test_second_interrupt_does_not_wait(runs_server: RunsServer, tmp_path: Path) -> None:
    """A server that does not answer the cancel holds nobody."""
    runs_server.hang_connection(path="/threads/*/runs/*/cancel")
    process = await started(runs_server, tmp_path)

    process.send_signal(signal.SIGINT)
    await received(runs_server, "POST", "/threads/*/runs/*/cancel")
    process.send_signal(signal.SIGINT)
    left = await finish(process)

    assert left.code == 130
    assert "Traceback" not in left.err


async def test_reader_that_goes_away_cancels_the_run(tmp_path: Path) -> None:
    """As with `| head -c 1`: nothing is said of it, and the run ends."""
    endless = Say(["word "] * 5000, pause=0.01)
    async with (
        LocalServer(backend=ScriptedBackend([endless])) as server,
        AsyncClient(server.url) as client,
    ):
        reading, writing = os.pipe()
        command = ["ask", "x", "--base-url", server.url]
        process = await start(command, tmp_path, {}, stdout=writing)
        os.close(writing)
        first = await anyio.to_thread.run_sync(os.read, reading, 1)
        os.close(reading)
        left = await finish(process)
        run = await client.runs.wait(await the_run(client, left.err))

    assert (first, left.code, run.status) == (b"w", 141, "cancelled")
    assert len(left.err.splitlines()) == 1


@pytest.mark.parametrize("mode", ["words", "--json"])
async def test_time_out_cancels_the_run(
    mode: str, runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """Exit code 6: what came is there, and nothing goes on that nobody waits for."""
    runs_server.hang(text="Once upon")
    options = ["--timeout", "1.5", *(["--json"] if mode == "--json" else [])]

    done = await execute("ask", "x", "--base-url", runs_server.url, *options, folder=tmp_path)

    run = await runs_client.runs.wait(await the_run(runs_client, done.err))
    assert (done.code, run.status) == (6, "cancelled")
    assert "asked to cancel" in done.err
    if mode == "--json":
        told = json.loads(done.out)
        assert (told["run_id"], told["status"], told["text"]) == (
            run.id,
            "in_progress",
            "Once upon",
        )
    else:
        assert done.out == "Once upon"


async def test_run_that_somebody_cancels_exits_5(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """Not this command ended it, and it says so."""
    process = await started(runs_server, tmp_path)
    request = runs_server.seen("POST", "/threads/*/runs")[0]
    thread_id = request.path.split("/")[2]
    run = await runs_client.runs.recover(thread_id)
    assert run is not None

    await runs_client.runs.cancel(run.id, thread_id=thread_id)
    left = await finish(process)

    assert (left.code, left.out) == (5, "\n")
    assert "\ncancelled\n" in left.err


@pytest.mark.parametrize("after", [0, 700, 3000])
async def test_cut_connection_costs_nothing(
    after: int, runs_server: RunsServer, tmp_path: Path
) -> None:
    """The stream is taken up again, and the answer is whole."""
    text = "To be, or not to be, that is the question. " * 40
    runs_server.reply(text)
    async with FaultProxy(runs_server.url) as proxy:
        proxy.plan(Cut(after=after))
        done = await execute("ask", "x", "--base-url", proxy.url, folder=tmp_path)
        assert proxy.faults_left == 0

    assert (done.code, done.out) == (0, f"{text}\n")
    assert "recovered" in done.err


@pytest.mark.parametrize("again", ["Once upon a time.", "Twice."], ids=["same", "other words"])
async def test_server_that_comes_back_loses_no_answer(
    again: str, runs_server: RunsServer, tmp_path: Path
) -> None:
    """After a crash the model is asked anew; where it says something else, all of it is shown."""
    process = await started(runs_server, tmp_path)
    runs_server.reply(again)

    await runs_server.restart()
    left = await finish(process)

    out = f"Once upon{left.out}"
    assert left.code == 0
    assert "recovered" in left.err
    assert out.endswith(f"{again}\n")
    assert ("anew" in left.err) is (out != f"{again}\n")


async def test_server_that_stays_away_is_told_with_the_ids(
    runs_server: RunsServer, tmp_path: Path
) -> None:
    """Exit code 1: which run it was, and how to look at it once the server is back."""
    process = await started(runs_server, tmp_path)

    await runs_server.stop()
    left = await finish(process)

    found = IDS.search(left.err)
    assert found is not None
    assert (left.code, left.out) == (1, "")
    assert f"openai-runs runs show {found[1]} --thread {found[2]}" in left.err
    assert "Traceback" not in left.err
