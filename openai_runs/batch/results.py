"""The lines a batch writes, in the form of the vendor's Batch API, and which may be retried."""

from __future__ import annotations

from typing import Any

import msgspec

from openai_runs import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AuthenticationError,
    InternalServerError,
    NotFoundError,
    OpenAIRunsError,
    PermissionDeniedError,
    RateLimitError,
    Run,
    RunError,
    RunExpired,
    RunFailed,
    RunRequiresAction,
    RunResult,
    RunWaitTimeout,
)

__all__ = ["ends_batch", "error_line", "error_of", "how_to_retry", "result_line"]


def ends_batch(error: OpenAIRunsError) -> bool:
    """Return whether no other line would fare better: the server does not let us, or is gone."""
    fatal = APIConnectionError | AuthenticationError | PermissionDeniedError | RateLimitError
    return isinstance(error, fatal)


def error_of(result: RunResult) -> RunError | None:
    """Return why the run of this result is no success; None if it is one."""
    try:
        result.run.raise_for_status()
    except RunError as error:
        return error
    return None


def how_to_retry(error: OpenAIRunsError) -> str | None:
    """Return how a line is retried that failed; None: no use.

    `anew`: with another run; `later`: so, by the next start; `resume`: with what there is.
    """
    if isinstance(error, RunFailed):
        return "anew" if error.retryable else None
    if isinstance(error, RunExpired):
        return "anew"
    if isinstance(error, NotFoundError):
        return "later"
    passing = RunRequiresAction | RunWaitTimeout | InternalServerError | APIConnectionError
    return "resume" if isinstance(error, passing) else None


def result_line(line_id: str, custom_id: str, result: RunResult) -> bytes:
    """Return the line of a run: its body is the run with what it wrote, `text` and `messages`."""
    return _line(line_id, custom_id, _response(result.run, result), None)


def error_line(
    line_id: str, custom_id: str, error: OpenAIRunsError, result: RunResult | None
) -> bytes:
    """Return the line of an error, with the run if there is one, and what that wrote."""
    response, code = None, type(error).__name__
    message = error.message if isinstance(error, APIError) else str(error)
    if isinstance(error, RunError) and isinstance(error.run, Run):
        response, code = _response(error.run, result), error.run.status
        if error.run.last_error is not None:  # ids and status stand in the run
            code, message = error.run.last_error.code, error.run.last_error.message
    elif isinstance(error, APIStatusError):
        response = {
            "status_code": error.status_code,
            "request_id": error.request_id,
            "body": error.body,
        }
        code = error.code or code
    return _line(line_id, custom_id, response, {"code": code, "message": message})


def _response(run: Run, result: RunResult | None) -> dict[str, Any]:
    request_id = None if run.http is None else run.http.request_id
    text, messages = ("", []) if result is None else (result.text, result.messages)
    body = {**run.to_dict(), "text": text, "messages": messages}
    return {"status_code": 200, "request_id": request_id, "body": body}


def _line(line_id: str, custom_id: str, response: object, error: object) -> bytes:
    value = {"id": line_id, "custom_id": custom_id, "response": response, "error": error}
    return msgspec.json.encode(value) + b"\n"
