"""`openai-runs batch`: its exit codes, its words, Ctrl-C, and files that cannot be written."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import anyio.to_thread
import pytest
from anyio.from_thread import start_blocking_portal

from tests.batch.batching import (
    Moody,
    Site,
    batch_line,
    errors_of,
    launch,
    results_of,
    site,
    write_lines,
)
from tests.cli.conftest import InProcess
from tests.cli.processes import COMMAND, clean_env, execute, finish, read_until, run_on_terminal


class HasAssistant(Protocol):
    """A server with an assistant."""

    assistant_id: str


FILES = ["--out", "out.jsonl", "--checkpoint", "batch.db"]
URL = ["--base-url", "http://127.0.0.1:9/v1"]


@pytest.fixture
def backend() -> Moody:
    """Return the backend of the server."""
    return Moody()


@pytest.fixture
async def server(backend: Moody, tmp_path: Path) -> AsyncIterator[Site]:
    """Serve."""
    async with site(tmp_path / "server.db", backend=lambda: backend) as served:
        yield served


def write(folder: Path, server: HasAssistant, *texts: str) -> None:
    """Write the input: a line for each text."""
    lines = [batch_line(f"id-{n}", server.assistant_id, text) for n, text in enumerate(texts)]
    write_lines(folder / "in.jsonl", lines)


async def test_batch_of_completed_runs_exits_with_0(tmp_path: Path, server: Site) -> None:
    """Results are in the file; what is said is said on standard error."""
    write(tmp_path, server, "one", "two")

    done = await finish(await launch(tmp_path, server.url))

    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("0 of 2 lines done; progress each 30 s\n")
    assert "2 completed, 0 failed" in done.err
    assert "results in out.jsonl" in done.err
    assert len(results_of(tmp_path / "out.jsonl")) == 2


async def test_batch_with_failures_exits_with_4_and_names_their_reasons(
    tmp_path: Path, server: Site
) -> None:
    """`batch status` shows them again."""
    write(tmp_path, server, "one", "bad")

    done = await finish(await launch(tmp_path, server.url))
    shown = await execute("batch", "status", "batch.db", folder=tmp_path)

    assert done.code == 4
    assert "failed: invalid_prompt 1" in done.err
    assert "\nthe first that failed, id-1: No such thing.\n" in done.err
    assert shown.code == 0
    assert "failed       1\n" in shown.out
    assert "1 x invalid_prompt" in shown.out
    assert "none at work" in shown.out
    assert "results      out.jsonl\nerrors       out.errors.jsonl\n" in shown.out
    assert "results in out.jsonl, errors in out.errors.jsonl\n" in done.err
    assert "orphans" not in shown.out


async def test_retry_is_advised_only_where_it_helps(tmp_path: Path, server: Site) -> None:
    """Nothing is gained where a prompt was rejected."""
    write(tmp_path, server, "bad")
    hopeless = await finish(await launch(tmp_path, server.url))
    write(tmp_path, server, "bad", "flaky")
    hopeful = await finish(await launch(tmp_path, server.url))

    assert "--retry-failed" not in hopeless.err
    assert "; --retry-failed retries 1 of them\n" in hopeful.err


async def test_rows_are_answered_by_the_assistant_that_is_named(
    tmp_path: Path, server: Site
) -> None:
    """As with `ask`; what is no assistant's id, or comes beside --model, is refused."""
    (tmp_path / "in.csv").write_text("q\nAda\n")
    options = [*FILES, "--prompt", "{q}", "--base-url", server.url, "--assistant"]

    twice = await execute(
        "batch", "run", "in.csv", *options, "asst_1", "--model", "echo", folder=tmp_path
    )
    other = await execute("batch", "run", "in.csv", *options, "run_1", folder=tmp_path)
    done = await execute("batch", "run", "in.csv", *options, server.assistant_id, folder=tmp_path)

    assert (twice.code, other.code, done.code) == (2, 2, 0)
    assert "--assistant has its model: use one of --assistant and --model" in twice.err
    assert "'run_1' is the id of a run, and that of an assistant is needed" in other.err
    (result,) = results_of(tmp_path / "out.jsonl")
    assert result["response"]["body"]["assistant_id"] == server.assistant_id


