"""What came of a run, gathered in one object."""

from __future__ import annotations

import msgspec

from openai_runs.types.messages import Message
from openai_runs.types.runs import Run, Usage
from openai_runs.types.steps import RunStep

__all__ = ["RunResult"]


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """A run with what it wrote and did."""

    run: Run
    messages: list[Message]
    """The messages this run wrote, oldest first."""
    steps: list[RunStep]
    """The steps, oldest first; empty where the server has no steps endpoint."""

    @property
    def text(self) -> str:
        """Return the text of all messages, a blank line between them."""
        readable = (message for message in self.messages if isinstance(message, Message))
        return "\n\n".join(message.text for message in readable)

    @property
    def usage(self) -> Usage | None:
        """Return the tokens used; None until the run is finished."""
        return self.run.usage
