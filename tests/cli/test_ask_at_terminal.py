"""`openai-runs ask` at a terminal: what is done until the first word, and an answer to read."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from openai_runs import AsyncClient
from openai_runs.server import ChatBackend, EchoBackend, LocalServer, ScriptedBackend
from openai_runs.testing import RunsServer
from tests.cli.processes import execute, run_on_terminal
from tests.cli.terminals import CTRL_C, at_terminal
from tests.support import Answer, HostileServer

ANSWER = "# Title\n\nSome **bold** words,\nand `code`.\n\n1. one\n2. two\n"
WARNING = "echo: no model"


def test_answer_is_markdown_at_a_terminal(runs_server: RunsServer, tmp_path: Path) -> None:
    """Marks are drawn, and the last line says how to continue, with the ids and options."""
    runs_server.reply(ANSWER)

    shown, code = run_on_terminal("ask", "x", "--base-url", runs_server.url, folder=tmp_path)

    assert code == 0
    for drawn in ("\x1b[1mbold\x1b[0m words,\r\nand \x1b[1mcode\x1b[0m.", "\x1b[1m 1 \x1b[0mone"):
        assert drawn in shown
    assert "**" not in shown
    end = re.escape(f" --base-url {runs_server.url}")
    assert re.search(rf"continue:\r\nopenai-runs ask TEXT --thread thread_\w+{end}", shown)


async def test_answer_is_plain_where_it_is_piped(runs_server: RunsServer, tmp_path: Path) -> None:
    """A program reads what the model wrote."""
    runs_server.reply(ANSWER)

    done = await execute("ask", "x", "--base-url", runs_server.url, folder=tmp_path)

    assert (done.code, done.out) == (0, ANSWER)


async def test_terminal_shows_what_is_done_until_the_first_word(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """A line says so, with the seconds; Ctrl-C still cancels the run."""
    runs_server.hang()
    async with at_terminal("ask", "x", "--base-url", runs_server.url, folder=tmp_path) as terminal:
        await terminal.until("thinking ")
        await terminal.until(" s")
        await terminal.type(CTRL_C)
        code = await terminal.end()

    found = re.search(r"run (run_\w+), thread (thread_\w+)", terminal.shown)
    assert found is not None
    run = await runs_client.runs.wait(found[1], thread_id=found[2])
    assert (code, run.status) == (130, "cancelled")
    assert "Traceback" not in terminal.shown


async def test_terminal_says_that_it_reconnects(runs_server: RunsServer, tmp_path: Path) -> None:
    """A server that is away is no silence; once it is back the answer is whole."""
    runs_server.hang()
    async with at_terminal("ask", "x", "--base-url", runs_server.url, folder=tmp_path) as terminal:
        await terminal.until("thinking")
        await runs_server.stop()
        await terminal.until("reconnecting")
        runs_server.reply("Back again.")
        await runs_server.restart()
        await terminal.until("Back again.")
        code = await terminal.end()

    assert code == 0


@asynccontextmanager
async def before_a_model() -> AsyncIterator[LocalServer]:
    """Serve in front of an endpoint that lists its models."""
    listed = Answer(json={"object": "list", "data": [{"id": "phi4"}]})
    async with (
        HostileServer(lambda request: listed) as model,
        LocalServer(backend=ChatBackend(model.url)) as server,
    ):
        yield server


SERVERS = {
    "echo": (lambda: LocalServer(backend=EchoBackend()), True),
    "model": (before_a_model, False),
    "lists none": (lambda: LocalServer(backend=ScriptedBackend([])), False),
}


@pytest.mark.parametrize(("serve", "warned"), SERVERS.values(), ids=SERVERS)
async def test_model_that_an_echo_server_does_not_ask_is_warned_of(
    serve: object, warned: bool, tmp_path: Path
) -> None:
    """Who names a model learns that there is none, and how to start a server that has one."""
    async with serve() as server:  # type: ignore[operator]  # each is called alike
        where = ["--base-url", server.url, "--model", "phi4"]
        done = await execute("ask", "Hello!", *where, folder=tmp_path)

    assert (WARNING in done.err) is warned
    assert ("--model-url" in done.err) is warned


@pytest.mark.parametrize(
    ("options", "warned"),
    [(["--model", "phi4"], True), (["--model", "echo"], False), ([], False)],
    ids=["phi4", "echo", "none"],
)
async def test_model_that_the_embedded_server_does_not_ask_is_warned_of(
    options: list[str], warned: bool, tmp_path: Path
) -> None:
    """The same without a server; who asks for `echo` or nothing knows."""
    done = await execute("ask", "Hello!", *options, folder=tmp_path)

    assert (done.code, done.out) == (0, "Hello!\n")
    assert (WARNING in done.err) is warned