async def test_csv_is_filled_into_a_template(tmp_path: Path, server: Site) -> None:
    """With `--db` the server is inside of the command."""
    body = batch_line("", server.assistant_id, "Greet {name}!")["body"]
    (tmp_path / "body.json").write_text(json.dumps(body))
    (tmp_path / "in.csv").write_text("name\nAda\n")
    options = [*FILES, "--template", "body.json", "--base-url", server.url, "--rpm", "60000"]

    done = await execute("batch", "run", "in.csv", *options, folder=tmp_path)

    assert done.code == 0, done.err
    (result,) = results_of(tmp_path / "out.jsonl")
    assert result["custom_id"] == "row-2"
    assert result["response"]["body"]["text"] == "Greet Ada!"


async def test_value_of_a_csv_file_may_be_long(tmp_path: Path) -> None:
    """Longer than the `csv` module takes by itself: whole documents are asked about."""
    (tmp_path / "in.csv").write_text(f"text\n{'x' * 140_000}\n")
    options = [*FILES, "--prompt", "Sum up: {text}", "--db", "runs.db", "--model", "echo"]

    done = await execute("batch", "run", "in.csv", *options, folder=tmp_path)

    assert done.code == 0, done.err
    (result,) = results_of(tmp_path / "out.jsonl")
    assert len(result["response"]["body"]["text"]) == len("Sum up: ") + 140_000


async def test_model_makes_the_assistant_of_lines_that_name_none(tmp_path: Path) -> None:
    """So the command alone carries a CSV file out, on a file of its own."""
    (tmp_path / "in.csv").write_text("name\nAda\nAlan\n")
    body = {"thread": {"messages": [{"role": "user", "content": "Greet {name}!"}]}}
    (tmp_path / "body.json").write_text(json.dumps(body))
    options = [*FILES, "--template", "body.json", "--db", "runs.db"]
    more = ["--model", "echo", "--instructions", "Be kind."]

    missing = await execute("batch", "run", "in.csv", *options, folder=tmp_path)
    done = await execute("batch", "run", "in.csv", *options, *more, folder=tmp_path)
    again = await execute("batch", "run", "in.csv", *options, *more, folder=tmp_path)

    assert missing.code == 1
    assert "openai-runs: rows have no assistant_id" in missing.err
    assert "or --model" in missing.err
    assert (done.code, again.code) == (0, 0), done.err
    bodies = [one["response"]["body"] for one in results_of(tmp_path / "out.jsonl")]
    assert {body["text"] for body in bodies} == {"Greet Ada!", "Greet Alan!"}
    assert {body["instructions"] for body in bodies} == {"Be kind."}
    assert len({body["assistant_id"] for body in bodies}) == 1


async def test_model_that_an_echo_does_not_ask_is_a_warning(tmp_path: Path) -> None:
    """As `ask` has it: the answers would be the questions."""
    (tmp_path / "in.csv").write_text("q\none\n")
    options = [*FILES, "--prompt", "{q}", "--db", "runs.db", "--model", "gpt-4o"]

    done = await execute("batch", "run", "in.csv", *options, folder=tmp_path)

    assert done.code == 0
    assert "echo: no model. The server repeats the text and does not ask gpt-4o" in done.err


async def test_ctrl_c_finishes_what_is_in_progress(
    tmp_path: Path, server: Site, backend: Moody
) -> None:
    """It exits with 130, and the same command does the rest."""
    write(tmp_path, server, "wait", "next", "last")
    process = await launch(tmp_path, server.url, "--concurrency", "1")
    await backend.waiting.wait()
    process.send_signal(signal.SIGINT)
    await read_until("finishing 1 line in progress; Ctrl-C again leaves them", process.stderr)
    backend.open.set()
    done = await finish(process)

    assert done.code == 130
    assert "1 completed, 0 failed; 2 left: the same command goes on" in done.err
    assert len(results_of(tmp_path / "out.jsonl")) == 1
    second = await finish(await launch(tmp_path, server.url))
    assert second.code == 0
    assert second.err.startswith("1 of 3 lines done; progress each 30 s\n")
    assert "this start: 2 done, " in second.err
    assert len(results_of(tmp_path / "out.jsonl")) == 3


