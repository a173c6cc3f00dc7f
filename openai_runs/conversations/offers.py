"""When a conversation that was left is offered again, after the reply to it has left it, too."""

from __future__ import annotations

from typing import Final

import anyio

from openai_runs.config import CONVERSATION_MAX_PAUSE
from openai_runs.conversations.reply import Reply

__all__ = ["Offer"]

_FACTOR: Final = 2.0


class Offer:
    """A reply that `abandoned` has yielded.

    Args:
        reply: The reply.
        previous: The one before it in the same conversation.
        pause: Seconds until the next one, at least, the first time.
    """

    def __init__(self, reply: Reply, previous: Offer | None, pause: float) -> None:
        self._reply = reply
        self._left_at: float | None = None
        if previous is not None and previous.is_left:
            pause = min(previous.pause * _FACTOR, max(pause, CONVERSATION_MAX_PAUSE))
        self.pause: float = pause

    @property
    def is_left(self) -> bool:
        """Return whether its reply has left the message again."""
        return self._reply.is_left

    @property
    def is_due(self) -> bool:
        """Return whether what is in the conversation may be offered again."""
        if not self.is_left:
            return True
        now = anyio.current_time()
        if self._left_at is None:
            self._left_at = now  # as far as is known here
        return now >= self._left_at + self.pause
