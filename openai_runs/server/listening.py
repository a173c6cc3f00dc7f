"""Listening: how connections are accepted, and how many there may be.

Theory of operation. asyncio's own server accepts until descriptors run out, then logs each further
attempt. Here there are never more connections than `max_connections`, which leaves descriptors for
the database and the models. At the bound, a new connection takes the place of the one that has been
without a request for longest, as nginx does it; while all have requests, new ones wait in the
kernel's backlog. Where descriptors run out all the same, since others use them or the limit was
lowered, accepting pauses until a connection ends, for a second at most.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel
from aiohttp import web

from openai_runs.config import (
    MAX_CONCURRENT_RUNS,
    MAX_DESCRIPTORS,
    MAX_SERVER_CONNECTIONS,
    REFUSAL_LOG_INTERVAL,
    SPARE_DESCRIPTORS,
)
from openai_runs.server.http.connection import Connections
from openai_runs.server.log_filter import describe

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Site", "max_connections", "max_model_connections", "raise_descriptor_limit"]

_BACKLOG: Final = 1024
"""Connections that may wait to be accepted; the default of 128 costs a burst of more a second."""
_BATCH: Final = 128
"""Connections accepted between two moments for others."""
_PAUSE: Final = 1.0
"""Seconds without descriptors after which accepting is tried again."""

_logger = logging.getLogger("openai_runs.server")


def max_connections() -> int:
    """Return how many connections this process may have open, by its soft limit of now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_SERVER_CONNECTIONS
    return max(1, min(soft - SPARE_DESCRIPTORS - max_model_connections(), MAX_SERVER_CONNECTIONS))


def max_model_connections() -> int:
    """Return how many runs may be executed, each with a connection to its model, by the same."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONCURRENT_RUNS
    return max(1, min(MAX_CONCURRENT_RUNS, (soft - SPARE_DESCRIPTORS) // 2))


def raise_descriptor_limit() -> None:
    """Raise the soft limit of descriptors of this process towards the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return
    with suppress(ValueError, OSError):  # the system has a bound of its own: the limit stays
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class Site(web.BaseSite):
    """One host and port of a runner, with a bound on its connections.

    Unlike `TCPSite`, a start that is cancelled leaves no socket open.
    """

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        """Keep where to listen; `start` binds it."""
        super().__init__(runner, backlog=_BACKLOG)
        self._host = host
        self._port = port
        self._listeners: list[socket.socket] = []
        self._root: asyncio.Task[None] | None = None
        self._full, self._short = _Rarely(), _Rarely()

    @property
    def name(self) -> str:
        """Return the address that was asked for."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Bind the port and listen; what is bound is closed by `stop`, as by the runner's end."""
        await super().start()
        loop = asyncio.get_running_loop()
        serve = self._runner.server
        assert isinstance(serve, Connections)  # what an `ApiRunner` makes when it is set up
        # It resolves and binds, and never serves: the sockets are accepted from here.
        self._server = await loop.create_server(serve, self._host, self._port, start_serving=False)
        for bound in self._server.sockets:
            listener = socket.fromfd(bound.fileno(), bound.family, bound.type)
            self._listeners.append(listener)
            listener.setblocking(False)
            listener.listen(self._backlog)
        # The one named root task of the site; `stop` awaits it.
        self._root = asyncio.create_task(self._accept_all(serve), name="openai_runs.listener")
        self._root.add_done_callback(_report)
        await anyio.lowlevel.checkpoint()  # a start that was cancelled meanwhile ends here

    async def stop(self) -> None:
        """Accept no more, and give up the port."""
        if self._root is not None:
            self._root.cancel()
            await asyncio.wait([self._root])
        for listener in self._listeners:
            listener.close()
        await super().stop()

    async def _accept_all(self, connections: Connections) -> None:
        async with anyio.create_task_group() as group:
            for listener in self._listeners:
                group.start_soon(self._accept, listener, connections, group)

    async def _accept(
        self, listener: socket.socket, connections: Connections, group: TaskGroup
    ) -> None:
        while True:
            await anyio.wait_readable(listener)
            for number in range(_BATCH):
                if number and connections.count >= max_connections():
                    break  # ask first whether there are more, before an idle one is closed for them
                while connections.count >= (bound := max_connections()):
                    self._full.note(f"{bound} connections are open, as many as there may be")
                    await connections.close_idle()
                try:
                    accepted, _ = listener.accept()
                except (BlockingIOError, ConnectionError):  # no more, or one left while it waited
                    break
                except OSError as error:
                    self._short.note(f"no connection can be accepted now: {describe(error)}")
                    await connections.close_idle(_PAUSE)
                    break
                connections.opening += 1
                group.start_soon(_serve, accepted, connections)


async def _serve(accepted: socket.socket, connections: Connections) -> None:
    accepted.setblocking(False)
    try:
        await asyncio.get_running_loop().connect_accepted_socket(connections, accepted)
    except OSError:  # the client has left
        connections.opening -= 1
        accepted.close()


def _report(root: asyncio.Task[None]) -> None:
    """Log at once that an error ended accepting, and not only when the server is closed."""
    if not root.cancelled() and root.exception() is not None:
        _logger.critical("no more connections are accepted", exc_info=root.exception())


class _Rarely:
    """Logs what happens again and again, at most once in each interval."""

    def __init__(self) -> None:
        self._logged_at: float | None = None

    def note(self, words: str) -> None:
        now, last = monotonic(), self._logged_at
        if last is None or now - last >= REFUSAL_LOG_INTERVAL:
            self._logged_at = now
            _logger.warning("%s; raise the limit of open files (ulimit -n) for more", words)
