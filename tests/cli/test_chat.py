"""`openai-runs chat`: message by message, typed or piped."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import anyio
import pytest

from openai_runs import AsyncClient
from openai_runs.server import LocalServer
from openai_runs.testing import RunsServer
from tests.cli.conftest import InProcess
from tests.cli.processes import COMMAND, Finished, execute, pipe
from tests.cli.terminals import CTRL_C, CTRL_D, Terminal, at_terminal

TOOL = '''
def look_up(order: str) -> str:
    """Look up an order.

    Args:
        order: Its number.
    """
    return f"order {order} left our warehouse"
'''
UP = "\x1b[A"
ENTER = "\r"
READY = "Ctrl-D ends"
PROMPT = ">"
THREAD = re.compile(r"--thread (thread_\w+)")


async def piped(lines: str, *arguments: str, folder: Path) -> Finished:
    """Return what a chat leaves whose messages are piped in."""
    return await pipe(lines, "chat", *arguments, folder=folder)


async def test_each_piped_line_is_a_message_on_one_thread(tmp_path: Path) -> None:
    """Answers alone on standard output; the last line says how to continue."""
    done = await piped("One\n\nTwo\nlast without an end", "--db", "chat.db", folder=tmp_path)

    found = THREAD.search(done.err)
    assert found is not None
    assert (done.code, done.out) == (0, "One\nTwo\nlast without an end\n")
    assert done.err == f"continue: openai-runs chat --thread {found[1]} --db chat.db\n"
    async with LocalServer(tmp_path / "chat.db") as server, AsyncClient(server.url) as client:
        said = [one.text async for one in client.messages.list(found[1], order="asc")]
        left = [one async for one in client.assistants.list()]
    assert said[::2] == said[1::2] == ["One", "Two", "last without an end"]
    assert left == []


async def test_thread_is_continued(tmp_path: Path) -> None:
    """The next chat goes on where the last one ended, and says how much there is."""
    first = await piped("One\n", "--db", "chat.db", folder=tmp_path)
    found = THREAD.search(first.err)
    assert found is not None

    where = ["--db", "chat.db", "--thread", found[1]]
    second = await piped("Two\n", *where, folder=tmp_path)

    assert second.out == "Two\n"
    assert f"thread {found[1]}, 2 messages\n" in second.err
    assert f"--thread {found[1]} --db chat.db\n" in second.err


async def test_tools_of_a_module_are_called(tmp_path: Path) -> None:
    """The function runs here, and what it was called with is shown."""
    (tmp_path / "orders.py").write_text(TOOL)
    where = ["--tools", "orders:look_up"]

    done = await piped("Use the tool look_up for 1042.\n", *where, folder=tmp_path)

    assert (done.code, done.out) == (0, "look_up says: order 1042 left our warehouse\n")
    assert 'calls look_up({"order":"1042"})\n' in done.err
    assert "with --db FILE it is kept" in done.err


async def test_commands_begin_with_a_slash(tmp_path: Path) -> None:
    """/help, /thread, /new, /quit; two slashes are a message, and what is unknown is said."""
    lines = "/thread\n//etc\n/thread\n/new\n/thread\n/nope\n/thread a/b\n/new a b\n"
    lines += "/help\n/quit\nnever\n"

    done = await piped(lines, folder=tmp_path)

    assert (done.code, done.out) == (0, "/etc\n")
    said = done.err.splitlines()
    assert said[0] == "thread (begins with the first message)"
    first, new, again = (line.removeprefix("thread ") for line in said[1:4])
    assert first != new
    assert new == again
    assert said[4] == "unknown command /nope; /help lists the commands"
    assert "a/b" in said[5]
    assert said[6] == "/new does not take 'a b'; /help lists the commands"
    assert [line.split()[0] for line in said[7:11]] == ["/help", "/new", "/thread", "/quit"]


async def test_piped_chat_ends_with_the_code_of_its_last_run(
    runs_server: RunsServer, tmp_path: Path
) -> None:
    """A run that failed is reported, and the next message is answered all the same."""
    runs_server.fail(message="No luck.")
    failed = await piped("One\n", "--base-url", runs_server.url, folder=tmp_path)
    runs_server.fail(message="No luck.")
    mended = await piped("One\nTwo\n", "--base-url", runs_server.url, folder=tmp_path)

    assert (failed.code, failed.out) == (4, "")
    assert "failed (server_error): No luck." in failed.err
    assert (mended.code, mended.out) == (0, f"{runs_server.default_reply}\n")


async def test_piped_chat_without_a_server_is_one_sentence(tmp_path: Path) -> None:
    """Exit code 1, and the address."""
    done = await piped("One\n", "--base-url", "http://127.0.0.1:1/v1", folder=tmp_path)

    assert (done.code, done.out) == (1, "")
    assert "http://127.0.0.1:1/v1" in done.err
    assert len(done.err.splitlines()) == 1


async def ask(terminal: Terminal, text: str) -> None:
    """Type a line at the prompt."""
    await terminal.until(PROMPT)
    await terminal.type(text + ENTER)


async def test_interrupt_stops_the_answer_and_not_the_chat(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """Ctrl-C cancels the run; the next message is answered; Ctrl-D ends, and says how to go on."""
    where = ["--base-url", runs_server.url]
    runs_server.hang(text="Once upon")
    async with at_terminal("chat", *where, folder=tmp_path) as terminal:
        await terminal.until(READY)
        await ask(terminal, "first")
        await terminal.until("Once upon")
        await terminal.type(CTRL_C)
        await terminal.until("stopped")
        runs_server.reply("Some **bold** words.")
        await ask(terminal, "second")
        await terminal.until("\x1b[1mbold\x1b[0m words.")
        await terminal.until(PROMPT)
        await terminal.type(CTRL_D)
        await terminal.until("openai-runs chat --thread ")
        code = await terminal.end()

    assert code == 0
    assert "Traceback" not in terminal.shown
    found = THREAD.search(terminal.shown)
    assert found is not None
    runs = [run.status async for run in runs_client.runs.list(found[1], order="asc")]
    assert runs == ["cancelled", "completed"]
    assert [one async for one in runs_client.assistants.list()] == []


async def test_interrupt_is_shown_at_once_where_the_server_does_not_answer(
    runs_server: RunsServer, tmp_path: Path
) -> None:
    """The cancel is given up after a while, and nothing says that it was sent."""
    runs_server.hang(text="Once upon")
    runs_server.hang_connection(method="POST", path="runs/*/cancel")
    async with at_terminal("chat", "--base-url", runs_server.url, folder=tmp_path) as terminal:
        await terminal.until(READY)
        await ask(terminal, "first")
        await terminal.until("Once upon")
        await terminal.type(CTRL_C)
        await terminal.until("stopping")
        await terminal.until("was given up")
        await terminal.until("stopped")
        await terminal.type(CTRL_D)
        await terminal.until("openai-runs chat --thread ")
        code = await terminal.end()

    assert code == 0
    assert "asked to cancel" not in terminal.shown


async def test_interrupt_at_the_prompt_gives_up_the_line(
    runs_server: RunsServer, tmp_path: Path
) -> None:
    """The arrow keys bring back what was asked, also before on a thread that is continued."""
    where = ["--base-url", runs_server.url]
    first = await piped("asked before\n", *where, folder=tmp_path)
    found = THREAD.search(first.err)
    assert found is not None
    async with at_terminal("chat", *where, "--thread", found[1], folder=tmp_path) as terminal:
        await terminal.until(READY)
        await terminal.until(PROMPT)
        await terminal.type("half a line" + CTRL_C)
        await terminal.until(PROMPT)
        await terminal.type(UP)
        await terminal.until("asked before")
        await terminal.type(ENTER)
        await terminal.until(runs_server.default_reply)
        await ask(terminal, "/quit")
        code = await terminal.end()

    bodies = [request.json for request in runs_server.seen("POST", "/threads/*/runs")]
    asked = [body["additional_messages"][0]["content"] for body in bodies]
    assert (code, asked) == (0, ["asked before", "asked before"])


async def test_failure_at_a_terminal_does_not_end_the_chat(
    runs_server: RunsServer, tmp_path: Path
) -> None:
    """Whoever types can try again."""
    async with at_terminal("chat", "--base-url", runs_server.url, folder=tmp_path) as terminal:
        await terminal.until(READY)
        await ask(terminal, "/thread thread_none")
        await terminal.until("thread_none")
        runs_server.fail(message="No luck.")
        await ask(terminal, "first")
        await terminal.until("failed (server_error): No luck.")
        await ask(terminal, "second")
        await terminal.until(runs_server.default_reply)
        await ask(terminal, "/quit")
        code = await terminal.end()

    assert code == 0


async def test_terminal_shows_which_tool_is_called(tmp_path: Path) -> None:
    """The line names it, while it runs."""
    slow = "import time\ndef look_up(order: str) -> str:\n    time.sleep(60)\n    return order\n"
    (tmp_path / "orders.py").write_text(slow)
    async with at_terminal("chat", "--tools", "orders:look_up", folder=tmp_path) as terminal:
        await terminal.until(READY)
        await ask(terminal, "Use the tool look_up for 1042.")
        await terminal.until("calling look_up ")


async def test_answers_alone_are_in_a_file(runs_server: RunsServer, tmp_path: Path) -> None:
    """Whoever types sees the prompt, also where standard output is no terminal."""
    shell = ["bash", "-c", '"$@" > out', "bash", *COMMAND]
    where = ["--base-url", runs_server.url]
    async with at_terminal("chat", *where, folder=tmp_path, command=shell) as terminal:
        await terminal.until(READY)
        await ask(terminal, "first")
        await ask(terminal, "/quit")
        code = await terminal.end()

    assert code == 0
    assert (await anyio.Path(tmp_path / "out").read_text()) == f"{runs_server.default_reply}\n"


@pytest.mark.parametrize("term", ["dumb", "xterm"])
async def test_chat_works_on_poor_terminals(
    term: str, runs_server: RunsServer, tmp_path: Path
) -> None:
    """Without cursor movements the answer is plain."""
    runs_server.reply("Some **bold** words.")
    where = ["--base-url", runs_server.url]
    async with at_terminal("chat", *where, folder=tmp_path, TERM=term) as terminal:
        await terminal.until(READY)
        await ask(terminal, "first")
        await terminal.until("**bold**" if term == "dumb" else "\x1b[1mbold")
        await ask(terminal, "/quit")
        code = await terminal.end()

    assert code == 0


async def test_missing_prompt_toolkit_is_named(tmp_path: Path) -> None:
    """At a terminal it is needed; piped, it is not."""
    script = "import sys; sys.modules['prompt_toolkit'] = None; from openai_runs._cli import main"
    command = [sys.executable, "-c", f"{script}; main()"]
    async with at_terminal("chat", folder=tmp_path, command=command) as terminal:
        await terminal.until("needs the package prompt-toolkit")
        code = await terminal.end()

    assert code == 1
    assert "Traceback" not in terminal.shown


MISTAKES = {
    "thread of nothing": (["--thread", "thread_1"], "--db"),
    "assistant of nothing": (["--assistant", "asst_1"], "--base-url"),
    "bad thread": (["--thread", "a/b", "--db", "c.db"], "a/b"),
    "no module": (["--tools", "nowhere:look_up"], "nowhere"),
    "no function": (["--tools", "json:nothing"], "nothing"),
    "no annotation": (["--tools", "bare:f"], "parameter 'order' has no annotation; write one"),
    "syntax error": (["--tools", "broken:f"], "the module broken cannot be imported: SyntaxError"),
    "import of another": (["--tools", "needy:f"], "ModuleNotFoundError: No module named 'nothere'"),
    "module that exits": (
        ["--tools", "exiting:f"],
        "the module exiting cannot be imported: SystemExit",
    ),
    "two servers": (["--db", "c.db", "--base-url", "http://127.0.0.1:1/v1"], "--db"),
}


MODULES = {
    "bare": "def f(order): return 1\n",
    "broken": "def f(:\n",
    "needy": "import nothere\n",
    "exiting": "raise SystemExit(3)\n",
}
"""Modules of a user's that hold no tool."""


@pytest.mark.parametrize(("options", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_wrong_usage(
    options: list[str], words: str, in_process: InProcess, tmp_path: Path
) -> None:
    """Before anything is started."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)

    done = in_process("chat", *options)

    assert (done.code, done.out) == (2, "")
    assert words in done.err


async def test_model_of_an_echo_server_is_warned_of(tmp_path: Path) -> None:
    """As for `ask`."""
    done = await execute("chat", "--model", "phi4", folder=tmp_path)

    assert (done.code, done.out) == (0, "")
    assert "echo: no model" in done.err
