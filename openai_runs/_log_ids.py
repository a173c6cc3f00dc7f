"""Ids that log records carry as attributes, so that a JSON formatter has them as fields."""

from typing import Final, TypedDict

from openai_runs.errors import OpenAIRunsError

__all__ = ["LogIds", "ids_of"]


class LogIds(TypedDict, total=False):
    """Names of the attributes; a record has those that are known where it is written."""

    request_id: str | None
    """Of one HTTP request, as in the header `x-request-id`."""
    run_id: str
    thread_id: str
    assistant_id: str
    call_id: str
    """Of a tool call."""


_OF_ERRORS: Final = ("request_id", "run_id", "thread_id")


def ids_of(error: BaseException) -> dict[str, str]:
    """Return the ids that an error of ours names; none of any other exception."""
    if not isinstance(error, OpenAIRunsError):
        return {}
    found = {name: getattr(error, name, None) for name in _OF_ERRORS}
    return {name: value for name, value in found.items() if isinstance(value, str)}
