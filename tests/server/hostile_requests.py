"""Requests that HTTP does not allow, or barely does, each with a key and a prompt in it."""

from __future__ import annotations

import asyncio

import anyio

from tests.canaries import CANARY_KEY, CANARY_PROMPT

__all__ = ["REFUSED", "UNUSUAL", "ask"]

KEY = CANARY_KEY.encode()
PROMPT = CANARY_PROMPT.encode()
BODY = b'{"messages": [{"role": "user", "content": "' + PROMPT + b'"}]}'
LENGTH = b"Content-Length: %d" % len(BODY)
BEARER = b"Authorization: Bearer " + KEY
CHUNKED = b"Transfer-Encoding: chunked"


def post(*headers: bytes, body: bytes = b"") -> bytes:
    """Return a POST of a thread with these header lines."""
    lines = [b"POST /v1/threads HTTP/1.1", b"Host: 127.0.0.1", b"Connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def sized(body: bytes) -> bytes:
    """Return a POST of a thread with this body."""
    return post(BEARER, b"Content-Length: %d" % len(body), body=body)


def get(line: bytes, host: bytes = b"Host: 127.0.0.1") -> bytes:
    """Return a request without a body, with this request line."""
    return b"\r\n".join([line, host, b"Connection: close", BEARER]) + b"\r\n\r\n"


REFUSED: dict[str, bytes] = {
    # keys
    "value-ends-in-cr": post(BEARER + b"\r", LENGTH, body=BODY),
    "value-has-nul": post(BEARER + b"\0", LENGTH, body=BODY),
    "blank-before-colon": post(b"Authorization : Bearer " + KEY, LENGTH, body=BODY),
    "value-too-long": post(BEARER + b"x" * 9000, LENGTH, body=BODY),
    "no-colon": post(b"Authorization Bearer " + KEY, LENGTH, body=BODY),
    "key-as-name": post(KEY + b"(): x", LENGTH, body=BODY),
    "name-not-ascii": post(b"Auth\xff: " + KEY, LENGTH, body=BODY),
    "folded": post(BEARER, b" " + KEY, LENGTH, body=BODY),
    "folded-first": b"GET / HTTP/1.1\r\n " + BEARER + b"\r\n\r\n",
    "too-many-headers": post(*[b"X-%d: %b" % (number, KEY) for number in range(300)]),
    "cookie-with-control": post(b"Cookie: " + KEY + b"=\x01", LENGTH, body=BODY),
    "line-feeds-only": b"GET / HTTP/1.1\n" + BEARER + b"\n\n",
    # request lines
    "method": get(b"P(ST /v1/threads?api_key=" + KEY + b" HTTP/1.1"),
    "key-as-method": get(KEY + b" / HTTP/1.1"),
    "version": get(b"GET /v1/threads?api_key=" + KEY + b" HTTP/9.9x"),
    "blank-in-path": get(b"GET /v1/th reads?api_key=" + KEY + b" HTTP/1.1"),
    "path-too-long": get(b"GET /v1/threads?api_key=" + KEY * 400 + b" HTTP/1.1"),
    "path-without-slash": get(KEY + b" " + KEY + b" HTTP/1.1"),
    "url-of-bad-host": get(b"GET http://[" + KEY + b"/ HTTP/1.1"),
    "url-of-bad-port": get(b"GET http://a:" + KEY + b"/ HTTP/1.1"),
    "connect-to-bad-port": get(b"CONNECT a:" + KEY + b" HTTP/1.1"),
    "no-host": b"GET /v1/threads HTTP/1.1\r\n" + BEARER + b"\r\n\r\n",
    "two-hosts": get(b"GET /v1/threads HTTP/1.1", b"Host: a\r\nHost: " + KEY),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + KEY + b"\r\n\r\n",
    # bodies
    "two-lengths": post(BEARER, b"Content-Length: 3", LENGTH, body=BODY),
    "length-is-junk": post(BEARER, b"Content-Length: " + KEY, body=BODY),
    "length-and-chunks": post(BEARER, LENGTH, CHUNKED, body=BODY),
    "coding-unknown": post(BEARER, b"Transfer-Encoding: " + KEY, body=BODY),
    "chunk-size": post(BEARER, CHUNKED, body=PROMPT + b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "second-chunk-size": post(BEARER, CHUNKED, body=b"1\r\n{\r\n" + PROMPT + b"\r\n0\r\n\r\n"),
    "chunk-too-short": post(BEARER, CHUNKED, body=b"3\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk-extension": post(BEARER, CHUNKED, body=b"3;" + PROMPT * 999 + b"\r\n{ }\r\n0\r\n\r\n"),
    "trailer": post(BEARER, CHUNKED, body=b"2\r\n{}\r\n0\r\nX " + PROMPT + b"\r\n\r\n"),
    "trailer-too-long": post(
        BEARER, CHUNKED, body=b"2\r\n{}\r\n0\r\nX: " + PROMPT * 999 + b"\r\n\r\n"
    ),
}
"""What the parser refuses, in the request's head or later in its body."""

_KEPT = b"POST /v1/threads HTTP/1.1\r\nHost: 127.0.0.1\r\n" + BEARER + b"\r\n"

UNUSUAL: dict[str, bytes] = {
    "not-compressed": post(BEARER, LENGTH, b"Content-Encoding: gzip", body=BODY),
    "length-too-short": _KEPT + b"Content-Length: 2\r\n\r\n{}" + BODY + b"\r\n\r\n",
    "length-zero": _KEPT + b"Content-Length: 0\r\n\r\n" + BODY + b"\r\n\r\n",
    "upgrade-with-more": (
        b"GET /v1/threads HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        b"Connection: upgrade\r\n\r\n" + KEY + b"\r\n\r\n"
    ),
    "key-in-query": get(b"GET /v1/threads?api_key=" + KEY + b" HTTP/1.1"),
    "key-in-limit": get(b"GET /v1/assistants?limit=" + KEY + b" HTTP/1.1"),
    "value-not-ascii": post(BEARER + b"\xff\xfe", LENGTH, body=BODY),
    "expectation": post(BEARER, b"Expect: " + KEY, LENGTH, body=BODY),
    "charset": post(BEARER, b"Content-Type: application/json; charset=" + KEY, LENGTH, body=BODY),
    "body-not-utf-8": sized(PROMPT + b"\xff\xfe"),
    "body-no-json": sized(b"{" + PROMPT),
    "body-misfit": sized(b'{"messages": "' + PROMPT + b'"}'),
}
"""What is read at first, or answered by the API."""


async def ask(port: int, data: bytes) -> bytes:
    """Return all that the server answers until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    with anyio.fail_after(20):
        answer = await reader.read()
    writer.close()
    return answer
