"""A streamed chat completion, piece by piece. Pure: chunks in, events of the model call out."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from openai_runs._protocol.faults import error_facts
from openai_runs.server.backends.base import (
    Finish,
    ModelEvent,
    ModelFailure,
    TextDelta,
    ToolCallDelta,
)
from openai_runs.server.backends.chat_wire import (
    EXCERPT_CHARS,
    ReportedUsage,
    finish_reason,
    joined,
    usage,
)

__all__ = ["ChunkReader"]

_DONE: Final = b"[DONE]"


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Delta(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: ReportedUsage | None = None
    error: Any = None


_DECODER: Final = msgspec.json.Decoder(_Chunk)


class ChunkReader:
    """Reads the chunks of one streamed answer."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self.done = False
        """Whether the endpoint has said that it is done."""
        self._reason: str | None = None
        self._usage: ReportedUsage | None = None
        self._spoke = False
        self._calls: dict[int, str] = {}
        """Our index of a call -> its id."""
        self._places: dict[int, int] = {}
        """The endpoint's index of a call -> ours."""
        self._bare: set[int] = set()
        """Calls without arguments so far."""

    def read(self, data: bytes) -> list[ModelEvent]:
        """Return the events that one chunk stands for.

        Raises:
            ModelFailure: It is no chunk of a chat completion, or says that the call failed.
        """
        if data == _DONE:
            self.done = True
            return []
        try:
            chunk = _DECODER.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            problem = f"The model endpoint sent no chat completion chunk: {error}."
            raise ModelFailure(problem[:EXCERPT_CHARS]) from error
        if chunk.error is not None:
            said = error_facts(data).get("message", "")[:EXCERPT_CHARS]
            problem = f"The model endpoint failed in mid-answer: {said or 'it does not say why'}"
            raise ModelFailure(problem)
        self._usage = chunk.usage or self._usage
        if not chunk.choices:
            return []
        choice = chunk.choices[0]
        self._reason = choice.finish_reason or self._reason
        return [] if choice.delta is None else self._pieces(choice.delta)

    def _pieces(self, delta: _Delta) -> list[ModelEvent]:
        self._spoke = self._spoke or delta.content is not None or bool(delta.tool_calls)
        text = joined(delta.content) or delta.refusal or ""
        pieces: list[ModelEvent] = [TextDelta(text)] if text else []
        for position, call in enumerate(delta.tool_calls or ()):
            place = self._place(position if call.index is None else call.index, call.id or "")
            arguments = call.function.arguments
            if isinstance(arguments, dict):  # some endpoints send the object itself
                arguments = msgspec.json.encode(arguments).decode()
            if arguments:
                self._bare.discard(place)
            pieces.append(
                ToolCallDelta(
                    index=place,
                    id=call.id or "",
                    name=call.function.name or "",
                    arguments=arguments or "",
                )
            )
        return pieces

    def _place(self, index: int, call_id: str) -> int:
        """Return our index of a call; some endpoints give all of theirs the same."""
        place = self._places.get(index)
        if place is None or (call_id and self._calls[place] not in {"", call_id}):
            place = self._places[index] = len(self._calls)
            self._calls[place] = ""
            self._bare.add(place)
        self._calls[place] = self._calls[place] or call_id
        return place

    def finish(self) -> list[ModelEvent]:
        """Return the last events, once the answer has ended.

        Raises:
            ModelFailure: It was cut off, or empty; nothing of it may be taken for whole.
        """
        if self._reason is None and not self.done:
            message = "The model's answer was cut short."
            raise ModelFailure(message)
        reason = finish_reason(self._reason)
        if not self._spoke and reason == "stop":
            problem = "The model endpoint sent a chat completion without content."
            raise ModelFailure(problem)
        empty = [ToolCallDelta(index=place, arguments="{}") for place in sorted(self._bare)]
        return [*empty, Finish(reason=reason, usage=usage(self._usage))]
