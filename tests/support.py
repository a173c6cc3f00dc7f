"""What tests of the client stand on: a server that misbehaves on command, and a clock.

The server speaks HTTP/1.1 over a real socket, so that what is tested is the wire itself.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.lowlevel
import msgspec

from openai_runs._client.settings import Runtime

__all__ = [
    "Answer",
    "Drop",
    "Hang",
    "HostileServer",
    "ManualClock",
    "Raw",
    "Received",
    "Reset",
    "SocketServer",
    "Stall",
    "receive",
    "run_json",
    "without_list",
]


class Received(NamedTuple):
    """One request as it came over the wire."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    """Lower-case names."""
    body: bytes

    @property
    def json(self) -> Any:
        """Return the decoded body."""
        return msgspec.json.decode(self.body)


class Answer(NamedTuple):
    """Answer properly."""

    status: int = 200
    json: Any = None
    headers: Mapping[str, str] = {}
    body: bytes | None = None


class Raw(NamedTuple):
    """Write these bytes and close."""

    data: bytes


class Drop(NamedTuple):
    """Close the connection without an answer."""


class Reset(NamedTuple):
    """Reset the connection (RST) without an answer."""


class Hang(NamedTuple):
    """Never answer; the connection stays open until the server ends."""


class Stall(NamedTuple):
    """Write these bytes, and nothing more; the connection stays open."""

    data: bytes


Action = Answer | Raw | Drop | Reset | Hang | Stall
Handler = Callable[[Received], Action | Awaitable[Action]]


def without_list(handler: Handler) -> Handler:
    """Return what does the same, as a model endpoint that does not list its models."""

    def handle(request: Received) -> Action | Awaitable[Action]:
        return Answer(404) if request.method == "GET" else handler(request)

    return handle


class SocketServer(ABC):
    """Listens on the loopback, and has `converse` called for each connection."""

    def __init__(self) -> None:
        """Listen once entered."""
        self.accepted = 0
        """Connections so far."""
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Return the base URL."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/v1"

    async def __aenter__(self) -> Self:
        """Listen on a free port of the loopback."""
        await self.start(0)
        return self

    async def start(self, port: int) -> None:
        """Listen on this port; 0: any free one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=1000)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close everything, hanging connections included."""
        await self.stop()

    async def stop(self) -> None:
        """Be gone for good: nothing listens any more."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.accepted += 1
        try:
            await self.converse(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            self._connections.discard(task)
            writer.close()

    @abstractmethod
    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read and write until the connection is to be closed."""


class HostileServer(SocketServer):
    """Does to each request what `handler` says, and remembers every request."""

    def __init__(self, handler: Handler) -> None:
        """Listen once entered."""
        super().__init__()
        self._handler = handler
        self.requests: list[Received] = []

    def answer_with(self, handler: Handler) -> None:
        """Do from now on what this handler says."""
        self._handler = handler

    def seen(self, method: str, ending: str = "") -> list[Received]:
        """Return the requests of that method whose path ends so."""
        return [one for one in self.requests if one.method == method and one.path.endswith(ending)]

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Do what the handler says until it ends the connection."""
        while await self._one(reader, writer):
            pass

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await receive(reader)
        self.requests.append(request)
        outcome = self._handler(request)
        action = await outcome if inspect.isawaitable(outcome) else outcome
        match action:
            case Answer():
                writer.write(_render(action))
                await writer.drain()
                return True
            case Raw(data):
                writer.write(data)
                await writer.drain()
            case Reset():
                raw: socket.socket = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            case Stall(data):
                writer.write(data)
                await anyio.sleep_forever()
            case Hang():
                await anyio.sleep_forever()
            case Drop():
                pass
        return False


class ManualClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        """Start at an arbitrary moment."""
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Return the seconds so far."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass at once, and others have their turn."""
        self.slept.append(round(seconds, 9))
        self.now += seconds
        await anyio.lowlevel.checkpoint()

    def runtime(self, **changes: Any) -> Runtime:
        """Return runtime that use this clock, without jitter."""
        fixed: dict[str, Any] = {
            "sleep": self.sleep,
            "monotonic": self.monotonic,
            "chance": lambda: 0.0,
        }
        return Runtime(**{**fixed, **changes})


def run_json(status: str = "queued", **changes: Any) -> dict[str, Any]:
    """Return a run as a server sends it."""
    return {
        "id": "run_1",
        "object": "thread.run",
        "created_at": 1_700_000_000,
        "thread_id": "thread_1",
        "assistant_id": "asst_1",
        "status": status,
        "required_action": None,
        "last_error": None,
        "expires_at": None,
        "started_at": None,
        "cancelled_at": None,
        "failed_at": None,
        "completed_at": None,
        "incomplete_details": None,
        "model": "m",
        "instructions": "",
        "tools": [],
        "metadata": {},
        "usage": None,
        "max_prompt_tokens": None,
        "max_completion_tokens": None,
        "truncation_strategy": {"type": "auto", "last_messages": None},
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "response_format": "auto",
        **changes,
    }


async def receive(reader: asyncio.StreamReader) -> Received:
    """Return the next request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {
        name.strip().lower(): value.strip()
        for name, value in (line.split(":", 1) for line in lines)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    return Received(method, parts.path, parse_qs(parts.query), headers, body)


def _render(answer: Answer) -> bytes:
    body = msgspec.json.encode(answer.json) if answer.body is None else answer.body
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    headers.update(answer.headers)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {answer.status} X\r\n{lines}\r\n".encode("latin-1") + body
