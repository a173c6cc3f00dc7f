r"""JSON that a strict decoder rejects, as JSON that it accepts.

For values that known servers send: half of a surrogate pair, bytes that are no UTF-8, raw control
characters within a text, `NaN`, numbers of any size, a byte order mark. Only the value itself is
lost: half of a character and bytes that are no text become U+FFFD, and what is no number null.

A server that cuts a text into pieces may cut it within a surrogate pair. `PieceRepair` joins such
halves again, over the pieces of one stream.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from openai_runs._protocol.sse import Frame

__all__ = [
    "PieceRepair",
    "around_fence",
    "object_in",
    "read_json",
    "repaired",
    "whole_text",
    "write_json",
]

_MAX_DIGITS: Final = 18
"""Digits of an integer that is kept as one; longer ones are read as floats."""
_ENCODINGS: Final = (("utf-8-sig", "strict"), ("utf-8-sig", "surrogatepass"), ("utf-8", "replace"))
_HALF: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
    rb"|\xed[\xa0-\xbf]"
)
"""Half of a pair, escaped or as bytes; it may also find what only looks like one."""
_LANGUAGE: Final = re.compile(r"[ \t]*+[\w+-]*+")
"""What may stand behind the beginning of a code fence."""
_COMMAS: Final = re.compile(
    r'(?s)("(?:[^"\\]++|\\(?:.|\Z))*+(?:"|\Z))|(?<=[^\s{\[,:])(\s*+),(\s*+[}\]])'
)
"""A text in quotes, or a comma after the last item of an object or a list."""
_MAX_WRAPPINGS: Final = 3
"""Times that a model's JSON is looked for within a text or a fence."""
_MAX_LEVELS: Final = 32
"""Levels of nesting in a piece; the API's have seven."""
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_Path = tuple[str | int, ...]


def read_json(text: bytes) -> Any:
    """Return the JSON value; None if there is none, not even with repairs."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        text = repaired(text)
    with suppress(RecursionError):
        if text:
            return msgspec.json.decode(text)
    return None


def repaired(text: bytes) -> bytes:
    r"""Return the JSON text without what a strict decoder rejects; nothing if it is no JSON.

    Where it is the JSON of an object as a text, the object is returned.

    >>> repaired(b'{"text": "a \\ud83d", "score": NaN}').decode()
    '{"text":"a �","score":null}'
    """
    value = _read(text)
    if isinstance(value, str) and isinstance(inner := _read(_encoded(value)), dict):
        value = inner
    return b"" if value is _NOTHING else write_json(value)


def write_json(value: Any) -> bytes:
    """Return the value as JSON text, in which each half is U+FFFD; nothing if it is too deep."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return b""
    return _encoded(text)


