"""What is said of the commonest mistakes, word by word, at 80 columns.

The texts are in `mistakes.txt`. Ids, ports, times and paths are replaced: they differ each time.
"""

from __future__ import annotations

import re
import signal
import textwrap
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest

from openai_runs import AsyncClient
from openai_runs._cli.terminal.wrapping import wrapped
from openai_runs.server import LocalServer
from openai_runs.testing import RunsServer
from tests.cli.processes import Finished, execute, finish, launch, read_until, received
from tests.e2e.mistaken import KEY, MISTAKES, Scene
from tests.e2e.misused import MISUSES
from tests.e2e.shared import COMMANDS as SHARED
from tests.e2e.shared import place
from tests.transport.wire import free_port

COLUMNS: Final = 80
MAX_LINES: Final = 4
"""Lines that somebody reads at night."""
REPLACED: Final = (
    (r"\b(run|thread|asst|call)_[A-Za-z0-9]{24}\b", r"\1_1"),
    (r"\breq_[0-9a-f]{32}\b", "req_1"),
    (r"(127\.0\.0\.1|localhost|api\.openai\.com):\d+", r"\1:8123"),
    (r"\bport \d{4,5}", "port 8123"),
    (r"record layer failure|packet length too long", "wrong version number"),  # OpenSSL's
    (r"(?<=no proper HTTP: )[^(]+", "... "),  # aiohttp's
    (r"after \d+\.\d s", "after 1.0 s"),
    (r"process id \d+", "process id 1"),
    (r"'[^' ]*/(runs\.db)'", r"'\1'"),
    (r"postgresql://\S*/test_\w+", "postgresql://db.internal/runs"),
    (r"test_nowhere", "runs"),
)
"""Pattern -> what stands for it."""


def read_texts() -> dict[str, str]:
    """Return the texts of `mistakes.txt` by their headings."""
    parts = re.split(r"^# (.+)\n", Path(__file__).with_name("mistakes.txt").read_text(), flags=re.M)
    return dict(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))


TEXTS: Final = read_texts()
IN_PYTHON: Final = MISTAKES | MISUSES


def alike(text: str) -> str:
    """Return a text without what differs each time."""
    for pattern, instead in REPLACED:
        text = re.sub(pattern, instead, text)
    return text


def on_terminal(text: str) -> str:
    """Return what a command says as a terminal shows it."""
    return wrapped(alike(text), COLUMNS).strip()


