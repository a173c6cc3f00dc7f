"""What a lying server makes of a valid answer: fields, bytes, events, heads and framings changed.

Each lie returns the bytes of a whole HTTP answer, and whether they may say another text than the
run wrote without anybody being able to see it.
"""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

from tests.canaries import CANARY_KEY
from tests.client.broadcaster import frame
from tests.fuzz.honest_server import Truth
from tests.fuzz.odd_json import odd_value
from tests.openapi.bodies import WORDS
from tests.samples import ERRORS, raw

__all__ = ["Lie", "lie", "whole"]

_HOLE = "\ue000"
_LARGE = 40 << 20
"""Bytes of an answer that is refused for its size."""
_PIECE = 1 << 18
_STATUSES = ["queued", "in_progress", "requires_action", "cancelling", "cancelled", "failed"]
_STATUSES += ["completed", "incomplete", "expired", "no_such_status", "", "COMPLETED"]
_KINDS = [*WORDS, *_STATUSES, "thread.run", "thread.message", "run_1", "run_2", "msg_2", CANARY_KEY]

_SUBJECT = {("id",), ("thread_id",), ("run_id",), ("status",)}
"""Fields by which an answer is about something else, or about a run that has not written yet."""


class Lie(NamedTuple):
    """An answer on the wire."""

    pieces: list[bytes]
    """Written one after the other."""
    what: str
    """The kind of change, for whoever reads a failure."""
    may_change_text: bool = False
    ending: str = "close"
    """`close`, `reset`, or `hang`: the connection stays open, and nothing more comes."""

    @property
    def keeps_bytes(self) -> bool:
        """Return whether every byte of the body came, only cut differently."""
        return self.what.startswith("transfer")


def whole(truth: Truth) -> Lie:
    """Return the answer as it is."""
    return Lie([_http(_body(truth), _headers(truth), truth.status)], "transfer: whole")


def lie(chance: Random, truth: Truth) -> Lie:
    """Return the answer with one thing changed."""
    if chance.random() < 0.004:
        return _endless(chance, truth)
    kinds: list[Callable[[Random, Truth], Lie]] = [_bytes, _cut, _transfer, _head, _status, _ending]
    if truth.body is None:
        kinds += [_events, _events, _events, _field_of_event] if truth.frames else [_field]
        kinds += [_field_of_event, _field_of_event] if truth.frames else [_field, _field]
    return chance.choice(kinds)(chance, truth)


def _headers(truth: Truth) -> dict[str, str]:
    kind = "text/event-stream" if truth.frames else "application/json"
    return {"Content-Type": kind, "x-request-id": "req_1", "openai-poll-after-ms": "0"}


def _body(truth: Truth) -> bytes:
    if truth.body is not None:
        return truth.body
    if truth.frames:
        return b"".join(_frames(truth))
    return json.dumps(truth.value, ensure_ascii=False).encode()


def _frames(truth: Truth) -> list[bytes]:
    return [*(frame(*each) for each in truth.frames or []), b"event: done\ndata: [DONE]\n\n"]


