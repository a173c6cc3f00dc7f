"""The processes of the sweep: servers and workers as anybody starts them, by the command line."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import psycopg

__all__ = ["Process"]

_PATIENCE: Final = 120.0
"""Seconds a start or an end may take on a busy machine."""


class Process:
    """One of the processes, started again and again."""

    def __init__(self, name: str, arguments: list[str], log: Path, *, executes: bool) -> None:
        """Keep how it is started; it says what it has to say in the file `log`."""
        self.name = name
        self.executes = executes
        self._arguments = arguments
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self.ended_at = 0.0
        self.busy = False
        """Whether something is being done to it."""

    @property
    def pid(self) -> int:
        """Return its number, also once it has ended."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Return whether it has been started, and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it, and return once it says that it is at work.

        Raises:
            RuntimeError: It has ended.
        """
        environ = {name: value for name, value in os.environ.items() if "OPENAI" not in name}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "openai_runs", *self._arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environ,
                start_new_session=True,  # Ctrl-C is for the sweep, which ends them all
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(_PATIENCE):
            line = await self._process.stdout.readline()
        if not line:
            message = f"{self.name} does not start: see {self._log}"
            raise RuntimeError(message)

    def errors(self) -> list[str]:
        """Return what it has logged as errors of ours."""
        lines = self._log.read_text(errors="replace").splitlines()
        wanted = (" ERROR ", " CRITICAL ", "Error: ")
        return [
            f"{self.name}: {line[:200]}"
            for line in lines
            if any(word in line for word in wanted) and "ERROR procrastinate" not in line
        ]

    async def kill(self) -> None:
        """End it at once.

        Raises:
            RuntimeError: It has ended before, and nobody asked it to.
        """
        assert self._process is not None
        if not self.runs:
            message = f"{self.name} ended by itself, with {self._process.returncode}"
            raise RuntimeError(message)
        self._process.kill()
        self.ended_at = time.monotonic()
        await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    async def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        assert self._process is not None
        if self.runs:
            self._process.terminate()
        async with asyncio.timeout(_PATIENCE):
            return await self._process.wait()

    async def clear(self) -> None:
        """End it, whatever it is doing."""
        if self._process is not None and self.runs:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def executing(
        self, connection: psycopg.AsyncConnection[tuple[str, int]]
    ) -> dict[str, int]:
        """Return the epochs of the runs that this process executes, by their ids."""
        cursor = await connection.execute(
            "SELECT id, epoch FROM runs WHERE status = 'in_progress' AND worker LIKE %s",
            (f"%-{self.pid}-%",),
        )
        return dict(await cursor.fetchall())
