"""What a browser is answered for each error, and what is logged of it."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from openai_runs import Run, errors
from openai_runs.conversations import DuplicateMessageError, LeaseLostError, ThreadGoneError
from openai_runs.types.runs import RunLastError
from openai_runs.web import (
    EmptyMessageError,
    InvalidTextError,
    TooManyMessagesError,
    error_response,
)
from tests.support import run_json

SECRET = "sk-secret at http://upstream.internal:8080/v1/threads/thread_1"


def status_error(kind: type[errors.APIStatusError], code: int, **facts: Any) -> Any:
    """Return an error as a server's answer makes it."""
    error = kind(SECRET, status_code=code, code="c", param="assistant_id", request_id="req_1")
    for name, value in facts.items():
        setattr(error, name, value)
    return error


def run_of(message: str = SECRET) -> Run:
    """Return a run that failed with this text."""
    run = msgspec.convert(run_json(), Run)
    return msgspec.structs.replace(
        run, last_error=RunLastError(code="server_error", message=message)
    )


TABLE: dict[str, tuple[errors.OpenAIRunsError, int, str]] = {
    "400": (status_error(errors.BadRequestError, 400), 400, "bad_request"),
    "active-run": (status_error(errors.ActiveRunError, 400), 409, "active_run"),
    "401": (status_error(errors.AuthenticationError, 401), 502, "upstream_error"),
    "403": (status_error(errors.PermissionDeniedError, 403), 502, "upstream_error"),
    "404": (status_error(errors.NotFoundError, 404), 404, "not_found"),
    "408": (status_error(errors.APIStatusError, 408), 504, "upstream_timeout"),
    "409": (status_error(errors.ConflictError, 409), 409, "conflict"),
    "413": (status_error(errors.APIStatusError, 413), 413, "message_too_long"),
    "422": (status_error(errors.UnprocessableEntityError, 422), 400, "bad_request"),
    "429": (status_error(errors.RateLimitError, 429), 429, "rate_limit_exceeded"),
    "500": (status_error(errors.InternalServerError, 500), 502, "upstream_error"),
    "503": (status_error(errors.InternalServerError, 503), 502, "upstream_error"),
    "connection": (errors.APIConnectionError(SECRET), 503, "upstream_unreachable"),
    "time-out": (errors.APITimeoutError(SECRET), 504, "upstream_timeout"),
    "unreadable": (errors.APIResponseValidationError(SECRET), 502, "upstream_error"),
    "wait": (errors.RunWaitTimeout(run_of(), 10), 504, "run_wait_timeout"),
    "failed": (errors.RunFailed(run_of()), 502, "run_failed"),
    "expired": (errors.RunExpired(run_of()), 504, "run_expired"),
    "cancelled": (errors.RunCancelled(run_of()), 409, "run_cancelled"),
    "incomplete": (errors.RunIncomplete(run_of()), 502, "run_incomplete"),
    "requires-action": (errors.RunRequiresAction(run_of()), 502, "run_error"),
    "interrupted": (errors.StreamInterrupted(SECRET), 502, "stream_interrupted"),
    "too-large": (errors.StreamTooLarge(SECRET), 502, "stream_error"),
    "tool": (errors.ToolError(SECRET), 500, "tool_error"),
    "config": (errors.ConfigError(SECRET), 500, "server_error"),
    "lease": (LeaseLostError(SECRET), 503, "lease_lost"),
    "thread-gone": (
        ThreadGoneError(
            status_error(errors.NotFoundError, 404),
            thread_id="thread_1",
            stored_key=SECRET,
            key=SECRET,
        ),
        410,
        "thread_gone",
    ),
    "empty": (EmptyMessageError(SECRET), 400, "empty_message"),
    "invalid-text": (InvalidTextError(SECRET), 400, "invalid_text"),
    "many": (TooManyMessagesError(SECRET), 429, "too_many_messages"),
    "duplicate": (DuplicateMessageError(SECRET), 409, "conflict"),
    "any": (errors.OpenAIRunsError(SECRET), 502, "server_error"),
}


@pytest.mark.parametrize("row", TABLE)
def test_error_is_answered_without_what_it_says_when(row: str) -> None:
    """Status and code fit; hosts, keys, ids and the names of parameters stay here."""
    error, status, code = TABLE[row]

    answer = error_response(error)
    facts = msgspec.json.decode(answer.body)["error"]

    assert (answer.status, facts["code"]) == (status, code)
    assert facts.keys() == {"message", "type", "param", "code"}
    assert facts["param"] is None
    for hidden in ("sk-secret", "upstream.internal", "thread_1", "run_1", "req_1", "assistant_id"):
        assert hidden.encode() not in answer.body
    assert answer.headers["Content-Type"] == "application/json"


def test_every_kind_of_error_has_a_row() -> None:
    """A new error is not answered by chance."""
    kinds = {type(error) for error, *_ in TABLE.values()}
    leaves = {
        getattr(errors, name)
        for name in errors.__all__
        if isinstance(getattr(errors, name), type)
        and issubclass(getattr(errors, name), errors.OpenAIRunsError)
        and not getattr(errors, name).__subclasses__()
    }

    assert leaves - kinds == set()


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        pytest.param(status_error(errors.RateLimitError, 429, retry_after=1.2), "2", id="rounded"),
        pytest.param(status_error(errors.RateLimitError, 429), None, id="unknown"),
        pytest.param(status_error(errors.RateLimitError, 429, retry_after=1e9), None, id="absurd"),
        pytest.param(
            status_error(errors.InternalServerError, 503, retry_after=0), "0", id="at-once"
        ),
        pytest.param(errors.RunFailed(run_of("Try again in 20s.")), "20", id="failed-run"),
        pytest.param(TooManyMessagesError(""), "5", id="many"),
    ],
)
def test_browser_is_told_when_to_come_back_where_that_is_known(error: Any, wanted: Any) -> None:
    """`Retry-After` in whole seconds, and none that nobody could mean."""
    assert error_response(error).headers.get("Retry-After") == wanted


@pytest.mark.parametrize(("row", "level"), [("404", "WARNING"), ("500", "ERROR")])
def test_error_is_logged_whole_with_its_ids(
    row: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What the browser is not shown: the text, and the ids as attributes of the record."""
    error = TABLE[row][0]
    error.locate(thread_id="thread_9", run_id="run_9")

    with caplog.at_level(logging.WARNING, "openai_runs.web"):
        error_response(error)
    (record,) = caplog.records

    assert record.levelname == level
    assert "upstream.internal" in record.getMessage()
    facts = vars(record)
    assert (facts["thread_id"], facts["run_id"], facts["request_id"]) == (
        "thread_9",
        "run_9",
        "req_1",
    )


@pytest.mark.parametrize(
    ("row", "has_traceback"),
    [("connection", False), ("time-out", False), ("401", False), ("500", False), ("tool", True)],
)
def test_error_is_logged_in_one_line_when_no_code_is_at_fault(
    row: str, has_traceback: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is down, or takes no key, is no reason for a traceback."""
    error_response(TABLE[row][0])
    (record,) = caplog.records

    assert bool(record.exc_info) is has_traceback