def _http(
    body: bytes, headers: dict[str, str], status: int | str = 200, length: str | None = ""
) -> bytes:
    """Return an answer; `length` in place of the right one, None: none, up to the closing."""
    given = {} if length is None else {"Content-Length": length or str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**headers, **given}.items())
    head = f"HTTP/1.1 {status} X\r\nConnection: close\r\n{lines}\r\n"
    return head.encode("utf-8", "surrogateescape") + body


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of the value and of each value inside it."""
    yield path
    inner = dict(enumerate(value)) if isinstance(value, list) else value
    for name, each in inner.items() if isinstance(inner, dict) else ():
        yield from _places(each, (*path, name))


def _changed(chance: Random, value: Any) -> tuple[str, tuple[Any, ...]]:
    """Return the text of the value with one field changed, and the path of the field."""
    path = chance.choice(list(_places(value)))
    new, raw_text = copy.deepcopy(value), json.dumps(chance.choice(_KINDS))
    if chance.random() < 0.5 or (CANARY_KEY in raw_text and path[-1:] in _SUBJECT):
        raw_text = odd_value(chance)
    if not path:
        return raw_text, path
    *way, last = path
    inside = new
    for name in way:
        inside = inside[name]
    kind = chance.randrange(6)
    if kind == 0:
        del inside[last]
    elif kind == 1 and isinstance(inside, dict):
        inside[chance.choice(["x", last + "_", last.upper()])] = inside.pop(last)
    elif kind == 2 and isinstance(inside, list):
        inside[last:last] = [inside[last]] * chance.choice([1, 1, 500])
    elif kind == 3 and isinstance(inside, dict):
        twice = json.dumps({last: inside.pop(last)})[1:-1]
        inside[_HOLE] = None
        doubled = f'{twice}, "{last}": {raw_text}'
        return json.dumps(new, ensure_ascii=False).replace(f'"{_HOLE}": null', doubled), path
    else:
        inside[last] = _HOLE
    return json.dumps(new, ensure_ascii=False).replace(f'"{_HOLE}"', raw_text), path


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _field(chance: Random, truth: Truth) -> Lie:
    text, path = _changed(chance, truth.value)
    what = f"field {'.'.join(map(str, path))}: {text[:200]}"
    is_text = truth.holds_text or path[-1:] in _SUBJECT
    return Lie([_http(_encoded(text), _headers(truth))], what, is_text)


def _field_of_event(chance: Random, truth: Truth) -> Lie:
    frames = truth.frames or []
    at = chance.randrange(len(frames))
    name, data = frames[at]
    text, path = _changed(chance, data)
    if chance.random() < 0.1:
        text, name = json.dumps(data), chance.choice([*_KINDS, "error", "thread.run.completed"])
    changed = f"event: {name}\ndata: " + text.replace("\n", "\\n") + "\n\n"
    raw_frames = _frames(truth)
    raw_frames[at] = _encoded(changed)
    is_text = "thread.message" in name + frames[at][0] or path[-1:] in _SUBJECT
    what = f"field of event {at} {name} {'.'.join(map(str, path))}: {text[:200]}"
    return Lie([_http(b"".join(raw_frames), _headers(truth))], what, is_text)


def _events(chance: Random, truth: Truth) -> Lie:
    frames = _frames(truth)
    ends = len(frames) - 2  # what is moved behind the end is left out
    at, other = chance.randrange(len(frames)), chance.randrange(ends)
    kind = chance.choice(["left out", "twice", "swapped", "ends", "put in", "shuffled", "form"])
    if kind == "left out":
        del frames[at]
    elif kind == "twice":
        frames[at:at] = [frames[at]] * chance.choice([1, 1, 3, 300])
    elif kind == "swapped":
        at = min(at, ends - 1)
        frames[at], frames[other] = frames[other], frames[at]
    elif kind == "ends":
        frames = [*frames[:at], *chance.choice([[], frames[-1:]])]
    elif kind == "put in":
        frames.insert(at, chance.choice(_STRANGE))
    elif kind == "shuffled":
        frames = [*chance.sample(frames[:ends], ends), *frames[ends:]]
    body = b"".join(frames)
    if kind == "form":
        body = chance.choice(_FORMS)(body)
    return Lie(
        [_http(body, _headers(truth))], f"events: {kind} {at} {other}: {frames[at : at + 1]}"
    )


_STRANGE = [
    b": " + b"x" * 100_000 + b"\n\n",
    b"\n" * 1000,
    b"data\n\n",
    b"data: \n\n",
    b"data: [DONE]\n\n",
    b"event: thread.run.completed\n\n",
    b"event: unknown.thing\ndata: {}\n\n",
    b'event: error\ndata: {"message": "' + CANARY_KEY.encode() + b'"}\n\n',
    b"event: error\ndata: x\n\n",
    b"event: error\n\n",
    b"retry: 99999999999999999999\n\n",
    b"id: \0\n\n",
    b"id: " + b"9" * 10_000 + b"\n\n",
    b"\xff\xfe\xfd\n\n",
    b"event: thread.message.delta\ndata: {\n\n",
    b"event: thread.message.delta\ndata: " + b"[" * 3000 + b"\n\n",
    *[
        b"event: error\ndata: " + raw(f"errors/{name}").replace(b"\n", b"") + b"\n\n"
        for name in ERRORS
    ],
]
_FORMS: list[Callable[[bytes], bytes]] = [
    lambda body: body.replace(b"\n", b"\r\n"),
    lambda body: body.replace(b"\n", b"\r"),
    lambda body: b"\xef\xbb\xbf" + body,
    lambda body: body.replace(b": ", b":"),
    lambda body: body.replace(b", ", b",\ndata: "),
    lambda body: body.replace(b"event: ", b"event:  "),
    lambda body: body.replace(b"\n\n", b"\n\n\n: x\n\n"),
    lambda body: body.replace(b"event: ", b"id: same\nevent: "),
]


def _bytes(chance: Random, truth: Truth) -> Lie:
    body, what = _body(truth), []
    for _ in range(chance.choice([1, 1, 1, 3, 10])):
        at = chance.randrange(len(body) + 1)
        put = chance.choice([b"", chance.randbytes(1), b"\xff", b"\n", b"\n\n", b"\0", b'"', b"{"])
        gone = chance.choice([0, 1, 1, 20])
        what.append(f"{body[at : at + gone]!r}->{put!r} at {at}")
        body = body[:at] + put + body[at + gone :]
    return Lie([_http(body, _headers(truth), truth.status)], f"bytes: {what}", True)


def _cut(chance: Random, truth: Truth) -> Lie:
    """Return the beginning, its framing right, missing, or that of the whole."""
    body = _body(truth)
    at = chance.randrange(len(body))
    how = chance.choice(["as whole", "to the end", "short", "chunked", "chunked, no end"])
    headers, part = _headers(truth), body[:at]
    what = f"cut at {at} of {len(body)}, {how}"
    ending = chance.choice(["close", "close", "reset", "hang"])
    if how.startswith("chunked"):
        end = b"0\r\n\r\n" if how == "chunked" else b""
        head = _http(b"", {**headers, "Transfer-Encoding": "chunked"}, truth.status, None)
        return Lie([head, _chunk(part), end], what, ending=ending)
    lengths = {"as whole": "", "to the end": None, "short": str(len(body))}
    return Lie([_http(part, headers, truth.status, lengths[how])], what, ending=ending)


def _chunk(part: bytes) -> bytes:
    return b"%x\r\n" % len(part) + part + b"\r\n" if part else b""


def _parts(chance: Random, raw_bytes: bytes) -> list[bytes]:
    most = 1 if len(raw_bytes) < 6000 and chance.random() < 0.5 else 1 + len(raw_bytes) // 20
    parts, at = [], 0
    while at < len(raw_bytes):
        size = chance.randint(1, most)
        parts.append(raw_bytes[at : at + size])
        at += size
    return parts


def _transfer(chance: Random, truth: Truth) -> Lie:
    """Return all bytes of the body, in another framing or in small pieces."""
    body, headers, how = _body(truth), _headers(truth), chance.randrange(5)
    if how == 0:
        return Lie(_parts(chance, _http(body, headers, truth.status)), "transfer: pieces")
    if how == 1:
        return Lie([_http(body, headers, truth.status, None)], "transfer: up to the closing")
    if how == 2:
        packed = {**headers, "Content-Encoding": "deflate"}
        pieces = _parts(chance, _http(zlib.compress(body), packed, truth.status))
        return Lie(pieces, "transfer: deflate")
    chunked = {**headers, "Transfer-Encoding": "chunked"}
    head = _http(b"", chunked, truth.status, None)
    pieces = [head, *(_chunk(part) for part in _parts(chance, body)), b"0\r\n\r\n"]
    if how == 3:
        return Lie(pieces, "transfer: chunks")
    return Lie(_parts(chance, b"".join(pieces)), "transfer: chunks in pieces")


_ODD = [
    "",
    "0",
    "-1",
    "1e400",
    "nan",
    "inf",
    "9" * 400,
    "1,1",
    "\x7f",
    "x" * 7000,
    "\udcff",
    "0.01",
]
_HEADERS = {
    "Content-Type": ["", "text/html", "application/json; charset=utf-16", "x", "text/event-stream"],
    "Content-Encoding": ["gzip", "br", "zstd", "deflate, gzip", "x", "identity"],
    "Content-Length": ["-1", "x", "0", "1", "999999999999", "10, 10"],
    "Transfer-Encoding": ["chunked", "gzip", "chunked, chunked", "x"],
    "Location": ["http://127.0.0.1:1/", "/v1/threads", "file:///etc/passwd"],
    "Set-Cookie": ["a=b", "\x01", f"k={CANARY_KEY}"],
    "Connection": ["keep-alive", "upgrade", ""],
    "openai-runs-features": ["resume", "idempotency", "resume, idempotency", "x"],
    **dict.fromkeys(["Retry-After", "retry-after-ms", "openai-poll-after-ms", "Date", "Age"], _ODD),
    **dict.fromkeys(["x-should-retry", "x-request-id", "openai-processing-ms"], ["true", *_ODD]),
    **dict.fromkeys(["x-ratelimit-reset-requests", "x-ratelimit-limit-requests"], _ODD),
    **dict.fromkeys(["x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens"], _ODD),
}


def _head(chance: Random, truth: Truth) -> Lie:
    headers = _headers(truth)
    name = chance.choice(list(_HEADERS))
    headers[name] = chance.choice(_HEADERS[name])
    if chance.random() < 0.15:
        headers |= {f"X-{number}": CANARY_KEY for number in range(chance.choice([50, 300, 3000]))}
    if chance.random() < 0.1:
        headers[chance.choice(["", "a b", "\0", "x:y", "\udcff"])] = "x"
    answer = _http(_body(truth), headers, truth.status)
    return Lie([answer], f"head {name}: {headers[name][:60]!r}")


_CODES: list[int | str] = [
    100,
    101,
    199,
    201,
    202,
    204,
    205,
    206,
    301,
    302,
    304,
    307,
    400,
    401,
    403,
    404,
    405,
    408,
]
_CODES += [409, 413, 418, 422, 425, 429, 431, 451, 499, 500, 501, 502, 503, 504, 520, 529, 599, 600]

_ODD_CODES: list[int | str] = [0, 99, 999, 1000, "-1", "2x0", ""]


def _status(chance: Random, truth: Truth) -> Lie:
    """Return another status, with the body, an error's, or none."""
    code = chance.choice([*_CODES, *_CODES, *_ODD_CODES])
    error = raw(f"errors/{chance.choice(ERRORS)}")
    echo = json.dumps({"error": {"message": f"Bearer {CANARY_KEY}", "code": CANARY_KEY}}).encode()
    body = chance.choice(
        [_body(truth), error, error, b"", echo, odd_value(chance).encode("utf-8", "replace")]
    )
    headers = _headers(truth)
    if chance.random() < 0.3:
        headers["Retry-After"] = chance.choice(_ODD)
    return Lie([_http(body, headers, code)], f"status {code}: {body[:100]!r}")


