"""Servers in processes of their own, that can be killed."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio

from tests.databases import Db
from tests.server.support import Caller

__all__ = ["Doomed", "doomed"]

ROOT = Path(__file__).resolve().parents[2]


class Doomed:
    """A server in a process of its own, that can be killed."""

    def __init__(self, process: asyncio.subprocess.Process, caller: Caller) -> None:
        self.process = process
        self.caller = caller

    async def kill(self, how: signal.Signals = signal.SIGKILL) -> int:
        """End the process and return its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(how)
        with anyio.fail_after(20):
            return await self.process.wait()


@asynccontextmanager
async def doomed(
    db: Db, slots: int = 64, looks: int = 0, held: Path | None = None
) -> AsyncIterator[Doomed]:
    """Start the server of `killed_server.py` on a database; `held` holds up some of its runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.server.killed_server",
        str(db),
        str(slots),
        str(looks),
        "0",
        str(held or ""),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with aiohttp.ClientSession() as session:
        server = Doomed(
            process, Caller(session, (await process.stdout.readline()).decode().strip())
        )
        try:
            yield server
        finally:
            await server.kill()
