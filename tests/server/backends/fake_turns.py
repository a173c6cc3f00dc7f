"""What the fake endpoints answer, by the word in the question and the number of the turn."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

__all__ = ["SECRET", "TURNS", "Answer", "Given", "answer_to", "sse"]

SECRET = "kept-private"
"""In all that the endpoint wants back: never to be seen on our wire."""


class Given(NamedTuple):
    """A turn with calls, as the endpoint would have it back."""

    text: str
    message: dict[str, Any]
    """Fields beside `content` and `tool_calls`."""
    calls: list[dict[str, Any]]
    """An id that was not given is `""`; arguments that are no JSON are any object."""


class Answer(NamedTuple):
    """An answer to one request."""

    pieces: list[bytes]
    given: Given | None = None
    status: int = 200
    content_type: str = "text/event-stream"
    end: Literal["clean", "reset", "stall"] = "clean"


def sse(*deltas: dict[str, Any], finish: str | None, done: bool = True) -> list[bytes]:
    """Return the events of a streamed answer; None: no word at its end."""
    chunks = [_chunk({"role": "assistant", "content": ""}), *map(_chunk, deltas)]
    if finish is not None:
        chunks.append(_chunk({}, finish))
    return [*chunks, b"data: [DONE]\n\n"] if done else chunks


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


def _said(text: str) -> list[dict[str, Any]]:
    third = len(text) // 3
    return [{"content": piece} for piece in (text[:third], text[third:]) if piece]


def _thought(marker: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return pieces of reasoning in the forms of the field, and what they come to."""
    text, signature = f"{SECRET} {marker} Ære \U0001f642", f"sig/{SECRET}+{marker}=="
    details = {"type": "reasoning.text", "index": 0}
    pieces: list[dict[str, Any]] = [
        {"reasoning_content": text[:5]},
        {"reasoning_content": text[5:], "content": None},
        {"reasoning_details": [{**details, "text": text[:7]}]},
        {"reasoning_details": [{**details, "text": text[7:]}]},
        {"reasoning_details": [{**details, "signature": signature}]},
    ]
    whole = {**details, "text": text, "signature": signature}
    return pieces, {"reasoning_content": text, "reasoning_details": [whole]}


def _called(
    marker: str, *, count: int = 1, text: str = "", thinks: bool = False, arguments: str = ""
) -> Answer:
    """Return an answer that calls tools."""
    pieces, fields = _thought(marker) if thinks else ([], {})
    pieces += _said(text)
    calls = []
    for index in range(count):
        wanted = arguments or json.dumps({"city": f"Oslo {marker}.{index}"})
        call: dict[str, Any] = {"id": _id(marker, index), "type": "function"}
        if thinks:
            sign = {"thought_signature": f"{SECRET}/{marker}.{index}", "n": 1.0, "b": [True, None]}
            call["extra_content"] = {"google": sign}
        middle = len(wanted) // 2
        head = {"name": "weather", "arguments": wanted[:middle]}
        pieces += [
            {"tool_calls": [{"index": index, **call, "function": head}]},
            {"tool_calls": [{"index": index, "function": {"arguments": wanted[middle:]}}]},
        ]
        calls.append({**call, "function": {"name": "weather", "arguments": wanted}})
    return Answer(sse(*pieces, finish="tool_calls"), Given(text, fields, calls))


def _id(marker: str, index: int) -> str:
    """Return nine letters or digits, never the same."""
    number, turn, attempt = marker.split(".")
    return f"c{int(number):03}t{turn}a{attempt}{index}"[:9].ljust(9, "x")


