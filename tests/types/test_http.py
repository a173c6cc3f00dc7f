"""What is known of the HTTP answer: read when asked for, and never a reason to fail."""

import pytest

from openai_runs.types import HTTPInfo, RateLimit


def info(**headers: str) -> HTTPInfo:
    """Return the HTTP side of an answer with these headers; `_` stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HTTPInfo(200, named, b"{}", 2)


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({"x_request_id": "req_1"}, "req_1"),
        ({"apim_request_id": "req_2"}, "req_2"),
        ({"x_ms_request_id": "req_3"}, "req_3"),
        ({"x_ms_request_id": "req_3", "x_request_id": "req_1"}, "req_1"),
        ({}, None),
    ],
)
def test_request_id_is_found_under_each_name(headers: dict[str, str], request_id: str) -> None:
    """OpenAI's name first, then those of Azure."""
    assert info(**headers).request_id == request_id


def test_rate_limit_is_read_from_its_headers() -> None:
    """Counts are numbers, resets stay the durations they were sent as."""
    limit = info(
        x_ratelimit_limit_requests="100",
        x_ratelimit_limit_tokens="40000",
        x_ratelimit_remaining_requests="99",
        x_ratelimit_remaining_tokens="39000",
        x_ratelimit_reset_requests="6m0s",
        x_ratelimit_reset_tokens="17ms",
    ).rate_limit

    assert limit == RateLimit(
        limit_requests=100,
        limit_tokens=40000,
        remaining_requests=99,
        remaining_tokens=39000,
        reset_requests="6m0s",
        reset_tokens="17ms",
    )


@pytest.mark.parametrize("value", ["", "-1", "1.5", "many", "٣", "9" * 5000, "inf", "1_0"])
def test_rate_limit_skips_what_is_no_number(value: str) -> None:
    """A hostile or odd header counts as absent."""
    assert info(x_ratelimit_limit_requests=value).rate_limit == RateLimit()


def test_repr_shows_no_header() -> None:
    """Headers may hold secrets; the repr names status and request id only."""
    shown = repr(info(x_request_id="req_1", set_cookie="secret"))

    assert shown == "HTTPInfo(status=200, request_id='req_1')"


def test_facts_are_as_given() -> None:
    """Status, body and attempts are there without any work."""
    known = info()

    assert (known.status, known.content, known.attempts, dict(known.headers)) == (200, b"{}", 2, {})