def whole_text(text: str) -> str:
    r"""Return the text with halves of a pair joined, and a lone half as U+FFFD.

    >>> whole_text("a \ud83d\ude00"), whole_text("b \ud83d")
    ('a 😀', 'b �')
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def object_in(text: str) -> bytes:
    r"""Return the JSON of an object that a model wrote almost as JSON; nothing if ambiguous.

    Accepted is what can be read in one way only: raw line breaks within texts, a comma after the
    last item, a code fence around the object, JSON text as a text.

    >>> object_in('```json\n{"lines": ["a\nb",],}\n```')
    b'{"lines":["a\\nb"]}'
    """
    for _ in range(_MAX_WRAPPINGS):
        before, inside, after = _parted(text.strip())
        if inside is not None and not before and not after:
            text = inside
        value = _read_strictly(text)
        if value is _NOTHING:
            value = _read_strictly(_COMMAS.sub(r"\1\2\3", text))
        if not isinstance(value, str):
            return write_json(value) if isinstance(value, dict) else b""
        text = value
    return b""


def around_fence(text: str) -> str:
    """Return what is before and after a code fence; empty where there is nothing, or no fence."""
    before, inside, after = _parted(text)
    if inside is None or text.lstrip().startswith("{"):
        return ""
    return f"{before.strip()} {after.strip()}".strip()


def _parted(text: str) -> tuple[str, str | None, str]:
    """Return what is before a code fence, in it, and after it; None: there is none."""
    before, opened, rest = text.partition("```")
    inside, closed, after = rest.rpartition("```")
    if not (opened and closed):
        return text, None, ""
    language = _LANGUAGE.match(inside)
    return before, inside[language.end() if language is not None else 0 :], after


def _read_strictly(text: str) -> Any:
    """Return the value as `_read` does; nothing if a name comes twice, or a number is none."""
    try:
        return json.loads(
            text.strip().removeprefix("\ufeff"),
            strict=False,
            parse_float=_finite,
            parse_constant=_finite,
            object_pairs_hook=_unique,
        )
    except (ValueError, RecursionError):
        return _NOTHING


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(pairs)
    return found


_NOTHING: Final = object()


def _encoded(text: str) -> bytes:
    return whole_text(text).encode()


def _read(text: bytes) -> Any:
    """Return the JSON value, in which halves stay as they are; `_NOTHING` if there is none."""
    try:
        return json.loads(
            _decoded(text),
            strict=False,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=lambda _: None,
        )
    except (ValueError, RecursionError):
        return _NOTHING


def _decoded(text: bytes) -> str:
    for encoding, errors in _ENCODINGS[:-1]:
        try:
            return text.decode(encoding, errors)
        except UnicodeDecodeError:
            continue
    return text.decode(*_ENCODINGS[-1])


def _integer(digits: str) -> int | float | None:
    return int(digits) if len(digits) <= _MAX_DIGITS + 1 else _float(digits)


def _float(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


class PieceRepair:
    """Repairs the events of one stream, and joins the halves of a pair that two pieces hold.

    The first half is held back until the next piece of the same text. Where none follows, it is
    emitted as U+FFFD before the object's next event.
    """

    def __init__(self) -> None:
        """Begin with the stream."""
        self.held: dict[tuple[str, _Path], tuple[str, Callable[[str], Frame]]] = {}
        """The object's id and the path of its text -> the half, and what makes the frame of a
        piece in which another text has its place."""

    def repair(self, frame: Frame) -> Iterator[Frame]:
        """Yield the event as it can be decoded; before it, pieces that were held back.

        An event that needs no repair is yielded as it is.
        """
        data = frame.data
        wire = _read(data) if self.held or _HALF.search(data) else None
        if not isinstance(wire, dict) or _is_deep(wire):
            yield frame
            return

        def framed(value: Any) -> Frame:
            return Frame(frame.event, write_json(value), frame.id)

        inner = wire.get("data")
        if isinstance(wire.get("event"), str) and isinstance(inner, dict):  # an envelope
            envelope = wire
            yield from self._repaired(inner, lambda part: framed({**envelope, "data": part}))
        else:
            yield from self._repaired(wire, framed)

    def _repaired(self, wire: dict[str, Any], framed: Callable[[Any], Frame]) -> Iterator[Frame]:
        object_id, delta = wire.get("id"), wire.get("delta")
        if isinstance(object_id, str) and isinstance(delta, dict):

            def piece(part: Any) -> Frame:
                return framed({**wire, "delta": part})

            yield piece(self._joined(delta, (object_id, ()), piece))
            return
        for key in [key for key in self.held if key[0] == object_id]:
            # Without its id, which would be taken for the last event that was received.
            yield replace(self.held.pop(key)[1](_REPLACEMENT), id="")
        yield framed(wire)

    def _joined(self, value: Any, at: tuple[str, _Path], piece: Callable[[Any], Any]) -> Any:
        """Return the value with what was held back in front; holds back a half at its end."""
        object_id, path = at
        if isinstance(value, str):
            return self._joined_text(value, at, piece)
        if isinstance(value, list):
            return [
                self._joined(item, (object_id, (*path, _index(item, number))), _in_list(piece))
                for number, item in enumerate(value)
            ]
        if isinstance(value, dict):
            kept = {name: value[name] for name in ("index", "type") if name in value}
            return {
                name: self._joined(item, (object_id, (*path, name)), _in_dict(piece, kept, name))
                for name, item in value.items()
            }
        return value

    def _joined_text(self, text: str, at: tuple[str, _Path], piece: Callable[[Any], Any]) -> str:
        held = self.held.pop(at, None)
        if held is not None:
            text = held[0] + text
        if text and "\ud800" <= text[-1] <= "\udbff":
            self.held[at] = (text[-1], piece)
            text = text[:-1]
        return text


def _is_deep(value: Any, levels: int = _MAX_LEVELS) -> bool:
    """Return whether the value is nested more deeply than pieces are."""
    if isinstance(value, dict):
        value = [*value.values()]
    if not isinstance(value, list):
        return False
    return levels == 0 or any(_is_deep(item, levels - 1) for item in value)


def _index(item: Any, number: int) -> int:
    """Return which item of the whole list an item of a piece's list is."""
    index = item.get("index") if isinstance(item, dict) else None
    return index if isinstance(index, int) else number


def _in_list(piece: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda item: piece([item])


def _in_dict(piece: Callable[[Any], Any], kept: dict[str, Any], name: str) -> Callable[[Any], Any]:
    return lambda item: piece({**kept, name: item})
