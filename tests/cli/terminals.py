"""A command at a terminal, typed at and read while it runs."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread

from tests.cli.processes import COMMAND, clean_env

__all__ = ["CTRL_C", "CTRL_D", "Terminal", "at_terminal"]

CTRL_C = "\x03"
CTRL_D = "\x04"
_ROWS, _COLUMNS = 24, 80
_ASKS_FOR_CURSOR = b"\x1b[6n"
_CURSOR = b"\x1b[24;1R"


class Terminal:
    """A pseudo-terminal of 80 columns with a process on it."""

    def __init__(self, fd: int, process: subprocess.Popen[bytes]) -> None:
        """Take our end, and the process at the other one."""
        self._fd = fd
        self._process = process
        self.shown = ""
        """All that came so far, escape codes included."""
        self._read = 0

    async def until(self, words: str) -> str:
        """Return what comes up to and with `words`."""
        while (found := self.shown.find(words, self._read)) < 0:
            assert await self._more(), f"ended without {words!r}: {self.shown[self._read :]!r}"
        begin, self._read = self._read, found + len(words)
        return self.shown[begin : self._read]

    async def type(self, text: str) -> None:
        """Press these keys."""
        await anyio.to_thread.run_sync(os.write, self._fd, text.encode())

    async def end(self) -> int:
        """Return the exit code, once the process has ended."""
        while await self._more():
            pass
        return await anyio.to_thread.run_sync(self._process.wait)

    async def _more(self) -> bool:
        try:
            piece = await anyio.to_thread.run_sync(os.read, self._fd, 65536, abandon_on_cancel=True)
        except OSError:
            return False  # Linux's way to say that the other end is closed
        if _ASKS_FOR_CURSOR in piece:  # as prompt-toolkit does, which waits for the answer
            await anyio.to_thread.run_sync(os.write, self._fd, _CURSOR)
        self.shown += piece.decode(errors="replace")
        return bool(piece)


@asynccontextmanager
async def at_terminal(
    *arguments: str, folder: Path, command: list[str] = COMMAND, **env: str
) -> AsyncIterator[Terminal]:
    """Run the command at a terminal of its own; kill it at the end if it is still there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    process = await asyncio.to_thread(_start, [*command, *arguments], theirs, folder, env)
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        if process.poll() is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(process.wait)
        os.close(ours)


def _start(
    command: list[str], fd: int, folder: Path, env: dict[str, str]
) -> subprocess.Popen[bytes]:
    def control() -> None:  # so that Ctrl-C is a signal
        os.setsid()
        fcntl.ioctl(fd, termios.TIOCSCTTY, 0)

    return subprocess.Popen(
        command,
        cwd=folder,
        env=clean_env(**{"TERM": "xterm-256color", **env}),
        stdin=fd,
        stdout=fd,
        stderr=fd,
        preexec_fn=control,
    )
