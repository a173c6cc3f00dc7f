"""One connection of the grammar: sent, read to its end, and judged."""

from __future__ import annotations

import json
import re
import socket
import struct
from typing import NamedTuple
from urllib.parse import urlsplit

import anyio
from anyio.abc import SocketAttribute, SocketStream

from tests.canaries import WATCH
from tests.fuzz.http_grammar import Case

__all__ = ["Answered", "answers_in", "exchange", "judge"]

_MOST = 8 << 20
"""Bytes that a case may be answered with."""
_SILENCE = 2.0
"""Seconds for which nothing has come after an answer, and no more is waited for: the server reads
on for 10 s what it has refused (aiohttp's lingering)."""


class Answered(NamedTuple):
    """One answer on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


async def exchange(url: str, case: Case) -> bytes:
    """Send the case on a new connection; return what comes until the server closes it.

    An answer, or the closing, has to come; the closing after an answer need not.
    """
    parts = urlsplit(url)
    received = b""
    async with (
        await anyio.connect_tcp(parts.hostname or "", parts.port or 0) as stream,
        anyio.create_task_group() as group,
    ):
        group.start_soon(_send, stream, case)
        if case.ending in {"wait", "half"}:
            received = await _read(stream)
            group.cancel_scope.cancel()
    return received


async def _send(stream: SocketStream, case: Case) -> None:
    try:
        for piece in case.pieces:
            if piece:
                await stream.send(piece)
        if case.ending == "half":
            await stream.send_eof()
        if case.ending == "reset":
            raw: socket.socket = stream.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except (anyio.BrokenResourceError, OSError):
        return  # closed by the server, which has read enough


async def _read(stream: SocketStream) -> bytes:
    received = bytearray()
    try:
        while True:
            with anyio.fail_after(_SILENCE if b"\r\n\r\n" in received else None):
                received += await stream.receive()
            assert len(received) <= _MOST, "the answer has no end"
    except (anyio.EndOfStream, anyio.BrokenResourceError, TimeoutError):
        pass  # closed, or reset where the server had not read all of it
    return bytes(received)


def answers_in(received: bytes, *, bodiless: bool = False) -> list[Answered]:
    """Return the answers in these bytes; the last may be cut short by a reset.

    With `bodiless`, an answer may be that to a HEAD, so that what its length says is not there.
    """
    found: list[Answered] = []
    while received:
        head, end, rest = received.partition(b"\r\n\r\n")
        if not end:
            break
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, *_ = first.split(" ", 2)
        assert re.fullmatch(r"HTTP/\d\.\d", version), f"no answer: {first[:100]!r}"
        headers = {
            name: value for name, _, value in (line.lower().partition(": ") for line in lines)
        }
        if status == "100":
            received = rest
            continue
        if "chunked" in headers.get("transfer-encoding", ""):
            body, received = _unchunked(rest)
        else:
            length = int(headers.get("content-length", "0"))
            length = 0 if bodiless and rest.startswith(b"HTTP/1.") else length
            body, received = rest[:length], rest[length:]
        found.append(Answered(int(status), headers, body))
    return found


def _unchunked(raw: bytes) -> tuple[bytes, bytes]:
    body = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        body, raw = body + raw[:length], raw[length + 2 :]
        if not length:
            break
    return body, raw


def judge(answers: list[Answered]) -> None:
    """Fail unless each answer is a success, or a refusal as the API has them."""
    for status, headers, body in answers:
        WATCH.search_answer(status, headers, body.decode("utf-8", "replace"))
        assert status < 500, f"answered {status} {headers} {body[:300]!r}"
        if status >= 400:
            assert "x-request-id" in headers, f"no x-request-id: {status} {headers}"
            assert headers.get("content-type", "").startswith("application/json"), headers
            if body:
                error = json.loads(body)["error"]
                assert error["message"], body
                assert error["type"], body
