"""`openai-runs runs show` and `runs wait`: a run from its two ids, whoever started it."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from openai_runs import AsyncClient, Run
from openai_runs.server import LocalServer, ScriptedBackend
from openai_runs.testing import RunsServer
from tests.canaries import CANARY_PROMPT
from tests.cli.conftest import InProcess
from tests.cli.processes import (
    execute,
    files_in,
    finish,
    launch,
    read_until,
    received,
    serving,
)
from tests.cli.terminals import at_terminal
from tests.support import Answer, HostileServer

LOOK_UP = {"type": "function", "function": {"name": "look_up"}}


async def start_run(client: AsyncClient) -> Run:
    """Start a run on a new thread, with one function."""
    assistant = await client.assistants.create(model="m", tools=[LOOK_UP])
    return await client.threads.create_and_run(
        assistant_id=assistant.id, thread={"messages": [{"role": "user", "content": CANARY_PROMPT}]}
    )


def ids_of(run: Run) -> list[str]:
    """Return the run's ids as the commands take them."""
    return [run.id, "--thread", run.thread_id]


async def test_show_tells_status_steps_and_messages(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """A person sees what the run did, tool calls with their outputs."""
    runs_server.call_tool("look_up", {"order": "1042"}, id="call_1")
    runs_server.reply("It arrives\non Thursday \x1b[2J.")
    run = await runs_client.runs.wait(await start_run(runs_client))
    outputs = [{"tool_call_id": "call_1", "output": "left our warehouse"}]
    run = await runs_client.runs.submit_tool_outputs_and_poll(
        run.id, thread_id=run.thread_id, tool_outputs=outputs
    )

    done = await execute(
        "runs", "show", *ids_of(run), "--base-url", runs_server.url, folder=tmp_path
    )

    assert (done.code, done.err) == (0, "")
    words = [
        run.id,
        "completed",
        run.thread_id,
        "tokens      20 in, 10 out",
        "tool_calls, completed",
        'look_up({"order":"1042"})',
        "-> left our warehouse",
        "message_creation, completed",
        "assistant, completed\n            It arrives\n            on Thursday \\x1b[2J.\n",
    ]
    places = [done.out.index(some) for some in words]
    assert places == sorted(places)
    assert "\x1b" not in done.out
    timeline = (await runs_client.runs.result(run)).timeline()
    _, table = str(timeline).split("\n", 1)
    assert done.out.endswith(f"\n\nWhere the time went, in whole seconds:\n{table}\n")
    assert done.out.count(run.id) == 1


async def test_show_on_a_terminal_draws_the_timeline(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """A person sees bars; the messages stand above them as ever."""
    runs_server.reply("Hi.")
    run = await runs_client.runs.wait(await start_run(runs_client))
    command = ["runs", "show", *ids_of(run), "--base-url", runs_server.url]

    async with at_terminal(*command, folder=tmp_path, PYTHONUTF8="1") as terminal:
        code = await terminal.end()

    assert code == 0
    line = [line for line in terminal.shown.splitlines() if line.strip()][-1]
    assert "━" in terminal.shown or "╵" in terminal.shown
    assert "message" in line or "outside of steps" in line
    assert "Where the time went, in whole seconds:" in terminal.shown


async def test_show_as_json_has_the_wire_objects(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """A program reads run, steps and messages as the server sends them."""
    runs_server.fail(message="No luck.")
    run = await runs_client.runs.wait(await start_run(runs_client))

    done = await execute(
        "runs", "show", *ids_of(run), "--json", folder=tmp_path, OPENAI_BASE_URL=runs_server.url
    )

    told = json.loads(done.out)
    assert (done.code, done.out.count("\n")) == (0, 1)
    assert told["run"] == run.to_dict()
    assert (told["messages"], [step["status"] for step in told["steps"]]) == ([], [])


SETTLED: dict[str, tuple[Callable[[RunsServer], None], int]] = {
    "completed": (lambda server: server.reply("Hi."), 0),
    'requires_action: look_up({"x":1})': (lambda server: server.call_tool("look_up", {"x": 1}), 3),
    "failed (server_error): No luck.": (lambda server: server.fail(message="No luck."), 4),
    "incomplete (max_completion_tokens)": (lambda server: server.incomplete(), 4),
}


@pytest.mark.parametrize("said", SETTLED)
async def test_wait_exits_with_the_code_of_the_status(
    said: str, runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """One line of words, and the code for the shell."""
    prepare, code = SETTLED[said]
    prepare(runs_server)
    run = await start_run(runs_client)
    command = ["runs", "wait", *ids_of(run), "--base-url", runs_server.url]

    words = await execute(*command, folder=tmp_path)

    assert (words.code, words.out, words.err) == (code, f"{run.id} {said}\n", "")


async def test_wait_as_json_has_the_wire_object(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """The run instead of the words; the code is the same."""
    runs_server.fail(message="No luck.")
    run = await start_run(runs_client)
    command = ["runs", "wait", *ids_of(run), "--base-url", runs_server.url]

    document = await execute(*command, "--json", folder=tmp_path)

    assert document.code == 4
    assert json.loads(document.out)["id"] == run.id


async def test_wait_lasts_until_the_run_is_settled(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """It ends when the run does, here by somebody's cancel."""
    runs_server.hang()
    run = await start_run(runs_client)
    process = await launch(
        "runs", "wait", *ids_of(run), "--base-url", runs_server.url, folder=tmp_path
    )
    await received(runs_server, "GET", "/threads/*/runs/*", times=2)  # it has begun to wait

    await runs_client.runs.cancel(run.id, thread_id=run.thread_id)
    left = await finish(process)

    assert (left.code, left.out) == (5, f"{run.id} cancelled\n")


async def test_wait_gives_up_in_time_and_leaves_the_run(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """Exit code 6: the status so far, and the run goes on."""
    runs_server.hang()
    run = await start_run(runs_client)
    command = ["runs", "wait", *ids_of(run), "--base-url", runs_server.url, "--timeout", "0.5"]

    words = await execute(*command, folder=tmp_path)
    document = await execute(*command, "--json", folder=tmp_path)

    assert (words.code, words.out, document.code) == (6, "", 6)
    assert run.id in words.err
    assert len(words.err.splitlines()) == 1
    assert json.loads(document.out)["status"] == "in_progress"
    assert (await runs_client.runs.retrieve(run.id, thread_id=run.thread_id)).is_active


async def test_interrupted_wait_leaves_the_run(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """Ctrl-C ends what this command started: the waiting, and nothing else."""
    runs_server.hang()
    run = await start_run(runs_client)
    process = await launch(
        "runs", "wait", *ids_of(run), "--base-url", runs_server.url, folder=tmp_path
    )
    await received(runs_server, "GET", "/threads/*/runs/*")

    process.send_signal(signal.SIGINT)
    left = await finish(process)

    assert (left.code, left.out, left.err) == (130, "", "")
    assert (await runs_client.runs.retrieve(run.id, thread_id=run.thread_id)).is_active


async def test_wait_on_a_terminal_shows_what_for(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """A person sees the status while it lasts, and the line that stays."""
    runs_server.hang()
    run = await start_run(runs_client)
    command = ["runs", "wait", *ids_of(run), "--base-url", runs_server.url]

    async with at_terminal(*command, folder=tmp_path) as terminal:
        await terminal.until(f"waiting for {run.id}: in_progress")
        await runs_client.runs.cancel(run.id, thread_id=run.thread_id)
        code = await terminal.end()

    assert code == 5
    assert terminal.shown.endswith(f"{run.id} cancelled\r\n")


@pytest.mark.parametrize("command", ["show", "wait"])
async def test_unknown_run_is_named(
    command: str, runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """One sentence with the id, and where else to look."""
    thread = await runs_client.threads.create()
    where = ["--thread", thread.id, "--base-url", runs_server.url]

    done = await execute("runs", command, "run_none", *where, folder=tmp_path)

    assert (done.code, done.out) == (1, "")
    assert "run_none" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("place", ["oldest", "between", "newest"])
async def test_thread_is_found_by_the_run(
    place: str, runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """Where the server lists all runs, the run's id is enough, wherever the run stands there."""
    runs = [await runs_client.runs.wait(await start_run(runs_client)) for _ in range(3)]
    run = runs[["oldest", "between", "newest"].index(place)]
    where = ["--base-url", runs_server.url]

    shown = await execute("runs", "show", run.id, "--json", *where, folder=tmp_path)

    assert (shown.code, json.loads(shown.out)["run"]) == (0, run.to_dict())


@pytest.mark.parametrize(("command", "code"), [("wait", 0), ("cancel", 1)])
async def test_other_commands_find_the_thread_as_well(
    command: str, code: int, runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """In the same way as `show`."""
    run = await runs_client.runs.wait(await start_run(runs_client))

    done = await execute("runs", command, run.id, "--base-url", runs_server.url, folder=tmp_path)

    assert (done.code, done.out) == (code, f"{run.id} completed\n")


@pytest.mark.parametrize("command", ["show", "wait", "cancel"])
async def test_run_that_is_not_there_is_named(
    command: str, runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """Without its thread, too: one sentence, with the command that lists those that are."""
    await start_run(runs_client)
    where = ["--base-url", runs_server.url]

    done = await execute("runs", command, "run_none", *where, folder=tmp_path)

    assert (done.code, done.out) == (1, "")
    assert "no run 'run_none'" in done.err
    assert f"openai-runs runs list --base-url {runs_server.url}" in done.err


OTHERS: dict[str, tuple[Answer, str]] = {
    "no list": (Answer(404, json={"error": {"message": "Invalid URL"}}), "--thread is required"),
    "cursor is ignored": (
        Answer(json={"object": "list", "data": [{"id": "run_other", "thread_id": "thread_1"}]}),
        "no run 'run_1'",
    ),
    "another shape": (Answer(json={"data": "none"}), "no run 'run_1'"),
}


@pytest.mark.parametrize(("answer", "words"), OTHERS.values(), ids=OTHERS)
async def test_thread_has_to_be_named_to_other_servers(
    answer: Answer, words: str, tmp_path: Path
) -> None:
    """A server that does not list its runs says nothing of threads; no other run is shown."""
    async with HostileServer(lambda request: answer) as server:
        done = await execute("runs", "show", "run_1", "--base-url", server.url, folder=tmp_path)

    assert (done.code, done.out) == (1, "")
    assert words in done.err


async def test_served_file_leads_to_its_server(tmp_path: Path) -> None:
    """With --db nobody needs to know the port."""
    async with serving("--db", "kept.db", folder=tmp_path) as server:
        async with AsyncClient(server.url) as client:
            run = await start_run(client)

        waited = await execute("runs", "wait", *ids_of(run), "--db", "kept.db", folder=tmp_path)
        shown = await execute("runs", "show", *ids_of(run), "--db", "kept.db", folder=tmp_path)

    assert (waited.code, waited.out) == (0, f"{run.id} completed\n")
    assert (shown.code, CANARY_PROMPT in shown.out) == (0, True)


async def test_file_is_looked_into_without_touching_its_runs(tmp_path: Path) -> None:
    """A queued run waits for a server with its model; whoever only looks has none."""
    idle = LocalServer(tmp_path / "kept.db", backend=ScriptedBackend(), max_concurrent_runs=0)
    async with idle as server, AsyncClient(server.url) as client:
        run = await start_run(client)
    command = [*ids_of(run), "--db", "kept.db"]

    shown = await execute("runs", "show", *command, folder=tmp_path)
    again = await execute("runs", "show", *command, folder=tmp_path)
    waited = await execute("runs", "wait", *command, folder=tmp_path)

    parts = [text.partition("\n\n") for text in (shown.out, again.out)]  # its time goes on
    assert (shown.code, parts[0][0]) == (0, parts[1][0])
    assert "status      queued\n" in again.out
    assert (waited.code, waited.out) == (1, "")
    assert "openai-runs serve --db kept.db" in waited.err


@pytest.mark.parametrize("command", ["show", "wait"])
def test_missing_file_is_not_made(command: str, in_process: InProcess, tmp_path: Path) -> None:
    """Looking leaves nothing behind."""
    target = ["run_1", "--thread", "thread_1", "--db", "none.db"]

    done = in_process("runs", command, *target)

    assert (done.code, done.out) == (1, "")
    assert "'none.db'" in done.err
    assert files_in(tmp_path) == []


async def test_wait_says_at_once_that_it_reconnects(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """Why, and for how long; once the server is back the wait goes on, and says no more."""
    runs_server.hang()
    run = await start_run(runs_client)
    await runs_server.stop()
    command = ["runs", "wait", *ids_of(run), "--base-url", runs_server.url]
    process = await launch(*command, folder=tmp_path)

    said = await read_until("\n", process.stderr)
    runs_server.reply("Back again.")
    await runs_server.restart()
    left = await finish(process)

    assert f"run {run.id}: no connection" in said
    assert "reconnecting for up to 60 s" in said
    assert (left.code, left.out, left.err) == (0, f"{run.id} completed\n", "")
