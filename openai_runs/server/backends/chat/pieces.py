"""Texts that come in pieces: halves of a character, tags of thoughts, arguments of a call. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from typing import Any, Final

import msgspec

from openai_runs.errors import ConfigError

__all__ = ["THINK", "Arguments", "Halves", "Thoughts", "check_think"]

THINK: Final = ("keep", "strip", "separate")
"""What may be done with thoughts in the text."""
_TAGS: Final = (
    *("<think>", "<thinking>", "<thought>", "<reasoning>", "<seed:think>"),
    *("[THINK]", "\u25c1think\u25b7"),
)
"""What begins a thought; it ends with the same and a slash behind the first character."""


def _beginning(tag: str) -> str:
    """Return a pattern for what may become a tag.

    >>> _beginning("<a>")
    '<(?:/(?:a(?:)?)?|a(?:)?)?'
    """
    rest = ""
    for one in reversed(tag[1:-1]):
        rest = f"{re.escape(one)}(?:{rest})?"
    return f"{re.escape(tag[0])}(?:/(?:{rest})?|{rest})?"


_TAG: Final = re.compile(
    "|".join(
        f"{re.escape(tag[0])}(/?)({re.escape(tag[1:-1])}){re.escape(tag[-1])}" for tag in _TAGS
    ),
    re.I,
)
_TAG_START: Final = re.compile(rf"(?:{'|'.join(map(_beginning, _TAGS))})\Z", re.I)
"""What may become a tag, at the end of a piece."""
_LONGEST_TAG: Final = max(map(len, _TAGS)) + 1
_MARK: Final = re.compile(r'["\\{}\[\]]')
"""What begins or ends something in a JSON text, or escapes what does."""
_MAX_DEPTH: Final = 500
"""Nesting that no decoder reads any more."""
_BRACES: Final = re.compile(r"[\s{}]*+")
_CLOSING: Final = re.compile(r"\s*+\}[\s}\]]*+")
_EMPTY_OBJECTS: Final = re.compile(r"\A(?:\s*+\{\s*+\})*+")


class Halves:
    """Puts characters together whose halves (surrogates) come in different pieces."""

    def __init__(self) -> None:
        """Begin a text."""
        self._held = ""

    def add(self, piece: str) -> str:
        """Return what is complete with this piece; a lone half is U+FFFD."""
        if not self._held and piece.isascii():
            return piece
        text, self._held = self._held + piece, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def finish(self) -> str:
        """Return what stands for a half whose other half did not come."""
        held, self._held = self._held, ""
        return "\ufffd" if held else ""


def check_think(think: str) -> str:
    """Return the setting if it is one.

    Raises:
        ConfigError: It is none.
    """
    if think not in THINK:
        message = f"think must be one of {', '.join(THINK)}, got {think!r}"
        raise ConfigError(message)
    return think


class Thoughts:
    """Separates thoughts, which stand in tags, from the text; no piece ends within a tag."""

    def __init__(self, think: str) -> None:
        """Begin a text; `think` is one of `THINK`."""
        self._keeps = think == "keep"
        self._held = ""
        self._within = ""
        """The name of the tag whose end is awaited."""
        self._at_start = True
        """Whether no text has come but blanks."""
        self._thought = False

    def add(self, piece: str) -> Iterable[tuple[bool, str]]:
        """Return what this piece completes: whether it is a thought, and the text."""
        may_begin_tag = "<" in piece or "[" in piece or "\u25c1" in piece
        if may_begin_tag or self._held or (self._at_start and not self._keeps):
            return self._split(piece)
        return [(bool(self._within), piece)] if piece else ()

    def _split(self, piece: str) -> Iterator[tuple[bool, str]]:
        text, start = self._held + piece, 0
        for tag in [] if self._keeps else list(_TAG.finditer(text)):
            *_, slash, name = (group.lower() for group in tag.groups() if group is not None)
            is_end = bool(slash)
            if is_end != bool(self._within) or (is_end and name != self._within):
                continue
            yield from self._emit(text[start : tag.start()], before_tag=True)
            start, self._within, self._thought = tag.end(), "" if is_end else name, True
        tail = _TAG_START.search(text, max(start, len(text) - _LONGEST_TAG))
        end = len(text) if tail is None else tail.start()
        self._held = text[end:]
        yield from self._emit(text[start:end])

    def finish(self) -> Iterator[tuple[bool, str]]:
        """Yield what was held back."""
        held, self._held = self._held, ""
        if self._within or not self._thought or held.strip():
            yield from self._emit(held, at_end=True)

    def _emit(
        self, text: str, *, before_tag: bool = False, at_end: bool = False
    ) -> Iterator[tuple[bool, str]]:
        if not self._within and self._at_start and not self._keeps:
            stripped = text.lstrip()
            if not stripped and not at_end:  # blanks around thoughts are no text
                self._held = "" if before_tag else text + self._held
                return
            text = stripped if self._thought else text
            self._at_start = False
        if text:
            yield bool(self._within), text


class _State(Enum):
    """How far the arguments of a call are known."""

    BRACES = auto()
    """Nothing but braces and blanks: an empty object may be repeated, or stand for nothing yet."""
    FIRST = auto()
    """One piece has come, and was passed on."""
    WHOLE = auto()
    """One piece has come which is whole by itself, and is held back."""
    REPEATING = auto()
    """Each piece so far begins with the one before: all pieces, or only the last one, count."""
    FRAGMENTS = auto()
    """Pieces are put together."""


class Arguments:
    """The JSON text of a call's arguments, in pieces that may repeat what was said before."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._state = _State.BRACES
        self._pieces: list[str] = []
        self._braces = ""
        """What braces have come, without blanks and repeated empty objects."""
        self._sent = 0
        self._scanner = _Scanner()

    @property
    def is_begun(self) -> bool:
        """Whether anything has come."""
        return bool(self._braces) or self._state != _State.BRACES

    @property
    def is_empty_object(self) -> bool:
        """Whether they are an empty object so far."""
        return self._state == _State.BRACES and self._braces == "{}"

    @property
    def is_whole(self) -> bool:
        """Whether they are an object that needs no further piece."""
        match self._state:
            case _State.BRACES:
                return self._braces == "{}"
            case _State.WHOLE:
                return True
            case _State.REPEATING:
                return _is_object(self._pieces[-1]) or self._scanner.is_whole(self._pieces)
            case _:
                return self._scanner.is_whole(self._pieces)

    def conflicts(self, piece: str) -> bool:
        """Return whether a piece is another object than the one that is whole already."""
        if not piece.lstrip().startswith("{") or self.is_empty_object or not self.is_whole:
            return False
        return not self.repeats(piece)

    def equals(self, piece: str) -> bool:
        """Return whether a piece is all of them once more."""
        last = "".join(self._pieces) if self._state == _State.FRAGMENTS else self._pieces[-1:]
        return piece == last or [piece] == last

    def repeats(self, piece: str) -> bool:
        """Return whether a piece says again what is whole, or the same with more to it."""
        if self._state == _State.BRACES:
            return _EMPTY_OBJECTS.fullmatch(piece.rstrip()) is not None
        known = self._pieces[-1] if self._state != _State.FRAGMENTS else "".join(self._pieces)
        if piece == known:
            return True
        if self._state == _State.FRAGMENTS and piece.lstrip().startswith("{"):
            value = _object(piece)  # the same written anew, with other blanks
            return value is not None and value == _object(known)
        if len(piece) < len(known) or self._state == _State.FRAGMENTS:
            return False
        if self._state == _State.REPEATING:
            return piece.startswith(known)
        return _grows(_object(known), _object(piece))

    def add(self, piece: str) -> str:
        """Take the next piece; return what can be passed on."""
        if not piece:
            return ""
        is_closing = "}" in piece and _CLOSING.fullmatch(piece) is not None
        if is_closing and self._state != _State.BRACES and self.is_whole:
            return ""  # no object goes on like this; some endpoints end it twice
        match self._state:
            case _State.BRACES:
                return self._begin(piece)
            case _State.WHOLE:
                return self._add_to_whole(piece)
            case _State.FIRST | _State.REPEATING:
                return self._add_second(piece)
            case _:
                if piece[0] == "{" and _is_object(piece) and self.is_whole and self.repeats(piece):
                    return ""  # all of it once more, at the end
                self._pieces.append(piece)
                return piece

    def _begin(self, piece: str) -> str:
        if self._braces == "{" and piece.lstrip().startswith("{"):
            self._braces, self._pieces = "", []  # all of it again: no object begins with two
        if _BRACES.fullmatch(piece) is not None:
            braces = (self._braces + "".join(piece.split())).replace("{}", "")
            if braces in ("", "{"):
                is_closed = not braces and (self._braces or piece.strip())
                self._braces = "{}" if is_closed else braces
                self._pieces = [*self._pieces, piece] if braces else []
                return ""
        text = _EMPTY_OBJECTS.sub("", "".join([*self._pieces, piece]), count=1)
        self._pieces = [text]
        if _is_object(text):
            self._state = _State.WHOLE
            return ""
        self._state = _State.FIRST
        return self._send(text)

    def _add_to_whole(self, piece: str) -> str:
        if not piece.strip() or _EMPTY_OBJECTS.fullmatch(piece.rstrip()) is not None:
            return ""
        if self.repeats(piece):
            self._pieces = [piece]
            return ""
        self._state = _State.FRAGMENTS
        self._pieces.append(piece)
        return self._send("".join(self._pieces))

    def _add_second(self, piece: str) -> str:
        last = self._pieces[-1]
        if piece.startswith(last):
            self._state = _State.REPEATING
            self._pieces.append(piece)
            return ""
        if self._state == _State.REPEATING and not piece.strip() and _is_object(last):
            return ""
        self._state = _State.FRAGMENTS
        self._pieces.append(piece)
        return self._send("".join(self._pieces))

    def _send(self, text: str) -> str:
        new, self._sent = text[self._sent :], max(self._sent, len(text))
        return new

    def finish(self) -> str:
        """Return what was held back; an empty object if nothing has come."""
        if self._state == _State.BRACES:
            return "".join(self._pieces) or "{}"
        if self._state == _State.WHOLE:
            return self._send(self._pieces[-1])
        if self._state == _State.REPEATING:
            together, last = "".join(self._pieces), self._pieces[-1]
            is_last = _is_object(last) or not (len(last) < 6 or _is_object(together))
            self._pieces = [last if is_last else together]
            return self._send(self._pieces[0])
        return ""


