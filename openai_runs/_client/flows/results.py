"""What came of a run, gathered in one object."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec

from openai_runs._client.tools.json_schema import schema_of
from openai_runs.errors import APIResponseValidationError
from openai_runs.types.messages import Message, RefusalContent
from openai_runs.types.runs import Run, RunStatus, Usage
from openai_runs.types.steps import RunStep

__all__ = ["RunResult"]


class RunResult(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A run with what it wrote and did."""

    run: Run
    messages: list[Message]
    """The messages this run wrote, oldest first."""
    steps: list[RunStep]
    """The steps, oldest first; empty where the server has no steps endpoint."""
    recovered: bool = False
    """Whether a stream was cut and the rest was fetched by polling."""
    response_format: type | None = None
    """The type that `parsed` is an instance of."""

    @property
    def text(self) -> str:
        """Return the text of all messages, a blank line between them."""
        return "\n\n".join(message.text for message in self._readable() if message.text)

    @property
    def usage(self) -> Usage | None:
        """Return the tokens used; None until the run is finished."""
        return self.run.usage

    @cached_property
    def parsed(self) -> Any:
        """The last text as an instance of `response_format`, read when first asked for.

        None if no type was given, the run is not completed, or the model refused.

        Raises:
            APIResponseValidationError: The text does not fit the type; it is still in `text`.
        """
        readable = self._readable()
        refused = any(isinstance(part, RefusalContent) for one in readable for part in one.content)
        if self.response_format is None or refused or self.run.status != RunStatus.COMPLETED:
            return None
        text = next((one.text for one in reversed(readable) if one.text), "")
        try:
            return schema_of(self.response_format).decode(text)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as problem:
            error = APIResponseValidationError(
                f"its text does not fit {self.response_format.__name__}: {problem}",
                method="run",
                url=self.run.id,
                excerpt=text,
            )
            error.locate(thread_id=self.run.thread_id, run_id=self.run.id)
            raise error from problem

    def _readable(self) -> list[Message]:
        return [message for message in self.messages if isinstance(message, Message)]
