"""The command line as a user runs it: a process, its two outputs, its exit code."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "COMMAND",
    "Finished",
    "Serving",
    "clean_env",
    "execute",
    "files_in",
    "launch",
    "serving",
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

    async def says(self, words: str) -> None:
        """Return once a line of standard error holds `words`."""
        assert self.process.stderr is not None
        while words not in (line := (await self.process.stderr.readline()).decode()):
            assert line, f"ended without saying {words!r}"

    async def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def end(self, number: int) -> Finished:
        """Send a signal and return what the process left from here on."""
        self.process.send_signal(number)
        return await _finish(self.process)


def clean_env(**more: str) -> dict[str, str]:
    """Return this process's environment without wishes for colour, and with `more`."""
    wishes = {"FORCE_COLOR", "NO_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
    return {name: value for name, value in os.environ.items() if name not in wishes} | more


async def launch(*arguments: str, folder: Path, **env: str) -> asyncio.subprocess.Process:
    """Start the command in `folder`."""
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        cwd=folder,
        env=clean_env(**env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=_hear_interrupts,
    )


def _hear_interrupts() -> None:
    # A shell starts its background jobs, and so perhaps pytest, with Ctrl-C ignored for good.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def execute(*arguments: str, folder: Path, **env: str) -> Finished:
    """Return what the command leaves when it ends by itself."""
    return await _finish(await launch(*arguments, folder=folder, **env))


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
        assert line, (await _finish(process)).err
        yield Serving(process, line)
    finally:
        if process.returncode is None:
            process.kill()
            await _finish(process)


async def _finish(process: asyncio.subprocess.Process) -> Finished:
    out, err = await process.communicate()
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())
