"""The server inside this process: started once, by the first request that needs it.

The only module of the client that imports the server, inside of functions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import anyio

from openai_runs._extras import needs
from openai_runs._protocol.hosts import is_database_url
from openai_runs.errors import ConfigError

__all__ = ["Embedded", "Server", "check_path", "find_server", "make_server"]


class Server(Protocol):
    """The part of `openai_runs.server.LocalServer` used here, which is not imported for it."""

    @property
    def url(self) -> str:
        """Return the base URL, ending in `/v1`."""
        ...

    async def start(self) -> object:
        """Open the file and listen."""
        ...

    async def aclose(self) -> None:
        """Stop listening and close the file."""
        ...


class Embedded:
    """Starts a server on first use, or finds the one that already serves the file."""

    def __init__(self, make: Callable[[], Server], find: Callable[[], str | None]) -> None:
        """Keep how to make a server, and how to find the URL of one in another process."""
        self._make = make
        self._find = find
        self._server: Server | None = None
        self._lock: anyio.Lock | None = None
        self._closed = False

    async def start(self) -> str:
        """Return the URL of the running server.

        Raises:
            ConfigError: The server's packages are not installed, or its file cannot be used.

        Cancellation: a server that was being started is closed again.
        """
        async with self._locked():
            if self._closed:
                msg = "this client is closed; make a new one"
                raise ConfigError(msg)
            if self._server is not None:
                return self._server.url
            found = await anyio.to_thread.run_sync(self._find)
            return found or await self._serve()

    async def _serve(self) -> str:
        # In a worker thread, as the import of SQLAlchemy takes a good while.
        server = await anyio.to_thread.run_sync(self._make)
        try:
            await server.start()
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await server.aclose()
            if isinstance(error, ConfigError):  # another process may just have been faster
                found = await anyio.to_thread.run_sync(self._find)
                if found is not None:
                    return found
            raise
        self._server = server
        return server.url

    async def stop(self) -> None:
        """End the server, if this process runs it, also one that is just being started."""
        self._closed = True
        with anyio.CancelScope(shield=True):  # starting is bounded: it waits for no network
            async with self._locked():
                server, self._server = self._server, None
        if server is not None:
            await server.aclose()

    def _locked(self) -> anyio.Lock:
        if self._lock is None:
            self._lock = anyio.Lock()
        return self._lock


def check_path(path: str | Path | None) -> None:
    """Refuse the URL of a database: its runs are not this client's alone.

    Raises:
        ConfigError: It is one.
    """
    if is_database_url(path):
        message = (
            "AsyncClient.local() is for a file, which one server has alone; a server on a "
            "PostgreSQL database executes the runs of all its clients: start `openai-runs serve "
            "--db postgresql://...`, or a LocalServer with that URL, and give AsyncClient its "
            "address"
        )
        raise ConfigError(message)


def make_server(
    path: str | Path | None,
    *,
    model_url: str | None,
    model_key: str | None,
    backend: Any,
    tracing: Any = None,
) -> Server:
    """Return a server that has not been started; blocks for as long as its import takes.

    Raises:
        ConfigError: The server's packages are not installed, or `model_url` is none.
    """
    try:  # imported here and in find_server only, so that the extra stays optional
        from openai_runs.server import ChatBackend, LocalServer
    except ImportError as error:
        raise _no_server(error) from error
    if backend is None and model_url is not None:
        backend = ChatBackend(model_url, api_key=model_key)
    return LocalServer(path, backend=backend, tracing=tracing)


def find_server(path: str | Path | None) -> str | None:
    """Return the URL of a server that serves the file already; blocks while one is starting.

    Raises:
        ConfigError: The server's packages are not installed.
    """
    if path is None:
        return None
    try:
        from openai_runs.server import serving_url
    except ImportError as error:
        raise _no_server(error) from error
    return serving_url(path)


def _no_server(error: ImportError) -> ConfigError:
    return ConfigError(needs("the embedded server", error))