def _more_thoughts(marker: str) -> Answer:
    """Return a call with what else endpoints want back, in pieces, and with what none does."""
    text, sign = f"{SECRET} {marker}", f"{SECRET}/{marker}"
    details = [
        {"type": "reasoning.summary", "summary": text, "index": 0, "id": None, "format": "f-v1"},
        {"type": "reasoning.encrypted", "data": sign, "id": "rs_1", "index": 1, "format": "f-v1"},
    ]
    call_id = _id(marker, 0)
    signed = {"signature": sign, "values": [2**60, -0.5, 1.0, "", {}, None, "\u2028\x7f\u00df"]}
    arguments = f'{{"city": "Oslo {marker}"}}'
    noise: dict[str, Any] = {
        "refusal": None,
        "audio": None,
        "annotations": [],
        "function_call": None,
    }
    deltas: list[dict[str, Any]] = [
        {"reasoning": text[:9], "reasoning_details": details[:1], **noise},
        {"reasoning": text[9:], "reasoning_details": details[1:], "extra_content": {"a": sign}},
        {
            "tool_calls": [
                {"index": 0, "id": call_id, "function": {"name": "weather"}, "type": None}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": arguments, "thought": signed}}]},
        {"tool_calls": [{"index": 0, "id": None, "signed": signed, "unset": None}]},
    ]
    message = {"reasoning": text, "reasoning_details": details, "extra_content": {"a": sign}}
    function = {"name": "weather", "arguments": arguments, "thought": signed}
    call = {"id": call_id, "type": "function", "function": function, "signed": signed}
    return Answer(sse(*deltas, finish="tool_calls"), Given("", message, [call]))


def _bare(marker: str) -> Answer:
    """Return a call without an id, and without arguments."""
    call = {"index": 0, "id": "", "type": "function", "function": {"name": "now"}}
    back = {"id": "", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    return Answer(sse({"tool_calls": [call]}, finish="tool_calls"), Given("", {}, [back]))


def _whole(marker: str) -> Answer:
    return Answer(sse(*_said(f"Answer {marker}."), finish="stop"))


def _ending(finish: str, text: str = "Half of") -> Callable[[str], Answer]:
    return lambda marker: Answer(sse(*_said(text), finish=finish))


def _broken_off(end: Literal["reset", "stall"]) -> Callable[[str], Answer]:
    return lambda marker: Answer(sse(*_said("Half of"), finish=None, done=False), end=end)


def _refused(marker: str) -> Answer:
    body = {"error": {"message": "This question is not answered.", "type": "policy"}}
    return Answer([json.dumps(body).encode()], status=400, content_type="application/json")


def _half_call(finish: str | None) -> Callable[[str], Answer]:
    """Return a call whose arguments end in the middle: cut off, or at a limit."""
    delta = {"name": "weather", "arguments": '{"city": "Os'}
    call = {"index": 0, "id": "halfcall1", "type": "function", "function": delta}
    pieces = sse({"content": "Half of"}, {"tool_calls": [call]}, finish=finish, done=bool(finish))
    return lambda marker: Answer(pieces, end="clean" if finish else "reset")


def _later(status: int, body: dict[str, Any]) -> Callable[[str], Answer]:
    """Return what is an error the first two times, and then an answer."""
    error = Answer([json.dumps(body).encode()], status=status, content_type="application/json")
    return lambda marker: error if int(marker.split(".")[2]) <= 2 else _whole(marker)


_LOADING = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}
_BUSY = {"error": {"message": "Rate limit reached", "type": "rate_limit_error", "code": 429}}
Turn = Callable[[str], Answer]

TURNS: dict[str, list[Turn]] = {
    "plain": [_whole],
    "tool": [_called, _whole],
    "tools": [
        lambda marker: _called(marker, count=2, thinks=True),
        lambda marker: _called(marker, text="One more."),
        lambda marker: _called(marker, count=3, thinks=True, text="The last."),
        _whole,
    ],
    "many": [*[lambda marker: _called(marker, thinks=True)] * 8, _whole],
    "broken": [lambda marker: _called(marker, arguments='{"city":"Os'), _whole],
    "list": [lambda marker: _called(marker, arguments='["Oslo"]'), _whole],
    "bare": [_bare, _whole],
    "thought": [lambda marker: _called(marker, thinks=True), _whole],
    "more_thoughts": [_more_thoughts, _more_thoughts, _whole],
    "tool_empty": [_called, _whole],
    "tool_fails": [_called, _whole],
    "cancel_tool": [_called, _whole],
    "half_call": [_half_call(None)],
    "call_length": [_half_call("length")],
    "loading": [_later(503, _LOADING)],
    "busy": [_later(429, _BUSY)],
    "busy_in_200": [_later(200, _BUSY)],
    "empty": [lambda marker: Answer(sse(finish="stop"))],
    "blank": [_ending("stop", " \n")],
    "nothing": [lambda marker: Answer([])],
    "length": [_ending("length")],
    "length_silent": [_ending("length", "")],
    "unknown": [_ending("error")],
    "filter": [_ending("content_filter")],
    "cut": [_broken_off("reset")],
    "refused": [_refused],
    "cancel": [_broken_off("stall")],
}
"""Word of the question -> the turns of its run."""


def answer_to(kind: str, turn: int, marker: str, style: str) -> Answer:
    """Return what is answered in this turn; the marker is in all that it says."""
    turns = TURNS[kind]
    answer = turns[min(turn, len(turns) - 1)](marker)
    return _loosened(answer) if style == "loose" else answer


def _loosened(answer: Answer) -> Answer:
    """Return the same answer as a sloppy endpoint gives it: no spaces, no type, CRLF."""
    if answer.status != 200 or answer.end != "clean":
        return answer
    pieces = [piece.replace(b"data: ", b"data:").replace(b"\n", b"\r\n") for piece in answer.pieces]
    return answer._replace(pieces=pieces, content_type="text/plain")
