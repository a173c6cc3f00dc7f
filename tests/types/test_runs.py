"""Runs: what a status means, and the error each unhappy end becomes."""

import pytest

from openai_runs import errors
from openai_runs.types import (
    ACTIVE_STATUSES,
    TERMINAL_STATUSES,
    RequiredAction,
    RequiredActionType,
    Run,
    RunErrorCode,
    RunLastError,
    RunStatus,
    Usage,
)

STATUSES = {value for name, value in vars(RunStatus).items() if name.isupper()}


def run(status: str) -> Run:
    """Return a run with this status."""
    return Run(id="run_1", thread_id="thread_1", status=status)


@pytest.mark.parametrize(
    ("status", "active", "terminal", "needs_action", "error"),
    [
        (RunStatus.QUEUED, True, False, False, None),
        (RunStatus.IN_PROGRESS, True, False, False, None),
        (RunStatus.REQUIRES_ACTION, True, False, True, errors.RunRequiresAction),
        (RunStatus.CANCELLING, True, False, False, errors.RunCancelled),
        (RunStatus.CANCELLED, False, True, False, errors.RunCancelled),
        (RunStatus.FAILED, False, True, False, errors.RunFailed),
        (RunStatus.COMPLETED, False, True, False, None),
        (RunStatus.INCOMPLETE, False, True, False, errors.RunIncomplete),
        (RunStatus.EXPIRED, False, True, False, errors.RunExpired),
        ("paused", False, False, False, errors.RunError),
    ],
)
def test_status_says_what_may_be_done(
    status: str,
    active: bool,
    terminal: bool,
    needs_action: bool,
    error: type[errors.RunError] | None,
) -> None:
    """Each status of the API, and one it does not have."""
    answer = run(status)

    assert (answer.is_active, answer.is_terminal, answer.needs_action) == (
        active,
        terminal,
        needs_action,
    )
    if error is None:
        assert answer.raise_for_status() is answer
        return
    with pytest.raises(error) as caught:
        answer.raise_for_status()
    assert type(caught.value) is error
    assert caught.value.run is answer
    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")


def test_each_status_is_active_or_terminal() -> None:
    """The two sets share nothing and miss nothing."""
    assert ACTIVE_STATUSES | TERMINAL_STATUSES == STATUSES
    assert not ACTIVE_STATUSES & TERMINAL_STATUSES


@pytest.mark.parametrize(
    "action", [None, RequiredAction(kind="submit_tool_approval", submit_tool_outputs=None)]
)
def test_tool_calls_are_empty_where_none_wait(action: RequiredAction | None) -> None:
    """A run without tool calls gives an empty list, not an error."""
    answer = Run(id="run_1", thread_id="thread_1", status="queued", required_action=action)

    assert answer.tool_calls == []


def test_error_of_a_failed_run_says_why_on_one_line() -> None:
    """Code and text of `last_error` stand in the message; line breaks do not."""
    why = RunLastError(code=RunErrorCode.SERVER_ERROR, message="Sorry,\nsomething\r\n\tbroke")
    failed = Run(id="run_1", thread_id="thread_1", status="failed", last_error=why)

    with pytest.raises(errors.RunFailed) as caught:
        failed.raise_for_status()

    assert caught.value.message == (
        "run 'run_1' ended as 'failed' (server_error): Sorry, something broke"
    )


def test_constants_are_the_wire_names() -> None:
    """A constant's value is its name in lower case, so a search finds both."""
    for constants in (RunStatus, RunErrorCode, RequiredActionType):
        named = {name: value for name, value in vars(constants).items() if name.isupper()}
        assert named == {name: name.lower() for name in named}


def test_usage_of_a_thrifty_server_counts_what_it_says() -> None:
    """Only `prompt_tokens` is needed; the others count as 0."""
    assert Usage(prompt_tokens=3) == Usage(prompt_tokens=3, completion_tokens=0, total_tokens=0)


REASONS: dict[str, tuple[str, str, float | None, bool]] = {
    "seconds in words": (
        "rate_limit_exceeded",
        "It is exceeded. Try again in 22 seconds.",
        22.0,
        True,
    ),
    "duration": ("rate_limit_exceeded", "Please try again in 6m0s. Visit us.", 360.0, True),
    "parts of a second": ("rate_limit_exceeded", "Please try again in 120ms.", 0.12, True),
    "after": ("rate_limit_exceeded", "Please retry after 1.5 seconds (see quota).", 1.5, True),
    "in two units": ("server_error", "Retry in 1 hour, 2 minutes", 3720.0, True),
    "as a header": ("server_error", "Retry-After: 30", 30.0, True),
    "of a code nobody knows": ("model_warming_up", "Wait 20 s.", 20.0, True),
    "no time": ("rate_limit_exceeded", "Too many tokens. Try again later.", None, True),
    "a date": ("server_error", "Retry after 2026-08-26.", None, True),
    "another unit": ("server_error", "Try again in 2 weeks.", None, True),
    "a number of something else": ("server_error", "Gave up after 3 attempts", None, True),
    "a quota that is used up": (
        "rate_limit_exceeded",
        "You exceeded your current quota, please check your plan and billing details.",
        None,
        False,
    ),
    "a rejected prompt": ("invalid_prompt", "Not that.", None, False),
    "nothing known": ("odd", "Something.", None, False),
    "without end": ("server_error", "try again in " * 10_000 + "1m" * 10_000, None, True),
}


@pytest.mark.parametrize(("code", "message", "seconds", "helps"), REASONS.values(), ids=REASONS)
def test_failed_run_says_when_a_new_one_may_help(
    code: str, message: str, seconds: float | None, helps: bool
) -> None:
    """From what the server wrote as the reason: the time it names, and the code."""
    reason = RunLastError(code=code, message=message)
    failed = Run(id="run_1", thread_id="thread_1", status="failed", last_error=reason)

    with pytest.raises(errors.RunFailed) as caught:
        failed.raise_for_status()

    assert caught.value.retry_after == seconds
    assert caught.value.retryable is helps


def test_failed_run_without_a_reason_promises_nothing() -> None:
    """No time, and no hope."""
    error = errors.RunFailed(Run(id="run_1", thread_id="thread_1", status="failed"))

    assert error.retry_after is None
    assert not error.retryable
