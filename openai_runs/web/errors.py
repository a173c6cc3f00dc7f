"""Errors as answers to a browser, all in one shape: the status, headers and body.

Framework-free; `starlette` and `aiohttp` send what `error_response` returns, and what their
frameworks reject as `rejection` returns it. The text of an error of this package may name hosts,
objects of the operator's, or what a server said: it is logged, and the browser is sent a fixed
sentence.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec

from openai_runs import (
    ActiveRunError,
    APIConnectionError,
    APIError,
    APITimeoutError,
    BadRequestError,
    ConfigError,
    ConflictError,
    NotFoundError,
    OpenAIRunsError,
    RateLimitError,
    RunCancelled,
    RunError,
    RunExpired,
    RunFailed,
    RunIncomplete,
    RunWaitTimeout,
    StreamError,
    StreamInterrupted,
    ToolError,
    UnprocessableEntityError,
)
from openai_runs._log_ids import ids_of
from openai_runs.conversations import DuplicateMessageError, LeaseLostError, ThreadGoneError

__all__ = [
    "EmptyMessageError",
    "ErrorResponse",
    "InvalidTextError",
    "TooManyMessagesError",
    "error_response",
    "has_traceback",
    "rejection",
]

_logger = logging.getLogger("openai_runs.web")

_MAX_RETRY_AFTER: Final = 86_400
"""Seconds a browser is asked to wait at most: a day."""


class EmptyMessageError(OpenAIRunsError):
    """A message has nothing but white space."""


class InvalidTextError(OpenAIRunsError):
    """A message has half of a surrogate pair, which is no character and cannot be sent on."""


class TooManyMessagesError(OpenAIRunsError):
    """A user has so many messages waiting that no more are accepted."""

    retry_after: float = 5.0
    """Seconds after which one of them may have been answered."""


class ErrorResponse(NamedTuple):
    """What a browser is answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    """JSON, of the shape that errors of the API have."""


class _Row(NamedTuple):
    kind: type[OpenAIRunsError]
    status: int
    type: str
    code: str
    message: str


_STATUSES: Final = frozenset(HTTPStatus)
_CALLER: Final = "invalid_request_error"
_SERVER: Final = "server_error"
_UPSTREAM: Final = "The assistant cannot be used at present."
_ROWS: Final = (
    _Row(
        EmptyMessageError, 400, _CALLER, "empty_message", "The message is empty: write something."
    ),
    _Row(InvalidTextError, 400, _CALLER, "invalid_text", "The message is no valid text."),
    _Row(TooManyMessagesError, 429, "rate_limit_error", "too_many_messages", "Wait for answers."),
    _Row(DuplicateMessageError, 409, _CALLER, "conflict", "The message was sent before."),
    _Row(ActiveRunError, 409, _CALLER, "active_run", "An answer is being written: wait."),
    _Row(
        ThreadGoneError,
        410,
        _CALLER,
        "thread_gone",
        "This conversation is not there any more: begin a new one.",
    ),
    _Row(NotFoundError, 404, _CALLER, "not_found", "There is no such object. Reload the page."),
    _Row(ConflictError, 409, _CALLER, "conflict", "The request contradicts an earlier one."),
    _Row(BadRequestError, 400, _CALLER, "bad_request", "The request was rejected."),
    _Row(UnprocessableEntityError, 400, _CALLER, "bad_request", "The request was rejected."),
    _Row(RateLimitError, 429, "rate_limit_error", "rate_limit_exceeded", "Too many requests."),
    _Row(
        APITimeoutError, 504, _SERVER, "upstream_timeout", "The assistant did not answer in time."
    ),
    _Row(APIConnectionError, 503, _SERVER, "upstream_unreachable", _UPSTREAM),
    _Row(APIError, 502, _SERVER, "upstream_error", _UPSTREAM),
    _Row(RunWaitTimeout, 504, _SERVER, "run_wait_timeout", "The answer takes longer; it goes on."),
    _Row(RunExpired, 504, _SERVER, "run_expired", "The answer was not finished in time."),
    _Row(RunCancelled, 409, _CALLER, "run_cancelled", "The answer was stopped."),
    _Row(RunIncomplete, 502, _SERVER, "run_incomplete", "The answer was cut short."),
    _Row(RunFailed, 502, _SERVER, "run_failed", "The answer failed."),
    _Row(RunError, 502, _SERVER, "run_error", "The answer could not be finished."),
    _Row(
        StreamInterrupted, 502, _SERVER, "stream_interrupted", "The answer's connection was lost."
    ),
    _Row(StreamError, 502, _SERVER, "stream_error", "The answer ended with an error."),
    _Row(LeaseLostError, 503, _SERVER, "lease_lost", _UPSTREAM),
    _Row(ToolError, 500, _SERVER, "tool_error", "The answer asks for tools it cannot be given."),
    _Row(ConfigError, 500, _SERVER, "server_error", "The server cannot answer this."),
    _Row(OpenAIRunsError, 502, _SERVER, "server_error", _UPSTREAM),
)
"""Error -> what a browser is answered; the first class that fits."""
_TOO_LARGE: Final = _Row(APIError, 413, _CALLER, "message_too_long", "The message is too long.")
"""In place of a row, where the server of the API has answered with 413."""


