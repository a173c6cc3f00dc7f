"""A streamed chat completion, piece by piece. Pure: chunks in, events of the model call out."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

import msgspec

from openai_runs._protocol.error_mapping import error_facts, excerpt
from openai_runs._protocol.masking import mask
from openai_runs._protocol.sse import Frame
from openai_runs.server.backends.base import (
    Finish,
    ModelEvent,
    ModelFailure,
    TextDelta,
    ToolCallDelta,
)
from openai_runs.server.backends.chat.answers import (
    EXCERPT_CHARS,
    finish_reason,
    joined,
    usage,
)

__all__ = ["ChunkReader"]

_DONE: Final = b"[DONE]"
_MARK: Final = re.compile(r'["\\{}\[\]]')
"""What begins or ends something in a JSON text, or escapes what does."""
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


class _Arguments:
    """The JSON text of a call's arguments, in pieces, each of which is read once."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._depth = 0
        self._in_string = False
        self._skipped = -1
        """Where in the next piece the character stands that a backslash escapes."""
        self._is_closed = False
        self.is_whole = False
        """Whether they are an object that needs no further piece."""

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, piece: str) -> None:
        """Take the next piece."""
        self._pieces.append(piece)
        if self._is_closed:
            self.is_whole = self.is_whole and not piece.strip(" \t\r\n")
            return
        for mark in _MARK.finditer(piece):
            if mark.start() != self._skipped:
                self._pass(mark[0], mark.end())
            if self._is_closed:
                self.is_whole = _is_object("".join(self._pieces))
                return
        self._skipped -= len(piece)

    def _pass(self, mark: str, end: int) -> None:
        if self._in_string:
            self._in_string = mark != '"'
            self._skipped = end if mark == "\\" else self._skipped
        elif mark == '"':
            self._in_string = True
        else:
            self._depth += 1 if mark in "{[" else -1
            self._is_closed = self._depth <= 0


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return False


class _Place:
    """What tells the pieces of one call from those of the next."""

    def __init__(self, index: int, name: str) -> None:
        self.index = index
        """Among our calls."""
        self.id = ""
        self.name = name
        self.is_echoed = False
        """Whether it was named once more after its arguments were whole."""
        self.arguments = _Arguments()


class ChunkReader:
    """Reads the chunks of one streamed answer."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        """Start with nothing read; no failure repeats a secret that the endpoint quotes."""
        self._secrets = secrets
        self.done = False
        """Whether the endpoint has said that it is done."""
        self._reason: str | None = None
        self._usage: dict[str, Any] = {}
        self._spoke = False
        self._calls: list[_Place] = []
        self._by_id: dict[str, _Place] = {}
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
            raise _failed(data, self._secrets)
        try:
            chunk = _DECODER.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            said = mask(f"{error}", self._secrets)
            problem = f"The model endpoint sent no chat completion chunk: {said}."
            raise ModelFailure(problem[:EXCERPT_CHARS]) from None
        if chunk.error is not None:
            raise _failed(data, self._secrets)
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
            arguments = call.function.arguments
            if isinstance(arguments, dict):  # some endpoints send the object itself
                arguments = msgspec.json.encode(arguments).decode()
            index = position if call.index is None else call.index
            place = self._place(index, call, arguments or "")
            if place is None:
                continue
            place.id = place.id or call.id or ""
            self._by_id.setdefault(place.id, place)
            name = call.function.name or ("" if place.arguments else place.name)
            place.name = place.name or name
            if arguments:
                place.arguments.add(arguments)
            pieces.append(
                ToolCallDelta(
                    index=place.index,
                    id=call.id or "",
                    name=name,
                    arguments=arguments or "",
                )
            )
        return pieces

    def _place(self, index: int, call: _Call, arguments: str) -> _Place | None:
        """Return where a piece belongs; some endpoints give all their calls the same index.

        Only a piece with a name may begin a call there: others give each piece an id of its own.
        None: it repeats what is known, as some endpoints do with the last piece of a call, or
        announces the next call of the same function, which then begins with its arguments.
        """
        if call.id and call.id in self._by_id:
            return self._by_id[call.id]
        place = self._places.get(index)
        name = call.function.name or ""
        if place is not None and not arguments and _is_echo(place, call.id or "", name):
            place.is_echoed = True
            return None
        announced = place.name if place is not None and place.is_echoed and not name else ""
        if place is None or announced or (name and _is_another(place, call.id or "", name)):
            place = self._places[index] = _Place(len(self._calls), announced)
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


def _is_echo(place: _Place, call_id: str, name: str) -> bool:
    """Tell whether a piece without arguments says no more than the call has said already."""
    return place.arguments.is_whole and name == place.name and call_id in {"", place.id}


def _is_another(place: _Place, call_id: str, name: str) -> bool:
    """Tell whether a name that comes for a known call is that of the next one."""
    if call_id and place.id:
        return call_id != place.id
    return bool(place.name and name != place.name) or place.arguments.is_whole


def _failed(data: bytes, secrets: Collection[str]) -> ModelFailure:
    """Return what an error in the place of a chunk stands for."""
    said = error_facts(data, secrets).get("message", "")
    if not said and not data.startswith((b"{", b"[")):  # words for people, and no JSON
        said = excerpt(data, secrets=secrets)
    problem = f"The model endpoint failed in mid-answer: {said[:EXCERPT_CHARS] or _SILENT}"
    return ModelFailure(problem)
