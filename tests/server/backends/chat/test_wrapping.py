"""No wrapping loses an answer, or the words of an error in its place."""

from __future__ import annotations

import json

import pytest

from openai_runs.server.backends.base import FinishReason, ToolCallDelta
from tests.server.backends.chat.reading import ROLE, Read, body, delta, event

STREAM = [delta(ROLE), delta("Hello "), delta("back."), delta(finish="stop")]
PRETTY = json.dumps({"choices": [{"message": {"content": "Hello back."}}]}, indent=1)
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


ERRORS: dict[str, tuple[bytes, str, str, bool]] = {
    "a body": (b'{"error": {"message": "no such model"}}', "no such model", "server_error", False),
    "a list": (
        b'[{"error": {"code": 400, "message": "missing a thought_signature."}}]',
        "missing a thought_signature.",
        "invalid_prompt",
        False,
    ),
    "a 429 by its code": (
        b'{"error": {"message": "worker limit reached", "type": "rate_limit", "code": 429}}',
        "worker limit reached",
        "rate_limit_exceeded",
        True,
    ),
    "a 429 as text": (
        b'{"error": {"message": "wait", "code": "429"}}',
        "wait",
        "rate_limit_exceeded",
        True,
    ),
    "a 429 by its status": (
        b'{"error": {"message": "quota", "status": "RESOURCE_EXHAUSTED", "code": 429}}',
        "quota",
        "rate_limit_exceeded",
        True,
    ),
    "a 429 by its words": (
        b'data: {"error": "Too many requests, slow down"}\n\n',
        "slow down",
        "rate_limit_exceeded",
        True,
    ),
    "a 429 on a page": (
        b"<html><title>429 Too Many Requests</title></html>",
        "429 Too Many Requests",
        "rate_limit_exceeded",
        True,
    ),
    "a base_resp": (
        b'{"choices": null, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}',
        "rate limit",
        "rate_limit_exceeded",
        True,
    ),
    "an error_msg": (
        b'{"error_code": 17, "error_msg": "daily limit reached"}',
        "daily limit reached",
        "server_error",
        False,
    ),
    "a quota": (
        b'{"error": {"message": "pay", "code": "insufficient_quota", "status": 429}}',
        "pay",
        "rate_limit_exceeded",
        False,
    ),
    "a 503 in a 200": (
        b'{"error": {"message": "down", "code": 503}}',
        "down",
        "server_error",
        True,
    ),
    "a model that loads": (
        b'{"error": "Model m is currently loading", "estimated_time": 20}',
        "currently loading",
        "server_error",
        True,
    ),
    "an object": (
        b'data: {"object": "error", "message": "cache is full", "code": 400}\n\n',
        "cache is full",
        "invalid_prompt",
        False,
    ),
    "a type": (b'data: {"type": "error", "message": "full"}\n\n', "full", "server_error", False),
    "an event": (b'event: error\ndata: {"message": "full"}\n\n', "full", "server_error", False),
    "an event in words": (
        b"event: error\ndata: it is full\n\n",
        "it is full",
        "server_error",
        False,
    ),
    "a choice": (
        b'data: {"choices": [{"delta": {}, "error": {"message": "full", "code": 502}}]}\n\n',
        "full",
        "server_error",
        True,
    ),
    "an error field": (
        b'error: {"code": 503, "message": "Loading model", "type": "unavailable_error"}\n\n',
        "Loading model",
        "server_error",
        True,
    ),
    "an error field in words": (b"error: it is full\n\n", "it is full", "server_error", False),
    "no choices, but an error_message": (
        b'{"id": "", "choices": null, "error_type": "BadRequest", "error_message": "too long"}',
        "too long",
        "server_error",
        False,
    ),
    "no choices, but an errorMessage": (
        b'data: {"choices": [], "errorMessage": "no worker", "errorCode": 500}\n\n',
        "no worker",
        "server_error",
        True,
    ),
    "no choices, but a message and a code": (
        b'data: {"choices": null, "message": "quota is used up", "code": 429}\n\n',
        "quota is used up",
        "rate_limit_exceeded",
        True,
    ),
    "a status in digits": (
        b'{"status": "439", "msg": "the token expired", "body": null}',
        "the token expired",
        "server_error",
        False,
    ),
    "a status in words": (
        b'data: {"status": "error", "reason": "the worker died"}\n\n',
        "the worker died",
        "server_error",
        False,
    ),
    "no success": (
        b'data: {"success": false, "choices": [], "msg": "no worker"}\n\n',
        "no worker",
        "server_error",
        False,
    ),
    "a type in words": (
        b'data: {"type": "overloaded_error", "message": {"text": "wait"}}\n\n',
        "wait",
        "server_error",
        True,
    ),
    "a time-out without a code": (
        b'data: {"error": {"message": "Upstream idle timeout exceeded"}, "choices": []}\n\n',
        "Upstream idle timeout exceeded",
        "server_error",
        True,
    ),
    "a server error without a code": (
        b'data: {"error": {"message": "we had an error", "type": "server_error"}}\n\n',
        "we had an error",
        "server_error",
        True,
    ),
    "a detail": (b'{"detail": "not found"}', "not found", "server_error", False),
    "errors": (
        b'{"errors": [{"message": "one"}, {"message": "two"}]}',
        "one; two",
        "server_error",
        False,
    ),
    "a page": (b"<!doctype html><title>Sign in</title>", "Sign in", "server_error", False),
    "words": (b"upstream connect error", "upstream connect error", "server_error", False),
    "another JSON": (b'{"ok": true}', "ok", "server_error", False),
    "half a JSON": (b'{"choices": [{"mess', "mess", "server_error", False),
    "a number": (b"data: 17\n\n", "17", "server_error", False),
}


@pytest.mark.parametrize("size", [1, 1 << 20], ids=["byte by byte", "whole"])
@pytest.mark.parametrize("how", ERRORS)
def test_error_within_a_200_is_told_in_its_words(how: str, size: int) -> None:
    """With its code, and whether another attempt may help."""
    content, words, code, again = ERRORS[how]
    read = Read(content, size=size)

    assert words in read.message
    assert read.failed is not None
    assert (read.failed.failure.code, read.failed.again) == (code, again)


@pytest.mark.parametrize("how", ERRORS)
def test_error_within_an_answer_keeps_its_text(how: str) -> None:
    """What was said before is kept, and what was held back of it too."""
    content = body(delta("Half <thi")) + ERRORS[how][0].rstrip() + b"\n\ndata: [DONE]\n\n"
    read = Read(content, think="strip")

    assert read.text == "Half <thi"
    assert read.failed is not None


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