def at_80_columns(text: str) -> str:
    """Return the text of an error between words."""
    text = alike(text)
    lines = (
        textwrap.fill(line, COLUMNS, break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    )
    return "\n".join(lines)


@pytest.mark.filterwarnings("ignore:.*is not encrypted:UserWarning")
@pytest.mark.parametrize("name", IN_PYTHON)
async def test_mistake_in_python(name: str, tmp_path: Path) -> None:
    """The error says what happened, to which id, the value, and what to do next."""
    async with AsyncExitStack() as stack:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - its text is compared
            await IN_PYTHON[name](Scene(stack, tmp_path))

    said = at_80_columns(f"{type(caught.value).__name__}: {caught.value}")
    assert said == TEXTS[name]
    assert len(said.splitlines()) <= MAX_LINES + (name == "no base url")


COMMANDS: Final[dict[str, list[str]]] = {
    "$ unknown command": ["aks", "Hi"],
    "$ unknown option": ["ask", "Hi", "--bse-url", "URL"],
    "$ nothing to ask": ["ask"],
    "$ base url without scheme": ["ask", "Hi", "--base-url", "127.0.0.1:8123/v1"],
    "$ base url without v1": ["ask", "Hi", "--base-url", "{root}"],
    "$ two places": ["ask", "Hi", "--base-url", "{url}", "--db", "runs.db"],
    "$ thread of nowhere": ["ask", "Hi", "--thread", "thread_1"],
    "$ server down": ["ask", "Hi", "--base-url", "{down}"],
    "$ server down while waiting": [
        "runs", "wait", "run_1", "--thread", "thread_1", "--base-url", "{down}", "--timeout", "1",
    ],
    "$ no key": ["export", "--out", "archive", "--base-url", "{locked}"],
    "$ wrong key": ["runs", "list", "--base-url", "{locked}"],
    "$ variable of the key": ["ask", "Hi", "--base-url", "{url}", "--api-key-env", "NO_SUCH_KEY"],
    "$ model down": ["ask", "Hi", "--model-url", "{down}"],
    "$ model url with too much": ["serve", "--model-url", "{down}/chat/completions"],
    "$ run unknown": ["runs", "show", "run_404", "--thread", "thread_404", "--base-url", "{url}"],
    "$ argument missing": ["runs", "show"],
    "$ run of no thread": ["runs", "show", "run_404", "--base-url", "{url}"],
    "$ thread in place of a run": ["runs", "show", "thread_1", "--db", "runs.db"],
    "$ argument too many": ["ask", "two", "words"],
    "$ server missing": ["runs", "show", "run_1", "--thread", "thread_1"],
    "$ file missing": ["runs", "show", "run_1", "--thread", "thread_1", "--db", "missing.db"],
    "$ port in use": ["serve", "--port", "{port}", "--db", "other.db"],
    "$ open to the network": ["serve", "--host", "0.0.0.0"],
    "$ model for the echo": ["serve", "--model", "phi4"],
    "$ batch without its input": [
        "batch", "run", "in.jsonl", "--out", "out", "--checkpoint", "b.db", "--base-url", "{url}",
    ],
    "$ no folder to import": ["import", "archive", "--db", "runs.db"],
}  # fmt: skip
"""What is typed; in braces, the addresses of servers that are there or not."""


@pytest.mark.parametrize("name", COMMANDS)
async def test_mistake_on_the_command_line(name: str, tmp_path: Path) -> None:
    """One sentence, in the options of the command, and its own help where the usage is wrong."""
    async with RunsServer() as server, LocalServer(api_key=KEY) as locked:
        names = {
            "url": server.url,
            "root": server.url.removesuffix("/v1"),
            "port": server.url.rpartition(":")[2].removesuffix("/v1"),
            "locked": locked.url,
            "down": f"http://127.0.0.1:{free_port()}/v1",
        }
        arguments = [word.format_map(names) for word in COMMANDS[name]]
        env = {"$ no key": {"OPENAI_API_KEY": ""}, "$ wrong key": {"OPENAI_API_KEY": "sk-wrong"}}

        done = await execute(*arguments, folder=tmp_path, **env.get(name, {}))

    assert done.code != 0
    assert on_terminal(done.err) == TEXTS[name]
    if done.code == 2:
        assert done.err.splitlines()[-1].startswith("Try: openai-runs")
        assert arguments[0] in done.err.splitlines()[-1] or name == "$ unknown command"


@pytest.mark.parametrize("name", SHARED)
async def test_mistake_about_a_shared_database(
    name: str, new_postgres_db: str, tmp_path: Path
) -> None:
    """One sentence: the place without its secrets, PostgreSQL's words, and what to do."""
    with place(name, new_postgres_db) as db:
        done = await execute(*SHARED[name], "--db", db, folder=tmp_path)

    assert done.code in {1, 2}
    assert on_terminal(done.err) == TEXTS[name]


INTERRUPTED: Final = {
    "$ Ctrl-C in ask": ["ask", "Hi", "--base-url", "{url}"],
    "$ Ctrl-C in runs wait": [
        "runs", "wait", "{run}", "--thread", "{thread}", "--base-url", "{url}",
    ],
    "$ Ctrl-C in batch run": [
        "batch", "run", "in.jsonl", "--out", "out", "--checkpoint", "b.db", "--base-url", "{url}",
    ],
    "$ Ctrl-C in export": ["export", "--out", "archive", "--base-url", "{url}"],
    "$ Ctrl-C in demo": ["demo"],
    "$ Ctrl-C in serve": ["serve", "--port", "0"],
}  # fmt: skip
REACHED: Final = {
    "$ Ctrl-C in runs wait": ("GET", "/threads/*/runs/*"),
    "$ Ctrl-C in batch run": ("POST", "/threads/*/runs"),
    "$ Ctrl-C in export": ("GET", "/assistants"),
}
"""The request that a command is interrupted in."""


@pytest.mark.parametrize("name", INTERRUPTED)
async def test_interrupted_command(name: str, tmp_path: Path) -> None:
    """Ctrl-C ends each command with 130, without a traceback; what it started is cancelled."""
    async with RunsServer() as server, AsyncClient(server.url, "key") as client:
        for _ in range(3):
            server.hang()
        if name == "$ Ctrl-C in export":
            server.hang_connection(method="GET", path="/assistants")
        assistant = await client.assistants.create(model="any")
        thread = await client.threads.create()
        run = await client.runs.create(thread.id, assistant_id=assistant.id)
        line = '{"custom_id": "a", "url": "/v1/threads/runs", "body": {"assistant_id": "%s"}}\n'
        (tmp_path / "in.jsonl").write_text(line % assistant.id)
        names = {"url": server.url, "run": run.id, "thread": thread.id}
        arguments = [word.format_map(names) for word in INTERRUPTED[name]]
        before = {what: len(server.seen(*what)) for what in REACHED.values()}

        process, said = await launch(*arguments, folder=tmp_path), ""
        if name in REACHED:
            what = REACHED[name]
            await received(server, *what, times=before[what] + 1)
        elif name == "$ Ctrl-C in ask":
            said = await read_until(", thread ", process.stderr)
            said += await read_until("\n", process.stderr)
        else:
            await read_until("http://", process.stdout)
        process.send_signal(signal.SIGINT)
        if name == "$ Ctrl-C in batch run":
            said = await read_until("leaves them\n", process.stderr)
            process.send_signal(signal.SIGINT)
        done: Finished = await finish(process)

    assert done.code == 130
    assert "Traceback" not in done.err
    assert on_terminal(said + done.err) == TEXTS[name]


def test_each_text_is_of_a_mistake() -> None:
    """No text is left of a mistake that nobody makes any more, and there are enough of them."""
    assert set(TEXTS) == {*IN_PYTHON, *COMMANDS, *SHARED, *INTERRUPTED}
    assert len(TEXTS) >= 25