def _ending(chance: Random, truth: Truth) -> Lie:
    """Return less than a head, no HTTP, or nothing."""
    raw_bytes = _http(_body(truth), _headers(truth))
    what = chance.choice(["nothing", "some", "no HTTP", "garbage before", "garbage after", "100s"])
    pieces = {
        "nothing": b"",
        "some": raw_bytes[: chance.randrange(len(raw_bytes))],
        "no HTTP": chance.choice(
            [
                b"HTTP/9.9 200 OK\r\n\r\n",
                b"\x15\x03\x01\0\2\2\x28",
                b"ICY 200\r\n",
                b"HTTP/1.1\r\n\r\n",
            ]
        ),
        "garbage before": b"\r\nx\r\n" + raw_bytes,
        "garbage after": raw_bytes + b"HTTP/1.1 500 X\r\n\r\n" + chance.randbytes(50),
        "100s": b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + raw_bytes,
    }[what]
    return Lie([pieces], f"ending {what}", ending=chance.choice(["close", "reset", "hang"]))


def _endless(chance: Random, truth: Truth) -> Lie:
    """Return an answer that is far larger than any: 40 MB, or few bytes that inflate to as much."""
    headers, status = _headers(truth), truth.status
    what = chance.choice(["body", "headers", "line", "interim answers", "comments", "bomb"])
    if what == "bomb":
        bomb = zlib.compress(b" " * _LARGE)
        return Lie(
            [_http(bomb, {**headers, "Content-Encoding": "deflate"}, status)], "endless bomb"
        )
    head = _http(b"", headers, status, None)
    first, each = {
        "body": (head + b"data: ", b" " * _PIECE),
        "headers": (head[:-2], b"X: y\r\n" * (_PIECE // 6)),
        "line": (b"HTTP/1.1 200 ", b"x" * _PIECE),
        "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * (_PIECE // 25)),
        "comments": (head, b": keep-alive\n\n" * (_PIECE // 14)),
    }[what]
    return Lie([first, *([each] * (_LARGE // _PIECE))], f"endless {what}")
