"""What is logged of replies: how each has ended, and an outage of the server once.

What may not live here: texts of messages and answers.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from openai_runs import Run
from openai_runs._log_ids import ids_of
from openai_runs.conversations.errors import DuplicateMessageError

__all__ = ["Outcome", "Outcomes", "log_new_thread"]

_logger = logging.getLogger("openai_runs.conversations")


class Outcome(NamedTuple):
    """How a reply has ended."""

    failure: Exception | None
    run: Run | None
    """As it was seen last."""
    is_cut: bool
    """Whether the error is of the way to the run."""
    is_left: bool
    """Whether the message is answered later."""

    @property
    def word(self) -> str:
        """Return it in a word or two."""
        name = "" if self.failure is None else type(self.failure).__name__
        if isinstance(self.failure, DuplicateMessageError):
            return "received before"
        if self.is_left:
            return f"left, to be answered later ({name})" if name else "left, to be answered later"
        if self.run is None:
            return name or "cancelled"
        return self.run.status if self.run.is_terminal else name or "cancelled"


class Outcomes:
    """The log of the replies of one `Conversations`."""

    def __init__(self) -> None:
        self._is_out = False

    def log(self, message_id: int, key: str, outcome: Outcome, *, is_merged: bool) -> None:
        """Log how a reply has ended, and where an outage begins or ends."""
        error, run = outcome.failure, outcome.run
        ids = {} if run is None else {"run_id": run.id, "thread_id": run.thread_id}
        message = f"message {message_id}" if message_id else "a message"
        word = "answered with a later one" if is_merged else outcome.word
        _logger.info("%s of conversation %s: %s", message, key, word, extra=ids)
        if error is not None and outcome.is_cut:
            if not self._is_out:
                words = "messages cannot be answered for now: %s: %s"
                _logger.warning(words, type(error).__name__, error, extra=ids_of(error))
            self._is_out = True
        elif self._is_out and run is not None and run.is_terminal:
            self._is_out = False
            _logger.warning("messages are answered again", extra=ids)


def log_new_thread(thread_id: str, key: str) -> None:
    """Warn that a conversation goes on without what was said before."""
    words = (
        "thread %s of conversation %s is gone at the server: it goes on in a new one, without "
        "what was said before"
    )
    _logger.warning(words, thread_id, key, extra={"thread_id": thread_id})
