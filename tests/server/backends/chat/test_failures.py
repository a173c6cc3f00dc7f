"""What an error answer of an endpoint is shown as."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_runs.server.backends.chat.failures import refused

BODIES: dict[str, tuple[int, Any, str]] = {
    "what the provider said": (
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": '{"error": {"message": "no such tool"}}'},
            }
        },
        "Provider returned error; no such tool",
    ),
    "what the provider said in words": (
        502,
        {"error": {"message": "Provider returned error", "metadata": {"raw": "out of memory"}}},
        "Provider returned error; out of memory",
    ),
    "a phrase beside the message": (
        400,
        {"status": 400, "error": "Bad Request", "message": "the field x is not known"},
        "Bad Request; the field x is not known",
    ),
    "issues": (
        400,
        {"success": False, "error": {"issues": [{"message": "Unrecognized key: 'x'"}]}},
        "Unrecognized key: 'x'",
    ),
    "a problem": (400, {"title": "Bad Request", "detail": "x is not known"}, "x is not known"),
    "a 403 that is not of the key": (
        403,
        {"error": {"message": "Your input was flagged", "code": 403}},
        "HTTP 403: Your input was flagged",
    ),
}


@pytest.mark.parametrize("how", BODIES)
def test_reason_is_shown_wherever_the_body_has_it(how: str) -> None:
    """Not only where most endpoints put it."""
    status, body, words = BODIES[how]
    failed = refused(status, json.dumps(body).encode(), {}, now=0)

    assert words in failed.failure.message


@pytest.mark.parametrize("status", [401, 403])
def test_error_about_the_key_is_not_repeated(status: int) -> None:
    """Some endpoints quote it, and whoever reads the run is not who holds it."""
    body = json.dumps({"error": {"message": "Incorrect API key: sk-12**89"}}).encode()

    assert "sk-" not in refused(status, body, {}, now=0).failure.message


def test_what_an_error_quotes_is_not_taken_for_its_words() -> None:
    """A text of the caller makes no rate limit."""
    body = json.dumps({"error": {"message": "Invalid value 'too many requests'"}}).encode()
    failed = refused(400, body, {}, now=0)

    assert (failed.again, failed.failure.code) == (False, "invalid_prompt")