def error_response(error: OpenAIRunsError) -> ErrorResponse:
    """Return what a browser is answered where this error ends its request, and log the error.

    Errors that another request can avoid keep their status: 400, 404, 409, 413 and 429, with
    `Retry-After` where the error says when. A key that is refused, and what goes wrong at the
    server of the API, are 502; no connection to it is 503, and no answer in time 504. The log
    record is under `openai_runs.web`: a warning, or from 500 on an error. It has no
    traceback where a server or a key is at fault.

    Args:
        error: What was raised.
    """
    status = getattr(error, "status_code", None)
    kind = APITimeoutError if status == 408 else type(error)
    row = _TOO_LARGE
    if status != 413:
        row = next(row for row in _ROWS if issubclass(kind, row.kind))
    _log(error, row.status)
    headers = {}
    seconds = getattr(error, "retry_after", None)
    if seconds is not None and 0 <= seconds <= _MAX_RETRY_AFTER:
        headers["Retry-After"] = str(math.ceil(seconds))
    return _response(row.status, headers, row)


def rejection(
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
    **others: object,
) -> ErrorResponse:
    """Return what a browser is answered where a framework rejects its request.

    Args:
        status: From 400 on.
        message: What the browser is sent.
        code: Names the error; None: as the status is called.
        param: Which part of the request is wrong.
        headers: More of them.
        **others: What is sent beside `error`.
    """
    kind = _SERVER if status >= 500 else _CALLER
    named = code or (HTTPStatus(status).name.lower() if status in _STATUSES else "rejected")
    row = _Row(OpenAIRunsError, status, kind, named, message)
    return _response(status, headers or {}, row, param, others)


def _response(
    status: int,
    headers: Mapping[str, str],
    row: _Row,
    param: str | None = None,
    others: Mapping[str, Any] | None = None,
) -> ErrorResponse:
    facts = {"message": row.message, "type": row.type, "param": param, "code": row.code}
    content = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    whole = {"error": facts, **(others or {})}
    try:
        body = msgspec.json.encode(whole)
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can escape
        body = json.dumps(msgspec.to_builtins(whole, str_keys=True)).encode()
    return ErrorResponse(status, {**headers, **content}, body)


def has_traceback(error: Exception) -> bool:
    """Return whether a log record shows where an error was raised: not where no code is at fault.

    That a server cannot be reached, or takes no key, is said by one line.
    """
    return not isinstance(error, APIError | StreamInterrupted | ConfigError)


def _log(error: OpenAIRunsError, status: int) -> None:
    is_ours = status >= 500
    _logger.log(
        logging.ERROR if is_ours else logging.WARNING,
        "answered with %d: %s: %s",
        status,
        type(error).__name__,
        error,
        exc_info=error if is_ours and has_traceback(error) else None,
        extra=ids_of(error),
    )
