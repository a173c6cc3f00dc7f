"""No wrapping loses an answer, or the words of an error in its place."""

from __future__ import annotations

import json

import pytest

from openai_runs.server.backends.base import FinishReason
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
    read = Read(body(delta("Half <thi")) + ERRORS[how][0], think="strip")

    assert read.text == "Half <thi"
    assert read.failed is not None


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