async def test_start_that_finds_all_done_says_nothing_of_itself(
    tmp_path: Path, server: Site
) -> None:
    """What was done in all starts is said, and so is where the results are."""
    write(tmp_path, server, "one")
    await finish(await launch(tmp_path, server.url))

    done = await finish(await launch(tmp_path, server.url))

    assert done.code == 0
    assert "this start" not in done.err
    assert "all starts: 1 completed, 0 failed" in done.err


async def test_wrong_line_is_all_that_is_said(tmp_path: Path, server: Site) -> None:
    """Nothing was begun, so there is no rate."""
    write_lines(tmp_path / "in.jsonl", [batch_line("a", server.assistant_id, "one") | {"body": {}}])

    done = await finish(await launch(tmp_path, server.url))

    assert done.code == 1
    (sentence,) = done.err.splitlines()
    assert sentence.startswith("openai-runs: line 1 of the input: body has no assistant_id: ")


async def test_second_ctrl_c_leaves_what_is_in_progress(
    tmp_path: Path, server: Site, backend: Moody
) -> None:
    """The next start goes on with the run that is there."""
    write(tmp_path, server, "wait")
    process = await launch(tmp_path, server.url)
    await backend.waiting.wait()
    process.send_signal(signal.SIGINT)
    await read_until("Ctrl-C again leaves them", process.stderr)
    process.send_signal(signal.SIGINT)
    done = await finish(process)
    backend.open.set()

    assert done.code == 130
    assert "0 completed, 0 failed; 1 left, 1 of them begun: the same command goes on" in done.err
    assert "results in out.jsonl\n" in done.err
    assert "this start" not in done.err
    shown = await execute("batch", "status", "batch.db", folder=tmp_path)
    assert "in progress  0\nbegun        1; the next start goes on with them\n" in shown.out
    assert (await finish(await launch(tmp_path, server.url))).code == 0
    assert await anyio.to_thread.run_sync(server.count, "runs") == 1


async def test_second_process_is_told_which_one_has_the_checkpoint(
    tmp_path: Path, server: Site, backend: Moody
) -> None:
    """By its id and the path; `batch status` shows it too."""
    write(tmp_path, server, "wait")
    first = await launch(tmp_path, server.url)
    await backend.waiting.wait()

    second = await finish(await launch(tmp_path, server.url))
    shown = await execute("batch", "status", "batch.db", folder=tmp_path)
    backend.open.set()

    assert second.code == 1
    assert f"process {first.pid} works on the checkpoint {tmp_path / 'batch.db'}" in second.err
    assert f"process      {first.pid}" in shown.out
    assert "in progress  1\n" in shown.out
    assert "begun" not in shown.out
    assert (await finish(first)).code == 0


async def limited(folder: Path, url: str, size: int) -> asyncio.subprocess.Process:
    """Start the command where no file may become larger than this."""
    options = ["batch", "run", "in.jsonl", *FILES, "--base-url", url]
    # Nor those of a measurement of coverage, which are no concern of the command.
    env = {name: value for name, value in clean_env().items() if "COVERAGE" not in name}
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *options,
        cwd=folder,
        env=env,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )


@pytest.mark.parametrize("size", [20_000, 60_000, 150_000], ids=["20k", "60k", "150k"])
async def test_full_disk_is_a_clear_error_and_loses_nothing(
    tmp_path: Path, server: Site, size: int
) -> None:
    """Whichever file meets it first; once there is space, the same command finishes."""
    write(tmp_path, server, *(f"{n} {'x' * 2000}" for n in range(60)))

    full = await finish(await limited(tmp_path, server.url, size))
    done = await finish(await launch(tmp_path, server.url))

    assert full.code == 1
    assert "nothing is lost: once it can be, the same command goes on" in full.err
    assert "Traceback" not in full.err
    assert done.code == 0, done.err
    ids = [one["custom_id"] for one in results_of(tmp_path / "out.jsonl")]
    assert sorted(ids) == sorted(f"id-{n}" for n in range(60))
    assert await anyio.to_thread.run_sync(server.count, "runs") == 60


async def test_terminal_shows_a_bar(tmp_path: Path, server: Site) -> None:
    """And the line with counts and rate below it."""
    write(tmp_path, server, "one", "two")
    options = [*FILES, "--base-url", server.url]

    shown, code = await anyio.to_thread.run_sync(
        lambda: run_on_terminal("batch", "run", "in.jsonl", *options, folder=tmp_path)
    )

    assert code == 0
    assert "━" in shown
    assert "2 of 2 done" in shown


