"""A server in a thread of its own, which can be stopped and started again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Event, RLock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakSet

import anyio
from anyio import CancelScope, to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

if TYPE_CHECKING:
    from asyncio import Transport

__all__ = ["HostedServer"]


class HostedServer:
    """Makes a `LocalServer` of the same settings at each start, in one thread.

    All methods block: from an event loop they are called through a worker thread.

    Args:
        db: The SQLite file; None: a temporary one, removed on close.
        port: 0: any free one, kept from the first start on.
        settings: Returns what else `LocalServer` takes; called on opening.
    """

    def __init__(
        self, db: str | Path | None, port: int, settings: Callable[[], dict[str, Any]]
    ) -> None:
        self.connections: WeakSet[Transport] = WeakSet()
        """Those that `stop` is to cut."""
        self.url = ""
        """Empty while closed; kept while stopped."""
        self._db = db
        self._port = port
        self._make_settings = settings
        self._settings: dict[str, Any] = {}
        self._lock = RLock()  # a start whose caller was cancelled goes on in its worker thread
        self._opened = ExitStack()
        self._serving: ExitStack | None = None
        self._portal: BlockingPortal | None = None
        self._stopping: anyio.Event | None = None

    async def stopping(self) -> None:
        """Return when the server stops; to be awaited in the server's own loop."""
        if self._stopping is not None:
            await self._stopping.wait()

    async def aopen(self) -> None:
        """Open without blocking the event loop.

        Cancellation: leaves it closed.
        """
        unwanted = Event()
        try:
            await to_thread.run_sync(self.open, unwanted)
        except anyio.get_cancelled_exc_class():
            # The worker thread may be opening it still, or be about to.
            unwanted.set()
            await self.aclose()
            raise

    def open(self, unwanted: Event | None = None) -> None:
        """Start the thread and, in it, the server, unless that is `unwanted` by now."""
        with self._lock, ExitStack() as opened:
            if unwanted is not None and unwanted.is_set():
                return
            if self._portal is not None:
                message = "the server is open already"
                raise RuntimeError(message)
            settings = self._make_settings()
            portal = opened.enter_context(start_blocking_portal("asyncio"))
            opened.callback(self._forget)
            self._portal = portal
            file = self._db
            if file is None:
                folder = portal.call(_make_folder)
                opened.callback(portal.call, _remove, folder)
                file = Path(folder, "runs.db")
            self._settings = {**settings, "db": file, "port": self._port}
            self.start()
            opened.callback(self.stop, drop=False)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """End the server and its thread, once an opening under way is through."""
        with self._lock:
            self._opened.close()

    async def aclose(self) -> None:
        """Close without blocking the event loop.

        Cancellation: by a scope of anyio's, waits until everything is closed.
        """
        with CancelScope(shield=True):
            await to_thread.run_sync(self.close)

    def start(self) -> None:
        """Serve again.

        Raises:
            OSError: Another program has taken the port.
            RuntimeError: It is not open, or not stopped.
        """
        from openai_runs.server import LocalServer

        with self._lock, ExitStack() as opened:
            if self._portal is None or self._serving is not None:
                message = "only a server that was opened and then stopped can be started"
                raise RuntimeError(message)
            server = LocalServer(**self._settings)
            opened.enter_context(self._portal.wrap_async_context_manager(server))
            self._stopping = self._portal.call(anyio.Event)
            opened.callback(self._portal.call, self._stopping.set)
            self.url = server.url
            self._settings["port"] = urlsplit(server.url).port
            self._serving = opened.pop_all()

    def stop(self, *, drop: bool) -> None:
        """Stop serving, if it does; `drop`: cut the connections first."""
        with self._lock:
            serving, self._serving = self._serving, None
            if serving is None:
                return
            if drop and self._portal is not None:
                self._portal.call(self._disconnect)
            serving.close()

    def _disconnect(self) -> None:
        for connection in list(self.connections):
            connection.abort()

    def _forget(self) -> None:
        self.url = ""
        self._portal = None


# In worker threads: the caller may have an event loop of its own, which files would block.
async def _make_folder() -> str:
    return await to_thread.run_sync(tempfile.mkdtemp, None, "openai-runs-")


async def _remove(folder: str) -> None:
    await to_thread.run_sync(shutil.rmtree, folder)
