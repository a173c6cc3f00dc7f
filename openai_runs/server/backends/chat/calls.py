"""The tool calls of an answer, put together from pieces of all shapes. Pure.

Theory of operation. A piece belongs to the call with its id, else to the last call with its index,
else to the last call that still lacks something. It begins another call where it cannot belong to
that one: another name, another id with a name, or an object where there is a whole object
already. What only repeats a call is passed over; so endpoints may leave out, share or change
indexes and ids, repeat names, and send the arguments in fragments or all of them each time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from openai_runs.server.backends.base import ToolCallDelta
from openai_runs.server.backends.chat.pieces import Arguments, Halves

__all__ = ["Calls"]

_NULLS: Final = frozenset({"null", "None", '""'})
"""What some endpoints write for no value."""
_ARGUMENTS: Final = ("arguments", "parameters", "input")
"""Names of the arguments, the usual one first."""


class _Piece(msgspec.Struct):
    """What one piece says."""

    index: int | None
    id: str
    name: str
    arguments: str


class _Place:
    """A call, as far as it has come."""

    def __init__(self, number: int, index: int | None) -> None:
        self.number = number
        self.index = index
        """The endpoint's index of it."""
        self.id = ""
        self.name = ""
        self.arguments = Arguments()
        self.halves = Halves()
        self.is_echoed = False
        """Whether its name was repeated after it was whole, as some do to begin the next call."""
        self.is_sent = False
        self._unnamed = ""
        """Arguments that came before the name: a call is passed on by its name."""

    def take(self, piece: _Piece) -> ToolCallDelta | None:
        """Take a piece of it; return what can be passed on."""
        self.id = self.id or piece.id
        self.name = self.name or piece.name
        if piece.name and not piece.arguments and self.arguments.is_whole:
            self.is_echoed = True
        return self._delta(self.arguments.add(self.halves.add(piece.arguments)))

    def _delta(self, arguments: str) -> ToolCallDelta | None:
        """Return the event; the first one waits for the id, which may come with the arguments."""
        if not self.name:
            self._unnamed += arguments
            return None
        arguments, self._unnamed = self._unnamed + arguments, ""
        if not arguments and (self.is_sent or not (self.id and self.name)):
            return None
        head = ("", "") if self.is_sent else (self.id, self.name)
        self.is_sent = True
        return ToolCallDelta(index=self.number, id=head[0], name=head[1], arguments=arguments)

    def open(self) -> ToolCallDelta | None:
        """Return its first event if that is not sent yet."""
        if self.is_sent or not self.name:
            return None
        self.is_sent = True
        return ToolCallDelta(index=self.number, id=self.id, name=self.name)

    def finish(self) -> ToolCallDelta | None:
        """Return what was held back."""
        rest = self.arguments.add(self.halves.finish()) + self.arguments.finish()
        if self.is_sent or not self.name:
            return self._delta(rest)
        rest, self._unnamed = self._unnamed + rest, ""
        return ToolCallDelta(index=self.number, id=self.id, name=self.name, arguments=rest)