async def test_server_that_is_gone_ends_the_batch_without_a_failed_line(
    tmp_path: Path, server: Site
) -> None:
    """A wrong key is the same for each line: the sentence says what to do, and nothing is lost."""
    write(tmp_path, server, "one")
    from openai_runs.server import EchoBackend, LocalServer

    async with LocalServer(backend=EchoBackend(), api_key="right") as locked:
        done = await finish(await launch(tmp_path, locked.url))

    assert done.code == 1
    assert "--api-key-env" in done.err
    assert "nothing is lost: the same command goes on" in done.err
    assert errors_of(tmp_path) == []


USAGE = {
    "no server": (["in.jsonl"], "which server"),
    "csv without template": (["in.csv", *URL], "in.csv needs --prompt, the message of each row"),
    "template without csv": (["in.jsonl", *URL, "--template", "t.json"], "does not end in .csv"),
    "prompt without csv": (["in.jsonl", *URL, "--prompt", "{a}"], "--prompt is for a CSV file"),
    "prompt and template": (["in.csv", *URL, "--prompt", "{a}", "--template", "t"], "exclude each"),
    "a workbook": (["in.xlsx", *URL, "--template", "t.json"], "in.xlsx is no CSV file: save it"),
    "tabs": (["in.tsv", *URL], "in.tsv is no CSV file: save it as CSV UTF-8"),
    "checkpoint of the server": (["in.jsonl", "--db", "./batch.db"], "batch.db is the file of the"),
    "output of the server": (["in.jsonl", "--db", "out.jsonl"], "out.jsonl is the file of the"),
    "no such template": (["in.csv", *URL, "--template", "t.json"], "t.json: cannot be read"),
    "no such module": (["in.jsonl", *URL, "--tools", "no_such:f"], "--tools no_such:f"),
    "no such function": (["in.jsonl", *URL, "--tools", "json:f"], "--tools json:f"),
    "no function": (["in.jsonl", *URL, "--tools", "json:__name__"], "has no function __name__"),
    "no lines at once": (["in.jsonl", *URL, "--concurrency", "0"], "--concurrency"),
    "instructions of nobody": (["in.jsonl", *URL, "--instructions", "Hi"], "--model"),
    "a limit for our own": (["in.jsonl", "--db", "runs.db", "--rpm", "5"], "--rpm"),
}


@pytest.mark.parametrize("name", USAGE)
def test_arguments_that_cannot_work_are_refused(in_process: InProcess, name: str) -> None:
    """With exit code 2, before anything is opened."""
    arguments, words = USAGE[name]

    done = in_process("batch", "run", *arguments, *FILES)

    assert done.code == 2
    assert words in done.err
    assert not Path("batch.db").exists()


def test_status_of_no_checkpoint_is_an_error(in_process: InProcess) -> None:
    """A typo makes no file."""
    done = in_process("batch", "status", "batch.db")

    assert (done.code, Path("batch.db").exists()) == (1, False)
    assert "there is no checkpoint batch.db" in done.err


def test_log_has_a_line_now_and_then(
    in_process: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where standard error is no terminal: what is done, at which rate, and what is left."""
    monkeypatch.setattr("openai_runs._cli.commands.batch.BATCH_LOG_INTERVAL", 0.005)
    monkeypatch.setattr("openai_runs._cli.commands.batch._CHECK", 0.005)
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(site(tmp_path / "server.db")) as server,
    ):
        write(tmp_path, server, *(f"{n}" for n in range(40)))
        done = in_process("batch", "run", "in.jsonl", *FILES, "--base-url", server.url)

    assert done.code == 0
    assert re.search(r"^\d+ of 40 done, \d+ running, .*/s", done.err, re.MULTILINE)


async def test_failures_up_to_the_limit_end_the_command(tmp_path: Path, server: Site) -> None:
    """With exit code 1; what was not begun is left."""
    write(tmp_path, server, *(f"bad {n}" for n in range(9)))

    done = await finish(
        await launch(tmp_path, server.url, "--max-failures", "2", "--concurrency", "1")
    )

    assert done.code == 1
    assert "stopped after 2 failures, the last of them: invalid_prompt" in done.err
