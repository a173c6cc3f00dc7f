"""What can go wrong with a conversation, and which errors would come again."""

from __future__ import annotations

from typing import Final

from openai_runs import APIStatusError, NotFoundError, OpenAIRunsError, RunError, ToolError

__all__ = [
    "DuplicateMessageError",
    "LeaseLostError",
    "ThreadGoneError",
    "UnreadableRecordError",
    "is_final",
]

_FIRST_OF_SERVER: Final = 500
"""Status from which on an answer says nothing about the request."""
_PASSING: Final = frozenset({401, 402, 403, 407, 408, 425, 429})
"""Statuses of a rejection that another call may not meet: of keys, quotas and time."""


class LeaseLostError(OpenAIRunsError):
    """Another process answers the message.

    This one was suspended for longer than its lease, or its conversations were closed.
    """


class DuplicateMessageError(OpenAIRunsError):
    """The message had been received before, and has its answer elsewhere."""


class ThreadGoneError(NotFoundError):
    """The thread of a conversation is not at the server: deleted, or of another server."""

    def __init__(
        self, error: NotFoundError, *, thread_id: str, stored_key: str, key: object
    ) -> None:
        """Say whose thread it is, and what to do."""
        super().__init__(
            f"thread {thread_id} of conversation {stored_key} is gone at the server: was it "
            "deleted, or is this another server?",
            status_code=error.status_code,
            request_id=error.request_id,
            body=error.body,
            headers=error.headers,
        )
        self.thread_id = thread_id
        self.advice = (
            f"await conversations.reset({key!r}) lets the next message create a new one; "
            "Conversations(..., missing_thread='new') does so for all"
        )


class UnreadableRecordError(OpenAIRunsError):
    """The stored record of a conversation cannot be read: it is damaged, or of another version.

    `Conversations.reset` replaces it by an empty one.
    """


def is_final(error: Exception | None) -> bool:
    """Return whether an error of a call or a run would come again."""
    if isinstance(error, APIStatusError):
        return error.status_code < _FIRST_OF_SERVER and error.status_code not in _PASSING
    return isinstance(error, RunError | ToolError)
