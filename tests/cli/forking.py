"""Processes of the command line that need not import it: they are forked from one that has.

Imports are most of what a command costs. So each pytest process starts a fork server at first
use, `tests.cli.fork_server`. For each command it forks a process, which gets its own arguments,
folder, environment, standard streams and coverage, and then does what `python -m openai_runs`
does, to the end of the interpreter.

The server ends when nobody holds the other end of its socket: so also when pytest is killed.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cli.fork_server import INT

__all__ = ["Forked", "fork", "hear_interrupts", "is_forkable"]

_READ_AT_START = ("LANG", "LC_", "PYTHON")
"""What the variables begin with that an interpreter reads once, when it starts."""
_ENVIRON = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}


class Forked(asyncio.subprocess.Process):
    """A process as asyncio has it, but of a parent that is not this process."""

    def __init__(self, streams: Sequence[asyncio.StreamReader | None]) -> None:
        """Take what the process prints on."""
        self.stdin = None
        self.stdout, self.stderr = streams
        self._code: int | None = None

    async def begin(self, status: socket.socket, stdin: socket.socket | None) -> None:
        """Return when the process is there."""
        reports, *writers = await asyncio.open_connection(sock=status)
        if stdin is not None:
            self._unread, self.stdin = await asyncio.open_connection(sock=stdin)
            writers.append(self.stdin)
        (self.pid,) = INT.unpack(await reports.readexactly(INT.size))
        self._end = asyncio.create_task(self._until_ended(reports, writers))

    async def _until_ended(
        self, reports: asyncio.StreamReader, writers: Sequence[asyncio.StreamWriter]
    ) -> None:
        try:
            (self._code,) = INT.unpack(await reports.readexactly(INT.size))
        finally:
            for writer in writers:
                writer.close()

    @property
    def returncode(self) -> int | None:
        """The exit code, or the number of the signal below zero; None before the end."""
        return self._code

    async def wait(self) -> int:
        """Return the exit code when the process has ended."""
        await asyncio.shield(self._end)
        assert self._code is not None
        return self._code

    def send_signal(self, signal: int) -> None:
        """Send a signal to a process that has not ended."""
        if self._code is None:
            os.kill(self.pid, signal)

    def terminate(self) -> None:
        """Ask the process to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process by force."""
        self.send_signal(signal.SIGKILL)

    async def communicate(
        self, input: bytes | bytearray | memoryview | None = None
    ) -> tuple[bytes, bytes]:
        """Write `input`; return what is printed from here on."""
        if self.stdin is not None and input is not None:
            self.stdin.write(input)
            self.stdin.close()
        outputs = [one.read() for one in (self.stdout, self.stderr) if one is not None]
        *out, err = await asyncio.gather(*outputs)
        await self.wait()
        return b"".join(out), err


def hear_interrupts() -> None:
    """Undo what a shell does to jobs in the background, and so perhaps to pytest, and `nohup`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def is_forkable(env: Mapping[str, str]) -> bool:
    """Return whether an interpreter that starts with `env` starts as the server did."""
    return _read_at_start(env) == _read_at_start(_ENVIRON)


def _read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_READ_AT_START)}


async def fork(
    arguments: Sequence[str], folder: Path, env: Mapping[str, str], stdin: int, stdout: int
) -> Forked:
    """Start the command; `stdin` and `stdout` are what asyncio takes for them."""
    status, its_status = socket.socketpair()
    ends = [its_status.detach()]
    writing = None
    if stdin == PIPE:
        writing, its_stdin = socket.socketpair()
        ends.append(its_stdin.detach())
    else:
        ends.append(os.open(os.devnull, os.O_RDONLY))
    streams: list[asyncio.StreamReader | None] = []
    for given in (stdout, PIPE):
        if given == PIPE:
            reading, end = os.pipe()
            streams.append(await _stream(reading))
        else:
            streams.append(None)
            end = os.dup(given)
        ends.append(end)
    status.sendall(json.dumps([arguments, str(folder), dict(env)]).encode() + b"\n")
    socket.send_fds(_server(), [b"."], ends)
    for end in ends:
        os.close(end)
    forked = Forked(streams)
    await forked.begin(status, writing)
    return forked


async def _stream(fd: int) -> asyncio.StreamReader:
    stream = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(fd, "rb", buffering=0)
    )
    return stream


@functools.cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.fork_server"],
            cwd=Path(__file__).resolve().parents[2],
            env=_ENVIRON,
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            preexec_fn=hear_interrupts,
        )
    atexit.register(process.wait)
    atexit.register(ours.close)  # called before
    return ours
