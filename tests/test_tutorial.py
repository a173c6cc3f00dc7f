"""The tutorial's bot at a terminal, as somebody uses it who reads the page."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pytest

# Not left to `AsyncClient.local()`: its first import reads files, which is not for the event loop.
import openai_runs.server  # noqa: F401
from openai_runs import AsyncClient
from tests.test_docs import PAGES_FOLDER, ROOT, blocks_of

LAUNCHER: Final = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"  # so that Ctrl-C is a signal
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
CTRL_C: Final = b"\x03"
UNSET: Final = ("MODEL", "MODEL_KEY", "MODEL_URL")


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, program: Path, **variables: str) -> None:
        """Start it in its folder."""
        kept = {name: value for name, value in os.environ.items() if name not in UNSET}
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(program)],
            cwd=program.parent,
            env={**kept, "PYTHONPATH": str(ROOT), **variables},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._master)

    def wait_for(self, text: str, times: int = 1) -> None:
        """Read until the text has been shown so many times; pytest's timeout bounds it."""
        while self.shown.count(text) < times:
            self.shown += os.read(self._master, 1000).decode()

    def type(self, keys: bytes) -> None:
        """Press these keys."""
        os.write(self._master, keys)

    def ended(self) -> int:
        """Read to the end, and return the exit code."""
        for piece in self._rest():
            self.shown += piece
        return self._process.wait()

    def _rest(self) -> Iterator[str]:
        while True:
            try:
                yield os.read(self._master, 1000).decode()
            except OSError:  # the program has closed its end
                return


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    """The bot, saved as the page says."""
    page = PAGES_FOLDER / "tutorial.md"
    (block,) = (one for one in blocks_of(page) if one.file == "bot.py")
    path = tmp_path / block.file
    path.write_text(block.source)
    return path


def test_ctrl_c_at_the_prompt_ends_the_bot(bot: Path) -> None:
    """At the first one, without a traceback, and also before anything was typed."""
    for lines in (0, 1):
        with Terminal(bot) as terminal:
            terminal.wait_for("> ")
            for _ in range(lines):
                terminal.type(b"Hello!\n")
                terminal.wait_for("> ", times=2)
            terminal.type(CTRL_C)

            assert terminal.ended() == 0
            assert "Traceback" not in terminal.shown
            assert terminal.shown.replace("\r", "").count("\nHello!\n") == lines


def test_empty_line_and_end_of_input_end_the_bot(bot: Path) -> None:
    """As the page says."""
    for keys in (b"\n", b"\x04"):
        with Terminal(bot) as terminal:
            terminal.wait_for("> ")
            terminal.type(keys)

            assert terminal.ended() == 0
            assert "Traceback" not in terminal.shown


async def test_bot_that_has_a_model_now_does_not_keep_the_echo(bot: Path) -> None:
    """Its assistant was made for the echo by the first start; the conversation goes on."""
    variables: list[dict[str, Any]] = [{}, {"MODEL": "phi4"}]
    for one in variables:
        with Terminal(bot, **one) as terminal:
            terminal.wait_for("> ")
            terminal.type(b"\n")
            assert terminal.ended() == 0
    assistant_id, thread_id = (bot.parent / "bot.thread").read_text().split()

    async with AsyncClient.local(bot.parent / "bot.db") as client:
        assistant = await client.assistants.retrieve(assistant_id)
        await client.threads.retrieve(thread_id)

    assert assistant.model == "phi4"


@pytest.fixture
def slow_bot(bot: Path) -> Path:
    """The bot, with a tool that takes a minute."""
    slow = 'print("called", flush=True); await asyncio.sleep(60)\n    return {"Oslo"'
    bot.write_text(bot.read_text().replace('return {"Oslo"', slow))
    return bot


async def test_ctrl_c_while_the_bot_answers_ends_it(slow_bot: Path) -> None:
    """With the run that it was about, which is cancelled."""
    with Terminal(slow_bot) as terminal:
        terminal.wait_for("> ")
        terminal.type(b"Use the tool temperature for Oslo.\n")
        terminal.wait_for("called")
        terminal.type(CTRL_C)

        assert terminal.ended() == 0
        assert "Traceback" not in terminal.shown
    _, thread_id = (slow_bot.parent / "bot.thread").read_text().split()

    async with AsyncClient.local(slow_bot.parent / "bot.db") as client:
        statuses = [run.status async for run in client.runs.list(thread_id)]

    assert statuses == ["cancelled"]
