"""`openai-runs runs list`, `threads list` and `threads show`: what a server or a file has."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from openai_runs import AsyncClient
from openai_runs.server import LocalServer
from openai_runs.testing import RunsServer
from tests.cli.conftest import InProcess
from tests.cli.processes import execute, run_on_terminal
from tests.support import Answer, HostileServer

TEXTS = ["One", "Two\nlines", "Three \x1b[2J"]
TOPIC = "weather in a place whose name is longer than what is left of the line"


async def fill(path: Path) -> tuple[str, list[str]]:
    """Make a thread with three runs, and another one; return the first with its runs."""
    async with LocalServer(path) as server, AsyncClient(server.url) as client:
        assistant = await client.assistants.create(model="echo")
        thread = await client.threads.create(metadata={"topic": TOPIC})
        runs = []
        for text in TEXTS:
            run = await client.runs.create_and_poll(
                thread.id,
                assistant_id=assistant.id,
                additional_messages=[{"role": "user", "content": text}],
            )
            runs.append(run.id)
        await client.threads.create()
    return thread.id, runs


@pytest.fixture
def filled(tmp_path: Path) -> tuple[str, list[str]]:
    """Return the thread and the runs in `runs.db`."""
    return asyncio.run(fill(tmp_path / "runs.db"))


def test_runs_are_listed_newest_first(filled: tuple[str, list[str]], in_process: InProcess) -> None:
    """Of one thread, or of all: ids of run and thread, status, time and model in columns."""
    thread, runs = filled

    every = in_process("runs", "list", "--db", "runs.db")
    of_thread = in_process("runs", "list", "--thread", thread, "--db", "runs.db")
    in_short = in_process("runs", "list", thread, "--db", "runs.db")
    twice = in_process("runs", "list", thread, "--thread", thread, "--db", "runs.db")

    assert every == of_thread == in_short == twice
    assert (every.code, every.err) == (0, "")
    head, *rows = every.out.splitlines()
    assert head.split() == ["run", "thread", "status", "created", "model"]
    assert [row.split()[:2] for row in rows] == [[run, thread] for run in runs[::-1]]
    assert all(re.search(r" completed  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  echo$", row) for row in rows)


def test_long_list_comes_in_pages(filled: tuple[str, list[str]], in_process: InProcess) -> None:
    """Each page ends with the command for the next one, as it can be typed."""
    _, runs = filled
    command, seen = ["runs", "list", "--limit", "2", "--db", "runs.db"], []
    for _ in range(2):
        done = in_process(*command)
        seen += [row.split()[0] for row in done.out.splitlines()[1:]]
        if not done.err:
            break
        found = re.fullmatch(r"more: openai-runs (.*)\n", done.err)
        assert found is not None
        command = found[1].split()

    assert seen == runs[::-1]
    assert done.err == ""


def test_list_as_json_is_the_page(filled: tuple[str, list[str]], in_process: InProcess) -> None:
    """A program reads one line: the page as the API has it."""
    done = in_process("runs", "list", "--limit", "2", "--json", "--db", "runs.db")

    page = json.loads(done.out)
    assert (done.code, done.out.count("\n"), done.err) == (0, 1, "")
    assert (page["object"], page["has_more"]) == ("list", True)
    assert [run["id"] for run in page["data"]] == filled[1][:0:-1]


def test_threads_are_listed_with_their_metadata(
    filled: tuple[str, list[str]], in_process: InProcess
) -> None:
    """Piped, nothing is cut off."""
    done = in_process("threads", "list", "--db", "runs.db")

    head, _, row = done.out.splitlines()
    assert (done.code, head.split()) == (0, ["thread", "created", "metadata"])
    assert row.split()[0] == filled[0]
    assert row.endswith(f"topic={TOPIC}")


def test_rows_fit_a_terminal(filled: tuple[str, list[str]], tmp_path: Path) -> None:
    """Ids stay whole, and the last column ends where the screen does."""
    shown, code = run_on_terminal("threads", "list", "--db", "runs.db", folder=tmp_path)

    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).split("\r\n")
    assert code == 0
    assert max(map(len, lines)) <= 80
    assert any(line.startswith(filled[0]) and line.endswith("…") for line in lines)


def test_ids_of_runs_are_whole_at_a_terminal(filled: tuple[str, list[str]], tmp_path: Path) -> None:
    """At 80 columns the ids and the status fit; the time and the model are left out."""
    shown, code = run_on_terminal("runs", "list", "--db", "runs.db", folder=tmp_path)

    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).split("\r\n")
    thread, runs = filled
    assert code == 0
    assert [line.split() for line in lines if line] == [
        ["run", "thread", "status"],
        *([run, thread, "completed"] for run in runs[::-1]),
    ]


def test_thread_is_shown_with_its_last_messages(
    filled: tuple[str, list[str]], in_process: InProcess
) -> None:
    """Oldest first, as it is read; what could steer the terminal is shown."""
    thread, runs = filled

    done = in_process("threads", "show", thread, "--limit", "3", "--db", "runs.db")

    assert done.code == 0
    words = [
        thread,
        f"topic={TOPIC}",
        "assistant, ",
        runs[1],
        "Two\nlines",
        "user, ",
        "Three \\x1b",
    ]
    places = [done.out.index(one) for one in words]
    assert places == sorted(places)
    assert "One" not in done.out
    command = rf"openai-runs threads show {thread} --after msg_\w+ --limit 3 --db runs.db"
    assert re.fullmatch(rf"earlier ones: {command}\n", done.err)


def test_thread_as_json_is_as_the_api_has_it(
    filled: tuple[str, list[str]], in_process: InProcess
) -> None:
    """One line: the thread, and the page of its messages, newest first."""
    done = in_process("threads", "show", filled[0], "--json", "--db", "runs.db")

    document = json.loads(done.out)
    assert (document["thread"]["id"], document["messages"]["has_more"]) == (filled[0], False)
    texts = [one["content"][0]["text"]["value"] for one in document["messages"]["data"]]
    assert texts == [text for one in TEXTS[::-1] for text in (one, one)]


def test_empty_list_says_so(in_process: InProcess, runs_server: RunsServer) -> None:
    """Nothing on standard output, and exit code 0."""
    done = in_process("threads", "list", "--base-url", runs_server.url)

    assert done == (0, "", "none\n")


MISSES = {
    "no thread": (["threads", "show", "thread_none"], 1, "thread_none"),
    "no run to go on after": (["runs", "list", "--after", "run_none"], 1, "run_none"),
    "too many": (["threads", "list", "--limit", "101"], 2, "--limit"),
    "bad id": (["threads", "show", "a/b"], 2, "a/b"),
    "bad cursor": (["threads", "list", "--after", "a/b"], 2, "a/b"),
}


@pytest.mark.parametrize(("command", "code", "words"), MISSES.values(), ids=MISSES)
def test_mistakes_are_one_sentence(
    command: list[str], code: int, words: str, in_process: InProcess, runs_server: RunsServer
) -> None:
    """1 where the server does not have it, 2 where nothing was asked."""
    done = in_process(*command, "--base-url", runs_server.url)

    assert (done.code, done.out) == (code, "")
    assert words in done.err


@pytest.mark.parametrize(
    "command", ["runs list", "threads list", "threads show t", "runs cancel r"]
)
def test_no_server_is_a_mistake(command: str, in_process: InProcess) -> None:
    """There is no default: the sentence says what to name."""
    thread = ["--thread", "thread_1"] if command.startswith("runs cancel") else []

    done = in_process(*command.split(), *thread)

    assert (done.code, done.out) == (2, "")
    assert "--base-url" in done.err


async def test_server_that_lists_no_threads_is_named(tmp_path: Path) -> None:
    """Most servers of the API do not; the sentence says so, and what can be done."""
    missing = Answer(404, json={"error": {"message": "Invalid URL", "type": "not_found"}})
    async with HostileServer(lambda request: missing) as server:
        where = ["--base-url", server.url]
        threads = await execute("threads", "list", *where, folder=tmp_path)
        runs = await execute("runs", "list", *where, folder=tmp_path)

    assert (threads.code, runs.code) == (1, 1)
    assert "does not list its threads" in threads.err
    assert "--thread" in runs.err
