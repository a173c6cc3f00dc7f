"""A streamed chat completion, piece by piece. Pure: chunks in, events of the model call out."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from openai_runs._protocol.faults import error_facts, excerpt
from openai_runs._protocol.sse import Frame
from openai_runs.server.backends.base import (
    Finish,
    ModelEvent,
    ModelFailure,
    TextDelta,
    ToolCallDelta,
)
from openai_runs.server.backends.chat_wire import (
    EXCERPT_CHARS,
    finish_reason,
    joined,
    masked,
    usage,
)

__all__ = ["ChunkReader"]

_DONE: Final = b"[DONE]"
_SILENT: Final = "it does not say why"


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
    usage: Any = None
    error: Any = None


_DECODER: Final = msgspec.json.Decoder(_Chunk)


class _Place:
    """What tells the pieces of one call from those of the next."""

    def __init__(self, index: int) -> None:
        self.index = index
        """Among our calls."""
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []

    def is_whole(self) -> bool:
        """Tell whether its arguments need no further piece."""
        try:
            return isinstance(msgspec.json.decode("".join(self.arguments)), dict)
        except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
            return False


class ChunkReader:
    """Reads the chunks of one streamed answer."""

    def __init__(self, secret: str = "") -> None:
        """Start with nothing read; `secret` is masked where the endpoint quotes it in an error."""
        self._secret = secret
        self.done = False
        """Whether the endpoint has said that it is done."""
        self._reason: str | None = None
        self._usage: dict[str, Any] = {}
        self._spoke = False
        self._calls: list[_Place] = []
        self._places: dict[int, _Place] = {}
        """The endpoint's index of a call -> the last call it was used for."""

    @property
    def is_finished(self) -> bool:
        """Whether the answer is whole; what may follow is its token counts."""
        return self.done or self._reason is not None

    def read(self, frame: Frame) -> list[ModelEvent]:
        """Return the events that one chunk stands for.

        Raises:
            ModelFailure: It is no chunk of a chat completion, or says that the call failed.
        """
        data = frame.data.strip()
        if data == _DONE:
            self.done = True
            return []
        if frame.event == "error":
            raise _failed(masked(data, self._secret))
        try:
            chunk = _DECODER.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            problem = f"The model endpoint sent no chat completion chunk: {error}."
            raise ModelFailure(problem[:EXCERPT_CHARS]) from error
        if chunk.error is not None:
            raise _failed(masked(data, self._secret))
        if isinstance(chunk.usage, dict):
            self._usage |= {name: count for name, count in chunk.usage.items() if count is not None}
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
            place = self._place(position if call.index is None else call.index, call)
            place.id = place.id or call.id or ""
            place.name = place.name or call.function.name or ""
            arguments = call.function.arguments
            if isinstance(arguments, dict):  # some endpoints send the object itself
                arguments = msgspec.json.encode(arguments).decode()
            if arguments:
                place.arguments.append(arguments)
            pieces.append(
                ToolCallDelta(
                    index=place.index,
                    id=call.id or "",
                    name=call.function.name or "",
                    arguments=arguments or "",
                )
            )
        return pieces

    def _place(self, index: int, call: _Call) -> _Place:
        """Return where a piece belongs; some endpoints give all their calls the same index.

        Only a piece with a name may begin a call there: others give each piece an id of its own.
        """
        place = self._places.get(index)
        name = call.function.name or ""
        if place is None or (name and _is_another(place, call.id or "", name)):
            place = self._places[index] = _Place(len(self._calls))
            self._calls.append(place)
        return place

    def finish(self) -> list[ModelEvent]:
        """Return the last events, once the answer has ended.

        Raises:
            ModelFailure: It was cut off, or empty; nothing of it may be taken for whole.
        """
        if not self.is_finished:
            message = "The model's answer was cut short."
            raise ModelFailure(message)
        reason = finish_reason(self._reason)
        if not self._spoke and reason == "stop":
            problem = "The model endpoint sent a chat completion without content."
            raise ModelFailure(problem)
        bare = [place.index for place in self._calls if not place.arguments]
        empty = [ToolCallDelta(index=index, arguments="{}") for index in bare]
        return [*empty, Finish(reason=reason, usage=usage(self._usage))]


def _is_another(place: _Place, call_id: str, name: str) -> bool:
    """Tell whether a name that comes for a known call is that of the next one."""
    if call_id and place.id:
        return call_id != place.id
    return bool(place.name and name != place.name) or place.is_whole()


def _failed(data: bytes) -> ModelFailure:
    """Return what an error in the place of a chunk stands for."""
    said = error_facts(data).get("message", "")
    if not said and not data.startswith((b"{", b"[")):  # words for people, and no JSON
        said = excerpt(data)
    problem = f"The model endpoint failed in mid-answer: {said[:EXCERPT_CHARS] or _SILENT}"
    return ModelFailure(problem)
