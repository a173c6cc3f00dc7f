"""Answers in bytes, and what comes of them."""

from __future__ import annotations

import json
from typing import Any

from openai_runs.server.backends.base import Finish, ModelEvent, TextDelta
from openai_runs.server.backends.chat.failures import AttemptFailed
from openai_runs.server.backends.chat.reader import AnswerReader, Ending

__all__ = ["ROLE", "Read", "body", "delta", "event"]

ROLE = {"role": "assistant", "content": ""}


def delta(said: Any = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    """Return a chunk."""
    fields = {"content": said} if isinstance(said, str) else said or {}
    choice = {"index": 0, "delta": fields, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "choices": [choice], **more}


def event(value: Any) -> bytes:
    """Return an event of a stream."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"data: {text}\n\n".encode()


def body(*values: Any) -> bytes:
    """Return the bytes of a stream."""
    return b"".join(map(event, values))


class Read:
    """What came of an answer."""

    def __init__(
        self,
        content: bytes,
        ending: Ending = Ending.CLEAN,
        *,
        size: int = 1 << 20,
        why: str = "",
        think: str = "keep",
        secrets: tuple[str, ...] = (),
    ) -> None:
        reader = AnswerReader(secrets, think=think)
        self.events: list[ModelEvent] = []
        self.failed: AttemptFailed | None = None
        try:
            for at in range(0, len(content), size):
                if not reader.is_done:
                    self._take(reader.feed(content[at : at + size]))
            self._take(reader.finish(ending, why))
        except AttemptFailed as failed:
            self.failed = failed

    def _take(self, events: Any) -> None:
        for one in events:  # also those before a failure
            self.events.append(one)

    @property
    def text(self) -> str:
        """The text that was passed on."""
        return "".join(one.text for one in self.events if isinstance(one, TextDelta))

    @property
    def finish(self) -> Finish | None:
        """The last event, where the answer is whole."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, Finish) else None

    @property
    def message(self) -> str:
        """What the run would show."""
        assert self.failed is not None
        return self.failed.failure.message
