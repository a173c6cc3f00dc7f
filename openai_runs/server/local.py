"""A server on a port of this machine, to be opened and closed by hand or with `async with`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Unpack

import anyio

from openai_runs._protocol.hosts import is_loopback
from openai_runs.config import DRAIN_GRACE, KEEPALIVE_TIMEOUT
from openai_runs.errors import ConfigError
from openai_runs.server.backends.base import Backend
from openai_runs.server.backends.echo import EchoBackend
from openai_runs.server.http.app import ENGINE, PREFIX, SETTINGS, STORE, AppOptions, create_app
from openai_runs.server.http.connection import ApiRunner
from openai_runs.server.listening import Site

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.typedefs import Middleware

__all__ = ["LocalServer"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SHUTDOWN: Final = 5.0
"""Seconds that requests under way are given when the server closes."""


class LocalServer:
    """The server, bound to a port, with its own database and its own runs at work.

    Args:
        db: The SQLite file; None: a temporary one, removed on close.
        backend: Where answers come from; None: `EchoBackend()`.
        port: 0: any free one.
        host: Another address than loopback needs an `api_key`.
        api_key: What clients must send; None lets everybody in who names a loopback address:
            requests with another `Host` or `Origin`, as web pages of others send, are a 403.
        middlewares: aiohttp middlewares of your own, called for each request.
        keepalive_timeout: Seconds a connection may be idle, or take to send its headers.
        options: What else `create_app` takes.

    It may be opened in one task and closed in another. Closing puts runs that are under
    way back into the queue; `drain` gives them time first.
    """

    def __init__(
        self,
        db: str | Path | None = None,
        backend: Backend | None = None,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        api_key: str | None = None,
        middlewares: Iterable[Middleware] = (),
        keepalive_timeout: float = KEEPALIVE_TIMEOUT,
        **options: Unpack[AppOptions],
    ) -> None:
        """Keep the settings; `start` opens the server.

        Raises:
            ConfigError: The address can be reached from outside, and there is no key.
        """
        if not is_loopback(host) and not api_key:
            message = (
                f"host={host!r} can be reached from other machines, so the server needs an "
                "api_key; bind to 127.0.0.1 to do without"
            )
            raise ConfigError(message)
        self.backend: Backend = backend if backend is not None else EchoBackend()
        self._host = host.removeprefix("[").removesuffix("]")
        self._port = port
        self._keepalive_timeout = keepalive_timeout
        options.setdefault("drain_grace", 0.0)
        self._app = create_app(
            db,
            backend=self.backend,
            api_key=api_key,
            loopback_only=not api_key,
            middlewares=middlewares,
            **options,
        )
        self._runner: ApiRunner | None = None
        self._url: str | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<LocalServer at {self._url or 'no address: not started; use `async with`'}>"

    @property
    def url(self) -> str:
        """Return the base URL for clients, such as `http://127.0.0.1:8080/v1`.

        Raises:
            RuntimeError: The server is not open.
        """
        if self._url is None:
            message = "the server is not open: call start() or use `async with`"
            raise RuntimeError(message)
        return self._url

    @property
    def path(self) -> Path:
        """Return the database file.

        Raises:
            RuntimeError: The server was never open.
        """
        path = self._app[STORE].path if STORE in self._app else None
        if path is None:
            message = "the server is not open: call start() or use `async with`"
            if STORE in self._app:
                message = "the server's database is no file"
            raise RuntimeError(message)
        return path

    async def start(self) -> None:
        """Open the database, resume its unfinished runs, bind the port.

        Raises:
            ConfigError: The database cannot be used, or another server has it.
            OSError: The port is taken.
            RuntimeError: The server was opened before; make a new one.

        Cancellation: closes what was opened.
        """
        if self._runner is not None:
            message = "a server can be opened only once; make a new LocalServer"
            raise RuntimeError(message)
        self._runner = ApiRunner(
            self._app,
            now=self._app[SETTINGS].clock.now,
            handle_signals=False,
            keepalive_timeout=self._keepalive_timeout,
            handler_cancellation=True,  # a held request ends with its client
            shutdown_timeout=_SHUTDOWN,
        )
        try:
            await self._runner.setup()
            await Site(self._runner, self._host, self._port).start()
            self._url = self._bound_url(self._runner)
            self._app[STORE].publish(_address_here(self._runner))
        except BaseException:
            await self.aclose()
            raise

    def _bound_url(self, runner: web.AppRunner) -> str:
        port = runner.addresses[0][1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}{PREFIX}"

    async def drain(self, grace: float = DRAIN_GRACE) -> None:
        """Begin no more runs, let those under way finish for `grace` seconds, put back the rest.

        Requests are still answered; new runs wait in the queue for the next server.

        Args:
            grace: Seconds.

        Cancellation: no more runs begin; those under way go on until the server is closed.
        """
        if ENGINE in self._app:
            await self._app[ENGINE].drain(grace)

    async def serve_until_signal(self, grace: float = DRAIN_GRACE) -> None:
        """Serve until SIGTERM, SIGHUP or Ctrl-C, let running work finish, and close the server.

        As `openai-runs serve` does: a second signal ends running work at once, and what is not
        finished goes on at the next start. SIGHUP stays ignored where it is, as `nohup` asks for.
        For the main thread of a program, the only one that signals reach; meanwhile they reach
        nothing else.

        Args:
            grace: Seconds that running work is given.

        Raises:
            RuntimeError: The server is not open, or this is not the main thread.

        Cancellation: ends it at once; `async with`, or `aclose`, closes the server.
        """
        _ = self.url  # raises where there is none
        stopping, draining = anyio.Event(), anyio.CancelScope()

        def receive() -> None:
            if stopping.is_set():
                draining.cancel()
            stopping.set()

        with _receiving(receive):
            await stopping.wait()
            with draining:
                await self.drain(grace)
            await self.aclose()

    async def aclose(self) -> None:
        """Answer what is held, stop, and close the database; calling it twice is fine.

        Cancellation: by a scope of anyio's, waits until everything is closed.
        """
        self._url = None
        if self._runner is not None and not self._closed:
            self._closed = True
            # Shielded: a caller whose time is up must not leave the file locked behind it.
            with anyio.CancelScope(shield=True):
                await self._runner.cleanup()

    async def __aenter__(self) -> LocalServer:
        """Open the server."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the server."""
        await self.aclose()


@contextmanager
def _receiving(receive: Callable[[], None]) -> Iterator[None]:
    """Call `receive` for each signal that ends a program, and then let it end that as before."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]
    try:
        for number in before:
            loop.add_signal_handler(number, receive)
        yield
    finally:
        for number, handler in before.items():
            if loop.remove_signal_handler(number):
                signal.signal(number, handler)


def _address_here(runner: web.AppRunner) -> str:
    """Return the URL for other processes of this machine: an address, not a name."""
    host, port = runner.addresses[0][:2]
    address = ip_address(host.partition("%")[0])
    if address.is_unspecified:  # bound to all addresses, so to loopback too
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://{f'[{address}]' if address.version == 6 else address}:{port}{PREFIX}"
