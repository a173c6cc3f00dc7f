"""A TCP proxy that does to answers what a test plans: faults of the network, at exact bytes."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import anyio
from anyio.abc import Listener, SocketAttribute, SocketStream

from openai_runs.testing.connection import Connection, PassedAnswer, reset
from openai_runs.testing.faults import Fault
from openai_runs.testing.planning import Schedule
from openai_runs.testing.received import ReceivedRequest

__all__ = ["FaultProxy"]

_CONNECTING: Final = 5.0  # seconds to reach the server; on loopback it answers at once


class FaultProxy:
    """A proxy on a free port of the loopback that breaks connections as planned.

    What no plan is for passes untouched, byte by byte. It lives in the event loop it was
    opened in, may be opened in one task and closed in another, and knows nothing of the
    protocol but HTTP/1.1, so any client can be pointed at it and any server stand behind it.

    Example:
        ```python
        async with FaultProxy(runs_server.url) as proxy, AsyncClient(proxy.url) as client:
            proxy.plan(Cut(after=1000))  # the next event stream ends after 1000 bytes
            proxy.plan(Reset(), on="GET /v1/threads")  # so does the next GET, without a body
        ```

    Args:
        upstream_url: The server's base URL, such as `RunsServer.url`; `http` only.

    Raises:
        ValueError: The URL is not one of `http`.
    """

    def __init__(self, upstream_url: str) -> None:
        parts = urlsplit(upstream_url)
        if parts.scheme != "http" or not parts.hostname:
            message = f"{upstream_url!r} is no http:// URL, and the proxy speaks no TLS"
            raise ValueError(message)
        self._upstream = (parts.hostname, parts.port or 80)
        self._prefix = parts.path.rstrip("/")
        self._schedule = Schedule()
        self._port = 0
        self._listener: Listener[SocketStream] | None = None
        self._root: asyncio.Task[None] | None = None
        self.connections = 0
        """How many were opened so far."""
        self.requests: list[ReceivedRequest] = []
        """What clients sent, oldest first, refused ones included; paths are below the base URL."""
        self.answers: list[PassedAnswer] = []
        """What they were sent, oldest first; noted before its first byte is forwarded."""

    def __repr__(self) -> str:
        host, port = self._upstream
        place = f"at port {self._port}" if self._port else "not started; use `async with`"
        return f"<FaultProxy of {host}:{port}: {place}>"

    @property
    def url(self) -> str:
        """Return the base URL for clients, with the server's path.

        Raises:
            RuntimeError: The proxy is not open.
        """
        if self._root is None:
            message = "the proxy is not open: call start() or use `async with`"
            raise RuntimeError(message)
        return f"http://127.0.0.1:{self._port}{self._prefix}"

    @property
    def faults_left(self) -> int:
        """Return how many planned faults have not struck."""
        return self._schedule.left

    def plan(self, *faults: Fault, on: str | None = None) -> None:
        """Have these faults strike one after the other, each the next answer of a kind.

        Plans do not wait for each other; where two are for the same answer, the older one
        strikes.

        Args:
            faults: What to do; `Pass()` lets an answer go by.
            on: Strike the answer to the next request whose head holds this text, in any
                case, such as `"POST /v1/threads"` or `"last-event-id:"`; empty: the next
                request, whatever it is. None: the next answer that is an event stream.
        """
        self._schedule.add(faults, on)

    def seen(self, method: str | None = None, path: str | None = None) -> list[ReceivedRequest]:
        """Return the requests of that kind; see `Which` for `path`.

        Args:
            method: Such as `GET`; None: any.
            path: As in `Which`; None: any.
        """
        return [request for request in self.requests if request.matches(method, path)]

    async def start(self) -> None:
        """Listen.

        Raises:
            RuntimeError: The proxy is open.

        Cancellation: nothing is left open.
        """
        if self._root is not None:
            message = "the proxy is open already"
            raise RuntimeError(message)
        self._listener = listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        self._port = listener.extra(SocketAttribute.local_port)
        # The one root task: the proxy may be closed by another task than opened it.
        self._root = asyncio.create_task(self._serve(listener), name="openai_runs.testing.proxy")

    async def aclose(self) -> None:
        """End all connections and stop listening; calling it twice is fine.

        Raises:
            ExceptionGroup: What reached the proxy was not HTTP/1.1.

        Cancellation: by a scope of anyio's, waits until everything is closed.
        """
        root, self._root = self._root, None
        if root is None or self._listener is None:
            return
        root.cancel()
        with anyio.CancelScope(shield=True):
            # No deadline: a cancelled root closes its sockets and waits for nobody.
            await asyncio.wait([root])
            await self._listener.aclose()  # the root may have been cancelled before it began
        if not root.cancelled():
            root.result()

    async def __aenter__(self) -> Self:
        """Listen."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all connections and stop listening."""
        await self.aclose()

    async def _serve(self, listener: Listener[SocketStream]) -> None:
        async with listener:
            await listener.serve(self._carry)

    async def _carry(self, client: SocketStream) -> None:
        self.connections += 1
        async with client:
            try:
                with anyio.fail_after(_CONNECTING):
                    server = await anyio.connect_tcp(*self._upstream)
            except OSError:
                reset(client)  # nobody is there, so nobody is here
                return
            async with server:
                connection = Connection(
                    client,
                    server,
                    schedule=self._schedule,
                    prefix=self._prefix,
                    requests=self.requests,
                    answers=self.answers,
                )
                await connection.run()
