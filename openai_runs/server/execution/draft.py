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
from openai_runs.server.backends.base import Echoed, ModelFailure, ToolCallDelta
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
        used_ids: Ids that the run's earlier tool calls have.
    """

    def __init__(
        self,
        run: Run,
        now: Callable[[], int],
        *,
        message_id: str | None,
        step_id: str | None,
        used_ids: Iterable[str] = (),
    ) -> None:
        """Start with nothing written."""
        self._run = run
        self._now = now
        self._message_id = message_id
        self._step_id = step_id
        self._used_ids = set(used_ids)
        self.begun = False
        """Whether this execution writes a message."""
        self._parts: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._placed: list[_Call] = []
        self._unwritten: list[Writing] = []
        self._size = 0
        self._closed = False
        self._changed = anyio.Event()
        self._urgent = anyio.Event()

    @property
    def text(self) -> str:
        """Return the text so far."""
        return "".join(self._parts)

    @property
    def is_large(self) -> bool:
        """Return whether much of it is not stored yet."""
        return self._size > FLUSH_BYTES

    def add_text(self, text: str) -> None:
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
        """Begin a message unless there is one; return whether it begins now."""
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

    def add_call(self, delta: ToolCallDelta) -> None:
        """Add to a tool call."""
        if self._closed:
            return
        call = self._calls.setdefault(delta.index, _Call())
        call.id = call.id or delta.id
        call.name = call.name or delta.name
        if call.place is not None:
            self._add_arguments(call, call.place, delta.arguments)
        elif call.name:
            self._open_call(call, delta.arguments)
        else:  # no event can show it yet
            call.arguments.append(delta.arguments)

    def _open_call(self, call: _Call, arguments: str) -> None:
        """Write the first delta of a call, under the id it will keep."""
        if self._step_id is None:
            step = tool_step(self._run, self._now())
            self._add(Opening(step=step))
            self._step_id = step.id
        if call.id in self._used_ids or not _CALL_ID.match(call.id):
            call.id = new_id("call")
        self._used_ids.add(call.id)
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

    def as_placed(self, echoed: Echoed | None) -> Echoed | None:
        """Return what belongs to the calls by their place in the step, not the backend's index."""
        if echoed is None:
            return None
        calls = {
            call.place: echoed.calls[index]
            for index, call in self._calls.items()
            if call.place is not None and index in echoed.calls
        }
        return Echoed(message=echoed.message, calls=calls)

    def check(self) -> None:
        """Check that all tool calls have a name.

        Raises:
            ModelFailure: One has none.
        """
        if len(self._placed) < len(self._calls):
            message = "The model called a tool without a name."
            raise ModelFailure(message)

    def _write(self, event: str, delta: MessageDelta | RunStepDelta) -> None:
        self._add(Delta(event, msgspec.json.encode(delta)))

    def _add(self, writing: Writing) -> None:
        self._unwritten.append(writing)
        self._size += len(writing.data) if isinstance(writing, Delta) else 0
        self._changed.set()
        if self.is_large:
            self._urgent.set()

    async def wait_changed(self) -> None:
        """Return once there is something to be stored."""
        if not self._unwritten:
            self._changed = anyio.Event()
        await self._changed.wait()

    def mark_urgent(self) -> None:
        """Have what there is stored soon."""
        self._urgent.set()

    async def wait_urgent(self) -> None:
        """Return once there is much to be stored, or a reader has joined."""
        await self._urgent.wait()

    def pop_writings(self) -> list[Writing]:
        """Return what is to be stored, in order; it counts as stored from now on."""
        writings, self._unwritten = self._unwritten, []
        self._size = 0
        self._urgent = anyio.Event()
        return writings

    def put_back(self, writings: list[Writing]) -> None:
        """Keep what could not be stored, in front of what came since."""
        self._unwritten[:0] = writings
        self._size += sum(len(w.data) for w in writings if isinstance(w, Delta))
        self._changed.set()

    def close(self) -> None:
        """Ignore further pieces: what is written now is all."""
        self._closed = True

    def discard(self) -> None:
        """Ignore further pieces, and drop those that are not stored."""
        self.close()
        self.pop_writings()

    def release(self) -> None:
        """Ignore further pieces, and free those that were read; the end of its execution.

        What is not stored stays: whoever ends the run from outside may be trying to.
        """
        self.close()
        self._parts.clear()
        self._calls.clear()
        self._placed.clear()
