"""Answers of an endpoint as bytes: real streams that were damaged, and what is said in them.

What is said is read here in a simple way of its own, which shares nothing with the product.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from hypothesis import strategies as st

__all__ = [
    "Damaged",
    "Said",
    "damaged",
    "frames_of",
    "frames_of_calls",
    "garbage",
    "said_in",
    "whole_text",
]

_DECODER = json.JSONDecoder(strict=False)
FINISHES = [None, "stop", "stop", "length", "tool_calls", "error", "content_filter", "eos"]
STATUSES = [*[200] * 12, 201, 202, 206, 301, 307, 400, 401, 404, 409, 413, 422, 429, 500, 503, 529]
ENCODINGS = [*[""] * 12, "identity", "gzip", "br", "zstd", "x-unknown"]
TYPES = [
    "text/event-stream",
    "text/event-stream; charset=utf-8",
    "application/json",
    "text/plain",
    "text/html",
    "application/octet-stream",
    "application/x-ndjson",
    "",
]


class Damaged(NamedTuple):
    """What an endpoint sends."""

    body: bytes
    content_type: str
    """Empty: there is no such header."""
    end: Literal["close", "length", "chunked", "reset", "short"]
    """How it ends: with the connection, as its length says, in chunks, without their last one,
    or before its length."""
    cuts: list[int]
    """Where the body is cut into packets."""
    status: int = 200
    encoding: str = ""
    """What the header says of how the body is compressed; it is not, unless a test did so."""


class Said(NamedTuple):
    """What a simple reader finds in the bytes of an answer."""

    text: str
    is_readable: bool
    """Whether nothing was found that cannot be read."""


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def frames_of(
    texts: list[str], finish: str | None = "stop", *, done: bool = True, escaped: bool = False
) -> list[bytes]:
    """Return the events of a stream that says these texts."""
    chunks = [_chunk({"role": "assistant", "content": ""})]
    chunks += [_chunk({"content": text}) for text in texts]
    if finish is not None:
        chunks.append(_chunk({}, finish))
    chunks.append({"id": "c", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    frames = [f"data: {json.dumps(chunk, ensure_ascii=escaped)}\n\n".encode() for chunk in chunks]
    return [*frames, b"data: [DONE]\n\n"] if done else frames


def frames_of_calls(calls: list[tuple[str, str]], finish: str | None) -> list[bytes]:
    """Return the events of a stream that makes these calls, the arguments of each in pieces."""
    deltas: list[dict[str, Any]] = []
    for index, (name, arguments) in enumerate(calls):
        head = {"id": f"call_{index}", "type": "function", "function": {"name": name}}
        pieces = [arguments[place : place + 5] for place in range(0, len(arguments), 5)]
        deltas.append({"index": index, **head})
        deltas += [{"index": index, "function": {"arguments": piece}} for piece in pieces]
    chunks = [_chunk({"tool_calls": [delta]}) for delta in deltas]
    frames = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in [*chunks, _chunk({}, finish)]]
    return [*frames, b"data: [DONE]\n\n"]


def said_in(body: bytes) -> Said:
    """Return what the bytes say, as far as a simple reader can tell."""
    text, is_readable = "", True
    for data in _data_of(body.decode(errors="replace")):
        if data == "[DONE]":
            break
        values = _values(data)
        is_readable = is_readable and values is not None
        text += "".join(map(_content, values or ()))
    return Said(whole_text(text), is_readable)


def _values(data: str) -> list[Any] | None:
    """Return the JSON values that follow each other in a text; None: it is something else."""
    values, at = [], 0
    try:
        while at < len(data):
            value, at = _DECODER.raw_decode(data, at)
            values.append(value)
            at += len(data[at:]) - len(data[at:].lstrip())
    except (ValueError, RecursionError):
        return None
    return values


def whole_text(text: str) -> str:
    """Return the text with two halves of a character as one, and each alone as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _data_of(text: str) -> list[str]:
    """Return what stands behind `data:`, event by event, and what is JSON without it."""
    text = text.removeprefix("\ufeff")
    if text.lstrip().startswith("{") and _values(text.strip()):
        return [text.strip()]  # an answer that is no stream, or values without `data:`
    events: list[list[str]] = [[]]
    for line in re.split("\r\n|\n|\r", text):
        if not line:
            events.append([])
        elif line.startswith("data:"):
            events[-1].append(line[5:].strip())
        elif line.startswith("{") or line.strip() == "[DONE]":
            events += [[line.strip()], []]
    found: list[str] = []
    for lines in events:
        joined = "\n".join(lines).strip()
        # Some endpoints send no line between two events.
        found += [joined] if _values(joined) is not None else lines
    return [data for data in found if data]


