"""Errors in the place of an answer, or within one: their words, their code, another attempt."""

from __future__ import annotations

import pytest

from tests.server.backends.chat.reading import Read, body, delta

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
    "an event with an error_msg": (
        b'event: error\ndata: {"error_code": 336501, "error_msg": "rpm rate limit exceeded"}\n\n',
        "rpm rate limit exceeded",
        "rate_limit_exceeded",
        True,
    ),
    "an event with a base_resp": (
        b'event: error\ndata: {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}\n\n',
        "rate limit",
        "rate_limit_exceeded",
        True,
    ),
    "an event with an errorMessage": (
        b'event: error\ndata: {"choices": [], "errorMessage": "no worker", "errorCode": 500}\n\n',
        "no worker",
        "server_error",
        True,
    ),
    "an error field with an error_msg": (
        b'error: {"errcode": 17, "errmsg": "daily limit reached"}\n\n',
        "daily limit reached",
        "server_error",
        False,
    ),
    "a statusCode": (
        b'{"statusCode": 429, "message": "wait"}',
        "wait",
        "rate_limit_exceeded",
        True,
    ),
    "a statusCode of a fault": (
        b'{"statusCode": 503, "error": "Service Unavailable", "message": "no worker"}',
        "no worker",
        "server_error",
        True,
    ),
    "a gateway's page": (
        b"<html><head><title>502 Bad Gateway</title></head></html>",
        "502 Bad Gateway",
        "server_error",
        True,
    ),
    "a gateway's words": (b"504 Gateway Time-out", "504 Gateway", "server_error", True),
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
    "words": (b"upstream connect error", "upstream connect error", "server_error", True),
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
