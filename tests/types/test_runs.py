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
