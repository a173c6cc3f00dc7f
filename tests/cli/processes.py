"""The command line as a user runs it: a process, its two outputs, its exit code."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import anyio

from openai_runs.testing import RunsServer
from tests.canaries import WATCH
from tests.cli.forking import fork, hear_interrupts, is_forkable

__all__ = [
    "COMMAND",
    "Finished",
    "Serving",
    "clean_env",
    "execute",
    "files_in",
    "finish",
    "launch",
    "pipe",
    "read_until",
    "received",
    "run_on_terminal",
    "serving",
    "start",
]

COMMAND = [sys.executable, "-m", "openai_runs"]
_LISTENING = re.compile(r"listening on (http://\S+:\d+/v1)\n")


class Finished(NamedTuple):
    """What a process left."""

    code: int
    out: str
    err: str


class Serving:
    """A running `openai-runs serve`."""

    def __init__(self, process: asyncio.subprocess.Process, line: str) -> None:
        """Take the process and the line it printed."""
        self.process = process
        self.line = line
        found = _LISTENING.fullmatch(line)
        assert found is not None, line
        self.url = found.group(1)

    async def says(self, words: str) -> str:
        """Return the next line of standard error that holds `words`."""
        assert self.process.stderr is not None
        while words not in (line := (await self.process.stderr.readline()).decode()):
            assert line, f"ended without saying {words!r}"
        return line

    async def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def end(self, number: int) -> Finished:
        """Send a signal and return what the process left from here on."""
        self.process.send_signal(number)
        return await finish(self.process)


def clean_env(**more: str) -> dict[str, str]:
    """Return this process's environment without wishes for colour, and with `more`."""
    wishes = {"FORCE_COLOR", "NO_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
    return {name: value for name, value in os.environ.items() if name not in wishes} | more


async def launch(*arguments: str, folder: Path, **env: str) -> asyncio.subprocess.Process:
    """Start the command in `folder`, with nothing to read."""
    return await start(arguments, folder, env)


async def start(
    arguments: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    *,
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int = asyncio.subprocess.PIPE,
    fresh: bool = False,
) -> asyncio.subprocess.Process:
    """Start the command in `folder`, on these ends of standard input and output.

    Args:
        arguments: Those of the command.
        folder: Where it runs.
        env: Variables that this process has not.
        stdin: Standard input.
        stdout: Standard output.
        fresh: Whether the interpreter is started too; a fork has the modules imported already.
    """
    environ = clean_env(**env)
    if not fresh and is_forkable(environ):
        return await fork(arguments, folder, environ, stdin, stdout)
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        cwd=folder,
        env=environ,
        stdin=stdin,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=hear_interrupts,
    )


async def execute(*arguments: str, folder: Path, **env: str) -> Finished:
    """Return what the command leaves when it ends by itself."""
    return await finish(await launch(*arguments, folder=folder, **env))


async def pipe(text: str, *arguments: str, folder: Path) -> Finished:
    """Return what the command leaves that finds `text` on its standard input."""
    process = await start(arguments, folder, {}, stdin=asyncio.subprocess.PIPE)
    return await finish(process, text.encode())


async def read_until(words: str, stream: asyncio.StreamReader | None) -> str:
    """Return what comes on `stream` up to and with `words`."""
    assert stream is not None
    return (await stream.readuntil(words.encode())).decode()


async def received(server: RunsServer, method: str, path: str, *, times: int = 1) -> None:
    """Return once the server has received such requests, from whichever process."""
    while len(server.seen(method, path)) < times:  # noqa: ASYNC110 - nobody announces a request
        await anyio.sleep(0.01)


def run_on_terminal(*arguments: str, folder: Path, **env: str) -> tuple[str, int]:
    """Return what the command shows on a terminal, and its exit code."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=clean_env(TERM="xterm", **env),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        pieces = []
        try:
            while piece := os.read(ours, 65536):
                pieces.append(piece)
        except OSError:
            pass  # Linux's way to say that the other end is closed
        finally:
            os.close(ours)
    return b"".join(pieces).decode(), process.returncode


def files_in(folder: Path) -> list[str]:
    """Return the names of what lies in `folder`."""
    return sorted(path.name for path in folder.iterdir())


@asynccontextmanager
async def serving(*arguments: str, folder: Path, **env: str) -> AsyncIterator[Serving]:
    """Run `openai-runs serve` on a free port; kill it at the end if it is still there."""
    process = await launch("serve", "--port", "0", *arguments, folder=folder, **env)
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        assert line, (await finish(process)).err
        yield Serving(process, line)
    finally:
        if process.returncode is None:
            process.kill()
            await finish(process)


async def finish(process: asyncio.subprocess.Process, piped: bytes | None = None) -> Finished:
    """Return what the process leaves from here on, when it has ended."""
    out, err = await process.communicate(piped)
    assert process.returncode is not None
    finished = Finished(process.returncode, (out or b"").decode(), err.decode())
    WATCH.search("standard output", finished.out, "key")  # it may show what was asked
    WATCH.search("standard error", finished.err)
    return finished
