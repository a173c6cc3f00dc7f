"""One connection through the proxy: requests one way, answers and their faults the other."""

from __future__ import annotations

import math
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

import anyio
import msgspec
from anyio import BrokenResourceError, CancelScope, EndOfStream, IncompleteRead
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from openai_runs.testing.faults import Cut, Delay, End, Fault, Refuse, Reset, Stall, Trickle
from openai_runs.testing.http_messages import Body, Piece, read_head
from openai_runs.testing.planning import Schedule
from openai_runs.testing.received import ReceivedRequest, decoded, without_credentials

__all__ = ["Connection", "PassedAnswer", "reset"]

_LAST_CHUNK: Final = b"0\r\n\r\n"
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class PassedAnswer(msgspec.Struct, kw_only=True):
    """An answer on its way through the proxy, as the client gets it."""

    request: ReceivedRequest
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    fault: Fault | None
    """What was planned for it."""
    complete: bool = False
    """Whether it was forwarded to its end."""
    _body: bytearray

    @property
    def body(self) -> bytes:
        """Return what was forwarded so far, without chunk sizes."""
        return bytes(self._body)


class _Expected(NamedTuple):
    """A request whose answer is to come."""

    request: ReceivedRequest
    fault: Fault | None


class Connection:
    """A client's connection, and the one to the server that belongs to it alone.

    Args:
        client: Where requests come from.
        server: Where they go.
        schedule: The faults.
        prefix: The path of the base URL; requests are noted without it.
        requests: Where requests are noted.
        answers: Where answers are noted.
    """

    def __init__(
        self,
        client: SocketStream,
        server: SocketStream,
        *,
        schedule: Schedule,
        prefix: str,
        requests: list[ReceivedRequest],
        answers: list[PassedAnswer],
    ) -> None:
        self._client = client
        self._server = server
        self._from_client = BufferedByteReceiveStream(client)
        self._from_server = BufferedByteReceiveStream(server)
        self._schedule = schedule
        self._prefix = prefix
        self._requests = requests
        self._answers = answers
        self._expected: deque[_Expected] = deque()

    async def run(self) -> None:
        """Carry messages both ways until one side closes, or a fault ends the connection."""
        async with anyio.create_task_group() as group:
            for carry in (self._carry_request, self._carry_answer):
                group.start_soon(self._repeat, carry, group.cancel_scope)

    async def _repeat(self, carry: Callable[[], Awaitable[bool]], scope: CancelScope) -> None:
        try:
            while await carry():
                pass
        except (EndOfStream, IncompleteRead):
            pass  # one side has closed: the caller closes the other
        except BrokenResourceError:
            reset(self._client)  # if it was the server's: the client meets the same
        scope.cancel()

    async def _carry_request(self) -> bool:
        head = await read_head(self._from_client)
        body = Body.of_request(self._from_client, head)
        pieces: list[Piece] = []
        while (piece := await body.read()) is not None:
            pieces.append(piece)
        request = ReceivedRequest(
            method=head.method,
            path=head.path.removeprefix(self._prefix),
            query=head.query,
            headers=without_credentials(head.headers),
            json=decoded(b"".join(piece.raw for piece in pieces if piece.payload)),
        )
        self._requests.append(request)
        fault = self._schedule.take_for_request(head)
        if isinstance(fault, Refuse):
            reset(self._client)
            return False
        self._expected.append(_Expected(request, fault))
        await self._server.send(b"".join([head.raw, *(piece.raw for piece in pieces)]))
        return True

    async def _carry_answer(self) -> bool:
        head = await read_head(self._from_server)
        if head.status < 200:
            await self._client.send(head.raw)
            return True
        if not self._expected:
            return False  # such as a 408 for an idle connection, which ends with it
        request, fault = self._expected.popleft()
        fault = fault or self._schedule.take_for_answer(head)
        answer = PassedAnswer(
            request=request,
            status=head.status,
            headers=without_credentials(head.headers),
            fault=fault,
            _body=bytearray(),
        )
        self._answers.append(answer)
        if isinstance(fault, Delay):
            await anyio.sleep(fault.seconds)
        await self._client.send(head.closing().raw if isinstance(fault, End) else head.raw)
        body = Body.of_answer(self._from_server, head, request.method)
        return await self._carry_body(body, answer)

    async def _carry_body(self, body: Body, answer: PassedAnswer) -> bool:
        """Forward the body as the fault allows; tell whether the connection goes on."""
        fault = answer.fault
        left = fault.after if isinstance(fault, Cut | End | Reset | Stall) else math.inf
        while True:
            if left == 0:
                if not await self._strike(fault, body):
                    return False
                left = math.inf
            piece = await body.read(left)
            if piece is None:
                answer.complete = True
                return await self._end(body, fault)
            if piece.payload:
                left -= len(piece.raw)
                answer._body += piece.raw  # before it is sent: the client never has more than this
            await self._send(piece, fault, body)

    async def _strike(self, fault: Fault | None, body: Body) -> bool:
        """Do what the fault does at its offset; tell whether the rest follows."""
        if isinstance(fault, Stall):
            # No deadline but the test's own: it ends with the client, or with the proxy.
            await anyio.sleep(math.inf if fault.seconds is None else fault.seconds)
            return True
        if isinstance(fault, Reset):
            reset(self._client)
        elif isinstance(fault, End):
            await self._end(body, fault)
        return False

    async def _end(self, body: Body, fault: Fault | None) -> bool:
        """End the body where HTTP expects it; tell whether the connection goes on."""
        if isinstance(fault, End):
            if body.chunked:
                await self._client.send(_LAST_CHUNK)
            return False
        return not body.until_close

    async def _send(self, piece: Piece, fault: Fault | None, body: Body) -> None:
        # No deadline: how long a client may leave its answer unread is the server's to say.
        if isinstance(fault, Trickle):
            for byte in piece.raw:
                await anyio.sleep(fault.pause)
                await self._client.send(bytes([byte]))
        elif isinstance(fault, End) and body.chunked:
            if piece.payload:  # in a chunk of its own: the server's may be longer
                await self._client.send(b"%x\r\n%b\r\n" % (len(piece.raw), piece.raw))
        else:
            await self._client.send(piece.raw)


def reset(stream: SocketStream) -> None:
    """Have the connection end with RST in place of FIN when it is closed."""
    raw = stream.extra(SocketAttribute.raw_socket)
    if raw.fileno() >= 0:  # else the other end was faster
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