class _Scanner:
    """Finds the end of a JSON object in pieces, each of which is read once, if anybody asks."""

    def __init__(self) -> None:
        self._read = 0
        self._depth = 0
        self._in_string = False
        self._skipped = -1
        """Where in the next piece the character stands that a backslash escapes."""
        self._is_closed = False
        self._is_whole = False

    def is_whole(self, pieces: list[str]) -> bool:
        while self._read < len(pieces):
            piece = pieces[self._read]
            self._read += 1
            if self._is_closed:
                self._is_whole = self._is_whole and not piece.strip(" \t\r\n")
            else:
                self._scan(piece, pieces)
        return self._is_whole

    def _scan(self, piece: str, pieces: list[str]) -> None:
        for mark in _MARK.finditer(piece):
            if mark.start() != self._skipped:
                self._pass(mark[0], mark.end())
            if self._is_closed:
                self._is_whole = self._depth == 0 and _is_object("".join(pieces[: self._read]))
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
            self._is_closed = not 0 < self._depth < _MAX_DEPTH


def _object(text: str) -> dict[str, Any] | None:
    if text[-1:] != "}" and not text.rstrip().endswith("}"):
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_object(text: str) -> bool:
    return _object(text) is not None


def _grows(before: Any, after: Any) -> bool:
    """Tell whether a value is an earlier one with more to it."""
    if isinstance(before, dict) and isinstance(after, dict):
        return all(name in after and _grows(value, after[name]) for name, value in before.items())
    if isinstance(before, list) and isinstance(after, list):
        return len(before) <= len(after) and all(map(_grows, before, after))
    if isinstance(before, str) and isinstance(after, str):
        return after.startswith(before)
    return before is None or (type(before) is type(after) and before == after)
