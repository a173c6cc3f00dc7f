"""A grammar of broken HTTP: what one connection sends, by chance, and how it ends.

Most cases are a valid request of the API with one to three oddities, so that they get far; the
others are no HTTP at all. Keys and prompts are the canaries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from tests.canaries import CANARY_KEY, CANARY_PROMPT
from tests.fuzz.odd_json import odd_text
from tests.openapi import OPERATIONS
from tests.openapi.bodies import FULL

__all__ = ["Case", "draw"]

_SHOWN = 400
"""Bytes of a case that a failure shows."""
KEY = CANARY_KEY.encode()
PROMPT = CANARY_PROMPT.encode()


class Case(NamedTuple):
    """What is sent on one connection."""

    pieces: list[bytes]
    """Each sent on its own."""
    ending: str
    """`wait` for the answer, `half`-close first, `leave` at once, or `reset`."""
    oddities: list[str]
    """What was done to a valid request, for whoever reads a failure."""

    def __repr__(self) -> str:
        """Show the beginning of what is sent."""
        sent = b"".join(self.pieces)
        return f"{self.oddities} {self.ending} {len(self.pieces)} pieces: {sent[:_SHOWN]!r}"


@dataclass
class _Request:
    method: bytes
    target: bytes
    body: bytes
    version: bytes = b"HTTP/1.1"
    line_end: bytes = b"\r\n"
    headers: list[bytes] = field(default_factory=list)
    framing: list[bytes] | None = None
    """Header lines that say how long the body is; None: the right length."""

    def render(self) -> bytes:
        framing = [b"Content-Length: %d" % len(self.body)] if self.framing is None else self.framing
        lines = [b" ".join([self.method, self.target, self.version]), *self.headers, *framing]
        return self.line_end.join([*lines, b"", b""]) + self.body


def _canaried(value: Any) -> Any:
    """Return the body with the prompt wherever a user's text stands."""
    if isinstance(value, dict):
        return {key: _canaried(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_canaried(inner) for inner in value]
    return CANARY_PROMPT if value in {"Hi", "i", "d"} else value


_BODIES = {name: _canaried(body) for name, body in FULL.items()}


def _valid(chance: Random, ids: Mapping[str, str]) -> _Request:
    operation = chance.choice(list(OPERATIONS.values()))
    target = f"/v1{operation.path.format(**ids)}"
    if operation.query and chance.random() < 0.5:
        target += "?" + "&".join(f"{name}=1" for name in operation.query if chance.random() < 0.4)
    body = b""
    if operation.body:
        full = _BODIES[operation.body]
        full = {**full, "assistant_id": ids["assistant_id"]} if "assistant_id" in full else full
        few = {name: value for name, value in full.items() if chance.random() < 0.7}
        chosen = chance.choice([full, few])
        body = odd_text(chance, chosen) if chance.random() < 0.5 else json.dumps(chosen).encode()
    headers = [b"Authorization: Bearer " + KEY, b"Host: 127.0.0.1"]
    if body:
        headers.append(b"Content-Type: application/json")
    return _Request(operation.method.encode(), target.encode(), body, headers=headers)


def _bytes(chance: Random, most: int = 12) -> bytes:
    return chance.choice(
        [
            chance.randbytes(chance.randint(0, most)),
            bytes(chance.choices(b"\0\r\n\t :;,=\"'\\%\x7f\x80\xa0\xff/?#[]{}()", k=4)),
            b"x" * chance.choice([1, 100, 8189, 8190, 8191, 9000, 70_000]),
        ]
    )


def _method(chance: Random, request: _Request) -> None:
    odd = [b"", b"get", b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"PATCH", b"PUT", b"DELETE"]
    odd += [b"PRI", b"G\0T", b"GET\t", b"\xff", b"M-SEARCH", b"X" * 9000, KEY, b"GET,POST", b"("]
    request.method = chance.choice(odd)


_LIMITS = [b"0", b"-1", b"101", b"%d" % 2**63, b"%d" % 2**64, b"9" * 5000, b"1e9", b"\xd9\xa1"]


def _target(chance: Random, request: _Request) -> None:
    path = request.target
    odd = [
        b"",
        b"*",
        b"/",
        b"//",
        b"/v1",
        b"v1/threads",
        b"/v1/../v1/threads",
        b"/v1/%2e%2e/healthz",
        b"/healthz",
        b"/v1/models/" + _bytes(chance),
        b"http://127.0.0.1" + path,
        b"http://evil.example" + path,
        b"https://" + KEY + b"@127.0.0.1:1" + path,
        b"http://[::1" + path,
        b"http://a:99999999" + path,
        b"//127.0.0.1" + path,
        b"127.0.0.1:443",
        path + b"#fragment",
        path + b"?" + _bytes(chance),
        path + b"?limit=" + chance.choice(_LIMITS),
        path + b"?limit=1&limit=2&order=up&api_key=" + KEY,
        path + b"?" + b"&" * 1000,
        path + b"?include[]=" + _bytes(chance),
        path + b"/" + _bytes(chance),
        path.replace(b"_", b"%00"),
        path.replace(b"/", b"/%2f", 2),
        path.replace(b"/", b"\\"),
        path + b"%",
        path + b"%zz%ff%c0%80",
        path + b" " + path,
        path[: chance.randint(0, len(path))],
        b"x" * chance.choice([8000, 8190, 9000, 100_000]),
    ]
    request.target = chance.choice(odd)


def _version(chance: Random, request: _Request) -> None:
    odd = [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/1.11", b"http/1.1"]
    odd += [
        b"",
        b"HTTP/",
        b"HTTP/1",
        b"HTTP/-1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1\0",
        b"ICY",
        b"RTSP/1.0",
    ]
    request.version = chance.choice(odd)


def _line_end(chance: Random, request: _Request) -> None:
    request.line_end = chance.choice(
        [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r\n", b"\0\r\n", b""]
    )


_NAMES = [
    *[b"Authorization", b"OpenAI-Beta", b"Idempotency-Key", b"Prefer", b"Last-Event-ID", b"Accept"],
    *[b"Host", b"Origin", b"Cookie", b"Content-Type", b"Expect", b"Connection", b"Upgrade", b"TE"],
    *[b"If-None-Match", b"If-Modified-Since", b"Range", b"Accept-Encoding", b"X-Request-Id"],
    *[b"Forwarded", b"X-Forwarded-For", b"Trailer", b"Date", b"Keep-Alive", b"Proxy-Connection"],
    *[b"Sec-WebSocket-Key", b"Access-Control-Request-Method", b"OpenAI-Organization", b"From"],
]
_VALUES = [
    *[b"", b" ", b"\t", b"a, b,,", b'"', b"\\", b";", b"=", b"\xff", b"\xc2\xa0", b"x\0y", b"x\ry"],
    *[b"x\ny", b"x\n y", b"x\r\n folded", b"x\r\n\tfolded", b"Bearer", b"Basic eA==", b"Bearer  x"],
    *[b"assistants=v1", b"assistants=", b"wait=1e400", b"wait=-1", b"wait=0, wait=x", b"wait=NaN"],
    *[
        b"wait=0.01",
        b"100-continue",
        b"100-CONTINUE",
        b"200-ok",
        b"close",
        b"upgrade",
        b"keep-alive",
    ],
    *[
        b"websocket",
        b"h2c",
        b"TLS/1.0",
        b"trailers",
        b"bytes=0-",
        b"*",
        b"null",
        b"evt_1",
        b"run_1:9",
    ],
    *[b"999999999999999999999", b"-1", b"http://evil.example", b"evil.example", b"localhost:x"],
    *[b"text/event-stream", b"application/json; charset=utf-16", b"multipart/form-data; boundary="],
    *[b"text/plain", b"application/x-www-form-urlencoded", b"Thu, 99 Foo 2099 00:00:00 GMT", KEY],
]


def _header(chance: Random, request: _Request) -> None:
    name = chance.choice([*_NAMES, *_NAMES, _bytes(chance), b"", b"X Y", b"X\0", b"X:", b"\xff"])
    value = chance.choice([*_VALUES, *_VALUES, _bytes(chance, 40)])
    if name in {b"Host", b"Origin"} and value == KEY:  # the refusal of another host names it
        value = b"another.example"
    colon = chance.choice([b": "] * 8 + [b":", b" : ", b"", b":\t", b"\0:"])
    line = name + colon + value
    if chance.random() < 0.3:
        request.headers = [one for one in request.headers if not one.startswith(name)]
    request.headers.insert(chance.randint(0, len(request.headers)), line)


def _many_headers(chance: Random, request: _Request) -> None:
    count = chance.choice([99, 127, 128, 129, 1000, 5000])
    line = chance.choice([b"X-%d: " + KEY, b"Cookie: a%d=b", b"X: %d", b"Host: %d"])
    request.headers += [line % number for number in range(count)]


def _no_header(chance: Random, request: _Request) -> None:
    if request.headers:
        request.headers.pop(chance.randrange(len(request.headers)))


def _framing(chance: Random, request: _Request) -> None:
    right, chunked = b"Content-Length: %d" % len(request.body), b"Transfer-Encoding: chunked"
    lengths = [-1, -(2**63), 2**31, 2**63, 2**64, 10**400, len(request.body) - 1]
    lengths += [len(request.body) + 1, len(request.body) + 1000]
    odd: list[list[bytes]] = [
        [],
        [right, right],
        [right, b"Content-Length: %d" % (len(request.body) + 1)],
        [right + b", %d" % len(request.body)],
        [right, chunked],
        [chunked],
        [chunked, chunked],
        [b"Content-Length: " + chance.choice([b"", b"x", b"+1", b"0x10", b"1_0", b"1.0", b"\xb2"])],
        [b"Content-Length: " + str(chance.choice(lengths)).encode()],
        [b"Transfer-Encoding: " + chance.choice(_CODINGS)],
        [b"Transfer-Encoding : chunked"],
        [right, b"Content-Encoding: " + chance.choice([*_CODINGS, b"zstd", b"base64"])],
    ]
    request.framing = chance.choice(odd)


_CODINGS = [
    *[b"gzip", b"deflate", b"br", b"identity", b"chunked, gzip", b"gzip, chunked", b"xchunked"],
    *[b"chunked;q=1", b"\0chunked", b"chunked\0", b"CHUNKED", b" chunked", b"", b"x" * 9000, b","],
]


def _chunks(chance: Random, request: _Request) -> None:
    request.framing = [b"Transfer-Encoding: chunked"]
    size = b"%x" % len(request.body)
    bad = [
        b"-1",
        b"+1",
        b"0x1",
        b"g",
        b"",
        b" ",
        b"f" * 17,
        b"f" * 9000,
        b"\0",
        b"1;" + b"x" * 9000,
    ]
    odd = [size + b";a=" + KEY, size + b' ;"', b"0" * 40 + size, size.upper(), *bad]
    head = chance.choice([size] * 4 + odd)
    end = chance.choice([b"\r\n"] * 5 + [b"\n", b"\r", b"", b"x\r\n"])
    trailers = [b"0\r\n\r\n"] * 4 + [
        b"0\r\nX: " + KEY + b"\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
    ]
    trailers += [b"0\r\n", b"0\r\n\0\r\n\r\n", b"", b"00000\r\n\r\n", b"0\r\n" + b"A: b\r\n" * 999]
    request.body = head + end + request.body + end + chance.choice(trailers)


_ODDITIES: list[Callable[[Random, _Request], None]] = [
    _method,
    _target,
    _target,
    _version,
    _line_end,
    _header,
    _header,
    _header,
    _many_headers,
    _no_header,
    _framing,
    _framing,
    _chunks,
]


def _no_http(chance: Random, ids: Mapping[str, str]) -> bytes:
    valid = _valid(chance, ids).render()
    hello = bytes.fromhex("16030100f8010000f40303") + chance.randbytes(220)
    return chance.choice(
        [
            b"",
            b"\r\n" * chance.choice([1, 10, 10_000]),
            b"GET /\r\n",
            b"GET /v1/threads\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + chance.randbytes(30),
            hello,
            b"\x80\x2e\x01\x00\x02" + chance.randbytes(41),
            b"\x05\x01\x00",
            b"EHLO " + KEY + b"\r\n",
            b"SSH-2.0-x\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + valid,
            chance.randbytes(chance.choice([1, 100, 10_000])),
            b"\0" * 10_000,
            b"x" * 200_000,
            b"\r\n\r\n" + valid,
            b"\n" + valid,
            b" " + valid,
            valid[: chance.randrange(len(valid))],
            valid[chance.randrange(len(valid)) :],
            valid + chance.randbytes(20) + valid,
        ]
    )


def _damaged(chance: Random, raw: bytes) -> bytes:
    """Return the bytes with a few of them changed, inserted or left out."""
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        at, end = chance.randrange(len(raw) + 1), chance.choice([0, 1, 1, 8])
        raw = (
            raw[:at]
            + chance.choice([b"", chance.randbytes(1), b"\r\n", b"\0", b"\n"])
            + raw[at + end :]
        )
    return raw


def draw(seed: int, ids: Mapping[str, str]) -> Case:
    """Return the case of this seed; `ids` are those of real objects, by parameter of a path."""
    chance = Random(seed)
    kind, oddities = chance.random(), ["no HTTP"]
    if kind < 0.12:
        raw = _no_http(chance, ids)
    else:
        requests, oddities = [], []
        for _ in range(chance.choice([1] * 8 + [2, 2, 3, 20])):
            request = _valid(chance, ids)
            for odd in chance.choices(_ODDITIES, k=chance.choice([0, 1, 1, 1, 2, 3])):
                odd(chance, request)
                oddities.append(odd.__name__)
            requests.append(request.render())
        raw = b"".join(requests)
        if kind > 0.85:
            # The path and the host are quoted to who sent them, and a key may get there.
            raw = _damaged(chance, raw.replace(KEY, b"a-key-of-nobody"))
            oddities.append("damaged")
    return Case(_split(chance, raw), chance.choice(_ENDINGS), oddities)


_ENDINGS = ["wait"] * 12 + ["half"] * 4 + ["leave", "leave", "reset"]


def _split(chance: Random, raw: bytes) -> list[bytes]:
    if len(raw) < 2 or chance.random() < 0.7:
        return [raw]
    if len(raw) < 2000 and chance.random() < 0.2:
        return [raw[at : at + 1] for at in range(len(raw))]
    cuts = sorted(chance.sample(range(1, len(raw)), min(len(raw) - 1, chance.randint(1, 5))))
    return [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
