"""What an execution writes: messages and tool calls, as the pieces of them come.

No waiting and no store here: pieces go in, what is to be written comes out, and the whole
is there at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

import anyio
import msgspec

from openai_runs.config import FLUSH_BYTES
from openai_runs.server.backends.base import ModelFailure, ToolCallDelta
from openai_runs.server.objects.builders import new_id
from openai_runs.server.objects.transitions import (
    Delta,
    Opening,
    Writing,
    message_step,
    new_message,
    tool_step,
)
from openai_runs.types.deltas import (
    FunctionCallDelta,
    FunctionToolCallDelta,
    MessageDelta,
    MessageDeltaBody,
    RunStepDelta,
    RunStepDeltaBody,
    TextContentDelta,
    TextDelta,
    ToolCallsDelta,
)
from openai_runs.types.events import EventName
from openai_runs.types.runs import Run
from openai_runs.types.steps import FunctionCallResult, FunctionToolCall

__all__ = ["Draft"]

_CALL_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


class _Call:
    """A tool call, as far as it has come."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.place: int | None = None
        """Its index in the step; None until its name is known."""


class Draft:
    """What one execution writes, and what of it is not stored yet.

    Args:
        run: The run it writes for.
        now: Unix seconds.
        message_id: A message that was begun before, to be written on.
        step_id: A step of tool calls that was begun before.
        taken: Ids that the run's earlier tool calls have.
    """

    def __init__(
        self,
        run: Run,
        now: Callable[[], int],
        *,
        message_id: str | None,
        step_id: str | None,
        taken: Iterable[str] = (),
    ) -> None:
        """Start with nothing written."""
        self._run = run
        self._now = now
        self._message_id = message_id
        self._step_id = step_id
        self._taken = set(taken)
        self.begun = False
        """Whether this execution writes a message."""
        self._parts: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._placed: list[_Call] = []
        self._unwritten: list[Writing] = []
        self._size = 0
        self._closed = False
        self._news = anyio.Event()
        self._urgent = anyio.Event()

    @property
    def text(self) -> str:
        """Return the text so far."""
        return "".join(self._parts)

    @property
    def crowded(self) -> bool:
        """Return whether much of it is not stored yet."""
        return self._size > FLUSH_BYTES

    def say(self, text: str) -> None:
        """Add to the text."""
        if self._closed:
            return
        first = self.open_message()
        content = TextContentDelta(
            index=0, text=TextDelta(value=text, annotations=[] if first else None)
        )
        delta = MessageDelta(id=self._message_id or "", delta=MessageDeltaBody(content=[content]))
        self._write(EventName.MESSAGE_DELTA, delta)
        self._parts.append(text)

    def open_message(self) -> bool:
        """See that there is a message to write; return whether it begins now."""
        if self.begun:
            return False
        if self._message_id is None:
            now = self._now()
            message = new_message(self._run, now)
            step = message_step(self._run, message, now)
            self._add(Opening(step=step, message=message))
            self._message_id = message.id
        self.begun = True
        return True

    def call(self, delta: ToolCallDelta) -> None:
        """Add to a tool call."""
        if self._closed:
            return
        call = self._calls.setdefault(delta.index, _Call())
        call.id = call.id or delta.id
        call.name = call.name or delta.name
        if call.place is not None:
            self._add_arguments(call, call.place, delta.arguments)
        elif call.name:
            self._place(call, delta.arguments)
        else:  # nothing can be told of it yet
            call.arguments.append(delta.arguments)

    def _place(self, call: _Call, arguments: str) -> None:
        """Tell of a call for the first time, under the id it will keep."""
        if self._step_id is None:
            step = tool_step(self._run, self._now())
            self._add(Opening(step=step))
            self._step_id = step.id
        if call.id in self._taken or not _CALL_ID.match(call.id):
            call.id = new_id("call")
        self._taken.add(call.id)
        # Its own index, and not the model's: readers put calls into a list, which has no gaps.
        call.place = len(self._placed)
        self._placed.append(call)
        first = "".join([*call.arguments, arguments])
        call.arguments = [first]
        function = FunctionCallDelta(name=call.name, arguments=first)
        self._write_call(FunctionToolCallDelta(index=call.place, id=call.id, function=function))

    def _add_arguments(self, call: _Call, place: int, arguments: str) -> None:
        if arguments:
            function = FunctionCallDelta(arguments=arguments)
            self._write_call(FunctionToolCallDelta(index=place, function=function))
            call.arguments.append(arguments)

    def _write_call(self, call: FunctionToolCallDelta) -> None:
        details = ToolCallsDelta(tool_calls=[call])
        body = RunStepDeltaBody(step_details=details)
        self._write(EventName.STEP_DELTA, RunStepDelta(id=self._step_id or "", delta=body))

    @property
    def calls(self) -> list[FunctionToolCall]:
        """Return the tool calls so far."""
        return [
            FunctionToolCall(
                id=call.id,
                function=FunctionCallResult(name=call.name, arguments="".join(call.arguments)),
            )
            for call in self._placed
        ]

    def check(self) -> None:
        """See that all tool calls can be told of.

        Raises:
            ModelFailure: One has no name.
        """
        if len(self._placed) < len(self._calls):
            message = "The model called a tool without a name."
            raise ModelFailure(message)

    def _write(self, event: str, delta: MessageDelta | RunStepDelta) -> None:
        self._add(Delta(event, msgspec.json.encode(delta)))

    def _add(self, writing: Writing) -> None:
        self._unwritten.append(writing)
        self._size += len(writing.data) if isinstance(writing, Delta) else 0
        self._news.set()
        if self.crowded:
            self._urgent.set()

    async def news(self) -> None:
        """Return once there is something to be stored."""
        if not self._unwritten:
            self._news = anyio.Event()
        await self._news.wait()

    def hurry(self) -> None:
        """Have what there is stored soon."""
        self._urgent.set()

    async def urgent(self) -> None:
        """Return once there is much to be stored, or a reader has come."""
        await self._urgent.wait()

    def take(self) -> list[Writing]:
        """Return what is to be stored, in order; it counts as stored from now on."""
        taken, self._unwritten = self._unwritten, []
        self._size = 0
        self._urgent = anyio.Event()
        return taken

    def put_back(self, writings: list[Writing]) -> None:
        """Take back what could not be stored."""
        self._unwritten[:0] = writings
        self._size += sum(len(w.data) for w in writings if isinstance(w, Delta))
        self._news.set()

    def close(self) -> None:
        """Take no more pieces: what is written now is all."""
        self._closed = True

    def drop(self) -> None:
        """Take no more pieces, and forget those that are not stored."""
        self.close()
        self.take()

    def forget(self) -> None:
        """Take no more pieces, and hold none that were told of; the end of its execution.

        What is not stored stays: whoever ends the run from outside may be trying to.
        """
        self.close()
        self._parts.clear()
        self._calls.clear()
        self._placed.clear()
