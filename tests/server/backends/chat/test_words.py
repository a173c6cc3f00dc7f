"""The words of endpoints: finish reasons, and what busy ones say."""

from __future__ import annotations

import pytest

from openai_runs.server.backends.chat.words import finish_word, is_loading, is_rate_limit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Loading model", True),
        ("Model meta/x is currently loading", True),
        ("The model is not ready yet", True),
        ("server is starting up", True),
        ("Overloaded, try again later", True),
        ("Model is busy, please retry", True),
        ("The request queue is full", True),
        ("no free slots, retry later", True),
        ("该模型当前访问量过大，请您稍后再试", True),
        ("系统繁忙", True),
        ("error loading model: no such file", False),
        ("failed to load model", False),
        ("the weather model", False),
        ("Only models starting with 'azure/' are served", False),
        ("No models loaded. Please load a model", False),
    ],
)
def test_loading_is_told_by_its_words(text: str, expected: bool) -> None:
    """And not taken for a model that cannot be loaded."""
    assert is_loading(text) is expected


def test_rate_limit_is_told_by_its_words() -> None:
    """In the spellings of the field."""
    words = ["rate_limit_exceeded", "Rate limit reached", "RateLimitError", "ThrottlingException"]
    assert all(map(is_rate_limit, [*words, "too_many_requests", "HTTP 429"]))
    assert not any(map(is_rate_limit, ["limit", "4290", "stop"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Open api qps request limit reached", True),
        ("AppIdQpsOverFlowError", True),
        ("Concurrency limit reached", True),
        ("You have exceeded the limit of concurrent requests", True),
        ("slow_down", True),
        ("Requests per minute exceeded", True),
        ("您当前使用该API的并发数过高", True),
        ("请求过于频繁", True),
        ("已触发限流", True),
        ("the limit of the context was exceeded", False),
        ("max_tokens is above the limit", False),
        ("slow model", False),
        ("concurrent users are not supported", False),
    ],
)
def test_rate_limit_of_other_names_is_told(text: str, expected: bool) -> None:
    """Of requests at once, by the second or the minute, and in Chinese."""
    assert is_rate_limit(text) is expected


def test_word_is_read_whatever_its_type() -> None:
    """Text, an object that names it, or a number, which nobody knows."""
    assert [finish_word(x) for x in ("stop", {"type": "stop"}, None, False, "", "NULL", 7)] == [
        *("stop", "stop", "", "", "", "", "7")
    ]