class Calls:
    """Puts the calls of one answer together."""

    def __init__(self) -> None:
        """Start with none."""
        self._places: list[_Place] = []
        self._by_id: dict[str, _Place] = {}
        self._by_index: dict[int, _Place] = {}
        """The endpoint's index -> the last call it was used for."""
        self._by_position: dict[int, _Place] = {}
        """Where in its chunk a piece without index stood -> the last call there."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._places)

    @property
    def are_named(self) -> bool:
        """Return whether each has a name; what has none cannot be called."""
        return all(place.name for place in self._places)

    @property
    def are_whole(self) -> bool:
        """Return whether each has a name and an object of arguments."""
        return all(place.name and place.arguments.is_whole for place in self._places)

    def add(
        self, pieces: Any, *, whole: bool = False
    ) -> Iterator[tuple[int, dict[str, Any], list[ToolCallDelta]]]:
        """Take the `tool_calls` of a chunk, or of a whole answer.

        Args:
            pieces: The JSON value.
            whole: Whether each item is a call of its own.

        Yields:
            The index of the call, the piece as it was sent, and what can be passed on.
        """
        items = [item for item in _listed(pieces) if isinstance(item, dict)]
        changed: set[int] = set()
        is_named = False
        for position, item in enumerate(items):
            piece = _piece(item)
            is_named = is_named or bool(piece.name or piece.id)
            where = position if len(items) > 1 and not is_named else None
            place = None if whole else self._find(piece, where)
            if piece.arguments in _NULLS and (place is None or not place.arguments.is_begun):
                piece.arguments = ""
            if place is None or self._is_another(place, piece, changed):
                place = self._open(piece, place)
                self._by_position[position] = place
            changed.add(place.number)
            first = self._places[-2].open() if place.number and place is self._places[-1] else None
            events = [first, place.take(piece)]
            if place.id:
                self._by_id.setdefault(place.id, place)
            yield place.number, item, [event for event in events if event is not None]

    def finish(self) -> Iterator[ToolCallDelta]:
        """Yield what was held back."""
        for place in self._places:
            event = place.finish()
            if event is not None:
                yield event

    def _open(self, piece: _Piece, before: _Place | None) -> _Place:
        place = _Place(len(self._places), piece.index)
        if before is not None and not piece.name:
            place.name = before.name
        self._places.append(place)
        if piece.index is not None:
            self._by_index[piece.index] = place
        if piece.id:
            self._by_id[piece.id] = place
        return place

    def _find(self, piece: _Piece, position: int | None) -> _Place | None:
        """Return the call that a piece may belong to."""
        known = self._by_id.get(piece.id) if piece.id else None
        indexed = None if piece.index is None else self._by_index.get(piece.index)
        if known is not None:
            return indexed if indexed is not None and indexed.id == piece.id else known
        if indexed is not None:
            return indexed
        if piece.index is not None and (piece.name or piece.id):
            return None
        if not self._places:
            return None
        last = self._places[-1]
        if position is not None:
            return self._by_position.get(position, last)
        if piece.name or not piece.arguments.strip() or not last.arguments.is_whole:
            return last
        first = self._by_position.get(0, last)
        return last if first.arguments.is_whole else first

    def _is_another(self, place: _Place, piece: _Piece, changed: set[int]) -> bool:
        """Tell whether a piece begins another call than the one it may belong to."""
        if not piece.name:
            return self._is_nameless_call(place, piece)
        if place.name and piece.name != place.name:
            return True
        is_object = piece.arguments.lstrip().startswith("{")
        if place.number in changed and not (piece.id or place.id) and is_object:
            return place.arguments.is_whole  # a list names each of its calls once
        if piece.id and place.id and piece.id != place.id:
            return (
                place.arguments.is_whole
                or (not piece.arguments and not place.arguments.is_begun)
                or is_object
            )
        if piece.id and piece.id == place.id and _differ(piece.index, place.index):
            return not piece.arguments or is_object or place.arguments.is_whole
        if place.id and not piece.id:
            return place.arguments.conflicts(piece.arguments)
        return self._is_named_call(place, piece)

    def _is_named_call(self, place: _Place, piece: _Piece) -> bool:
        """Tell whether a repeated name begins a call, where no ids tell it."""
        if not place.arguments.is_whole:
            is_bare = not piece.arguments and not piece.id and not place.arguments.is_begun
            return is_bare and piece.index is None
        if not piece.arguments.lstrip().startswith("{"):
            return False
        if piece.id:
            return piece.id != place.id or place.arguments.conflicts(piece.arguments)
        if piece.index is None:
            return True
        return not (place.arguments.is_empty_object or place.arguments.equals(piece.arguments))

    def _is_nameless_call(self, place: _Place, piece: _Piece) -> bool:
        """Tell whether a piece without a name begins another call of the same function."""
        if place.is_echoed and piece.arguments.strip():
            return True
        if piece.id and place.id and piece.id != place.id and place.arguments.is_whole:
            is_object = piece.arguments.lstrip().startswith("{")
            if piece.index is None:
                return is_object and not place.arguments.is_empty_object
        return place.arguments.conflicts(piece.arguments)


def _differ(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other


def _listed(value: Any) -> Iterable[Any]:
    """Return the items of what should be a list."""
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, dict) else []


def _piece(item: dict[str, Any]) -> _Piece:
    function = item.get("function")
    if isinstance(function, str):
        function = {**item, "name": function}
    elif not isinstance(function, dict):
        function = item
    name = function.get("name")
    return _Piece(
        index=_index(item.get("index")),
        id=_id(item.get("id")),
        name=name.strip() if isinstance(name, str) and name not in _NULLS else "",
        arguments=_arguments(_first(function, _ARGUMENTS)),
    )


def _first(fields: dict[str, Any], names: Iterable[str]) -> Any:
    """Return the first of these fields that is there."""
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _index(sent: Any) -> int | None:
    """Return an index, whatever its type; None where there is none to go by."""
    if isinstance(sent, str) and sent.strip().lstrip("-").isdecimal() and len(sent) < 20:
        return int(sent)
    if isinstance(sent, float) and sent.is_integer():
        return int(sent)
    return sent if isinstance(sent, int) and not isinstance(sent, bool) else None


def _id(sent: Any) -> str:
    if isinstance(sent, int | float) and not isinstance(sent, bool):
        return str(sent)
    return sent.strip() if isinstance(sent, str) and sent not in _NULLS else ""


def _arguments(sent: Any) -> str:
    """Return the JSON text; some endpoints send the object itself."""
    if isinstance(sent, str):
        return sent
    if sent is None:
        return ""
    try:
        return msgspec.json.encode(sent).decode()
    except (UnicodeEncodeError, OverflowError, RecursionError, msgspec.MsgspecError):
        return json.dumps(sent)