def _content(chunk: Any) -> str:
    try:
        choice = chunk["choices"][0]
        content = (choice.get("delta") or choice.get("message"))["content"]
    except (KeyError, TypeError, IndexError, AttributeError):
        return ""
    return content if isinstance(content, str) else ""


# --- what is drawn

_TEXTS = st.lists(
    st.one_of(
        st.text(min_size=1, max_size=8),
        st.sampled_from(
            ['"', "\\", "[DONE]", "data: x\n\n", "\u2028", "\U0001f642", "}]}", "\x00"]
        ),
    ),
    max_size=5,
)
Damage = Callable[[list[bytes], int, int], list[bytes]]


def _cut(frames: list[bytes], one: int, other: int) -> list[bytes]:
    body = b"".join(frames)
    return [body[: one % (len(body) + 1)]]


def _double(frames: list[bytes], one: int, other: int) -> list[bytes]:
    return [*frames, frames[one % len(frames)]] if other % 2 else frames + frames


def _drop(frames: list[bytes], one: int, other: int) -> list[bytes]:
    place = one % len(frames)
    return frames[:place] + frames[place + 1 :] or [b""]


def _swap(frames: list[bytes], one: int, other: int) -> list[bytes]:
    swapped, a, b = list(frames), one % len(frames), other % len(frames)
    swapped[a], swapped[b] = swapped[b], swapped[a]
    return swapped


def _flip(frames: list[bytes], one: int, other: int) -> list[bytes]:
    body = bytearray(b"".join(frames))
    if body:
        body[one % len(body)] ^= 1 << (other % 8)
    return [bytes(body)]


def _insert(frames: list[bytes], one: int, other: int) -> list[bytes]:
    body = b"".join(frames)
    place = one % (len(body) + 1)
    return [body[:place], other.to_bytes(4, "big"), body[place:]]


def _remove(frames: list[bytes], one: int, other: int) -> list[bytes]:
    body = b"".join(frames)
    place = one % (len(body) + 1)
    return [body[:place], body[place + other % 40 :]]


def _rewrite(frames: list[bytes], one: int, other: int) -> list[bytes]:
    """Other ends of lines, other spaces, comments, or lines without `data:`."""
    old, new = [
        (b"\n", b"\r\n"),
        (b"\n", b"\r"),
        (b"data: ", b"data:"),
        (b"data: ", b": ping\n\ndata: "),
        (b"data: ", b"id: 1\nevent: message\ndata: "),
        (b"data: ", b""),
        (b"\n\n", b"\n"),
        (b'"delta"', b'"message"'),
    ][one % 8]
    return [frame.replace(old, new) for frame in frames]


_DAMAGES: list[Damage] = [_cut, _double, _drop, _swap, _flip, _insert, _remove, _rewrite]


@st.composite
def damaged(draw: st.DrawFn) -> Damaged:
    """Draw a real stream, damaged up to three times."""
    frames = frames_of(
        draw(_TEXTS),
        draw(st.sampled_from(FINISHES)),
        done=draw(st.booleans()),
        escaped=draw(st.booleans()),
    )
    number = st.integers(0, 2**32 - 1)
    for damage in draw(st.lists(st.sampled_from(_DAMAGES), max_size=3)):
        frames = damage(frames, draw(number), draw(number)) or [b""]
    return _sent(draw, b"".join(frames))


@st.composite
def garbage(draw: st.DrawFn) -> Damaged:
    """Draw bytes that are no answer at all, or hardly one."""
    piece = st.one_of(
        st.binary(max_size=20),
        st.sampled_from([b"data:", b"\n\n", b"{", b"}", b'"choices"', b":", b"[DONE]", b"null"]),
        st.sampled_from([b"<html>Bad gateway</html>", b"event: error\n", b'{"error":"busy"}']),
    )
    answer = _sent(draw, b"".join(draw(st.lists(piece, max_size=6))))
    return answer._replace(status=draw(st.sampled_from(STATUSES)))


def _sent(draw: st.DrawFn, body: bytes) -> Damaged:
    return Damaged(
        body,
        draw(st.one_of(st.just(TYPES[0]), st.sampled_from(TYPES))),
        draw(st.sampled_from(["close", "length", "chunked", "chunked", "reset", "short"])),
        sorted(draw(st.lists(st.integers(0, len(body)), max_size=2))),
        encoding=draw(st.sampled_from(ENCODINGS)),
    )
