"""No wrapping loses an answer, or the words of an error in its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_runs.server.backends.base import FinishReason, ToolCallDelta
from tests.server.backends.chat.reading import ROLE, Read, body, delta, event

STREAM = [delta(ROLE), delta("Hello "), delta("back."), delta(finish="stop")]


def repeating(text: str, finish: str | None = "stop") -> dict[str, Any]:
    """Return a chunk with nothing new in its delta, and the message so far beside it."""
    choice = {"index": 0, "delta": {}, "message": {"content": text}, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "choices": [choice]}


PRETTY = json.dumps({"choices": [{"message": {"content": "Hello back."}}]}, indent=1)
WHOLE = b'{"choices": [{"message": {"content": "Hello back."}, "finish_reason": "stop"}]}'
WRAPPED: dict[str, bytes] = {
    "errors that are none": body(
        *(
            one | {"error": {"code": 0, "message": ""}, "base_resp": {"status_code": 0}}
            for one in STREAM
        )
    ),
    "events": body(*STREAM, "[DONE]"),
    "no last blank line": body(*STREAM).rstrip(b"\n"),
    "no blank lines": b"".join(b"data: " + json.dumps(v).encode() + b"\n" for v in STREAM),
    "carriage returns": body(*STREAM, "[DONE]").replace(b"\n", b"\r\n"),
    "only carriage returns": body(*STREAM, "[DONE]").replace(b"\n", b"\r"),
    "blanks before each line": b"".join(b"  " + event(v) for v in [*STREAM, "[DONE]"]),
    "a byte order mark before each event": b"".join(b"\xef\xbb\xbf" + event(v) for v in STREAM),
    "a NUL at each end": b"".join(b"\0" + event(v).rstrip() + b"\0\n\n" for v in STREAM) + b"\0",
    "a whole answer with NULs around": b"\0" + WHOLE + b"\0\0",
    "events of several lines, one of them prefixed": b"".join(
        b"data: " + json.dumps(v, indent=1).encode() + b"\n\n" for v in STREAM
    ),
    "no space after the colon": body(*STREAM).replace(b"data: ", b"data:"),
    "a byte order mark": b"\xef\xbb\xbf" + body(*STREAM),
    "names, ids, comments, pings": b": hi\n\nretry: 3\n\n"
    + b"id: 1\nevent: completion\n".join([b"", *map(event, STREAM)])
    + b'event: ping\ndata: {"type": "ping"}\n\ndata:\n\n: bye',
    "one JSON value a line": b"".join(json.dumps(v).encode() + b"\n" for v in STREAM),
    "one JSON value behind the other": b"".join(json.dumps(v).encode() for v in STREAM),
    "a list of chunks": json.dumps(STREAM).encode(),
    "events of several lines": b"".join(
        b"data: " + json.dumps(v, indent=1).replace("\n", "\ndata: ").encode() + b"\n\n"
        for v in STREAM
    ),
    "each line prefixed twice": b"".join(
        b"data: " + event(v).rstrip() + b"\ndata:\ndata:\n\n" for v in [*STREAM, "[DONE]"]
    ),
    "events behind each other": b"".join(event(v).rstrip() for v in [*STREAM, "[DONE]"]),
    "encoded twice": body(*(json.dumps(json.dumps(v)) for v in STREAM), "[DONE]"),
    "records": b"".join(b"data: \x1e" + json.dumps(v).encode() + b"\n\n" for v in STREAM),
    "signs of life": body("ping", "null", '""', STREAM[0], "heartbeat", *STREAM[1:])
    + b'event: ping\ndata: {"time": 1}\n\nevent: keep-alive\ndata: 2026-01-01\n\n',
    "DONE without brackets": body(delta("Hello back."), "DONE"),
    "another word for the end": body(delta("Hello back."), "[END]"),
    "[DONE] in quotes": body(delta("Hello back."), '"[DONE]"'),
    "an event that is a whole answer": event(
        {"choices": [{"message": {"content": "Hello back."}, "finish_reason": "stop"}]}
    ),
    "several choices of one index": event(
        {"choices": [*delta("Hello ")["choices"], *delta("back.", "stop")["choices"]]}
    ),
    "another choice beside": event(
        {
            "choices": [
                *delta("Hello back.", "stop")["choices"],
                {"index": 1, "delta": {"content": "x"}},
            ]
        }
    ),
    "a choice that is no list": event({"choices": delta("Hello back.", "stop")["choices"][0]}),
    "parts": body(delta({"content": [{"type": "text", "text": "Hello "}, "back."]}, "stop")),
    "a raw line feed in a text": event(
        '{"choices": [{"delta": {"content": "Hello back."}, "x": "\t"}]}'
    )
    + event(delta(finish="stop")),
    "whole, with errors that are none": json.dumps(
        {
            "error": None,
            **delta(),
            "choices": [{"message": {"content": "Hello back."}, "finish_reason": "stop"}],
        }
    ).encode(),
    "whole, over many lines": PRETTY.replace(
        '"message"', '"finish_reason": "stop", "message"'
    ).encode(),
    "the whole once more at the end": body(
        *STREAM[:-1],
        {
            "object": "chat.completion",
            "choices": [{"message": {"content": "Hello back."}, "finish_reason": "stop"}],
        },
    ),
    "the whole once more in the last chunk": body(*STREAM[:-1], repeating("Hello back."), "[DONE]"),
    "the message so far beside each delta": body(
        STREAM[0],
        *(
            {"choices": [one["choices"][0] | {"message": {"content": so_far}}]}
            for one, so_far in zip(
                STREAM[1:], ("Hello ", "Hello back.", "Hello back."), strict=True
            )
        ),
    ),
    "the message so far, ahead of the deltas": body(
        STREAM[1], repeating("Hello back.", None), STREAM[-1]
    ),
}


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("how", WRAPPED)
def test_no_wrapping_loses_the_answer(how: str, size: int) -> None:
    """Whatever it is called and however it is cut."""
    read = Read(WRAPPED[how], size=size)

    assert read.failed is None
    assert read.text == "Hello back."
    assert read.finish is not None
    assert read.finish.reason == FinishReason.STOP


FINE: dict[str, dict[str, object]] = {
    "a code and a word of success": {"code": 0, "message": "Success", "sid": "x"},
    "a status": {"status": "processing"},
    "a status of success": {"status": 200, "success": True, "msg": "ok"},
    "zeros for a code": {"code": "00000", "msg": "\u6210\u529f"},
    "a code of success in words": {"code": "OK", "message": "request done"},
    "a status of a 201": {"status_code": 201, "message": "created"},
    "a code without words": {"code": 10000},
    "a detail that is none": {"detail": None},
    "an error_code of none": {"error_code": 0, "error_msg": "success"},
}


@pytest.mark.parametrize("how", FINE)
def test_what_says_that_all_is_well_is_no_error(how: str) -> None:
    """Beside a piece, and beside no choices."""
    beside = [delta("Hello ") | FINE[how], {"choices": []} | FINE[how]]
    read = Read(body(*beside, delta("back.", "stop"), "[DONE]"))

    assert read.text == "Hello back."
    assert read.finish is not None


CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("part", ["message", "delta"])
def test_calls_in_a_choice_of_their_own_belong_to_the_answer(part: str) -> None:
    """Some gateways put the text into the first choice and the calls into the next."""
    texts = {"role": "assistant", "content": "Let me see."}
    calls = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    choices = [
        {"index": index, part: said, "finish_reason": "tool_calls"}
        for index, said in enumerate([texts, calls, calls])
    ]
    read = Read(json.dumps({"choices": choices}).encode())

    assert read.text == "Let me see."
    assert {one.index for one in read.events if isinstance(one, ToolCallDelta)} == {0}


ELSEWHERE: dict[str, dict[str, object]] = {
    "in camel case": {"choices": [{"delta": {"content": "Half"}, "finishReason": "length"}]},
    "in the piece": {"choices": [{"delta": {"content": "Half", "finish_reason": "length"}}]},
    "beside the choices": {
        "choices": [{"delta": {"content": "Half"}, "finish_reason": None}],
        "finish_reason": "length",
    },
    "as a stop reason": {"choices": [{"delta": {"content": "Half"}, "stop_reason": "max_tokens"}]},
    "as the model's own": {
        "choices": [
            {
                "delta": {"content": "Half"},
                "finish_reason": "stop",
                "native_finish_reason": "MAX_TOKENS",
            }
        ]
    },
}


@pytest.mark.parametrize("how", ELSEWHERE)
def test_finish_reason_counts_wherever_it_stands(how: str) -> None:
    """An answer that is cut short is not taken for whole because of a name."""
    read = Read(body(ELSEWHERE[how], "[DONE]"))

    assert read.finish is not None
    assert read.finish.reason == FinishReason.LENGTH


def test_failure_that_comes_with_a_message_shows_it() -> None:
    """The finish reason may be an object that says why."""
    read = Read(body(delta("Half", {"type": "abort", "message": "the input is too long"})))

    assert "abort: the input is too long" in read.message


@pytest.mark.parametrize("secret", ["se/cret=of-mine"])
def test_no_failure_repeats_a_secret(secret: str) -> None:
    """In an error, a word, or what is no answer."""
    contents = [
        json.dumps({"error": {"message": f"no {secret}"}}).encode(),
        body(delta("x", f"bad {secret}"), "[DONE]"),
        f"no {secret}".encode(),
        b'{"key": "' + secret.encode() + b'"}',
    ]
    for content in contents:
        assert secret not in Read(content, secrets=(secret,)).message
