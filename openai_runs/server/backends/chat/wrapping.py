"""The wrapping of an answer: which JSON values its bytes hold, whatever they are called. Pure.

Content types are wrong too often to go by: streams come as `text/plain` or JSON, JSON comes as a
stream, and some endpoints send one JSON value a line. So each line says what it is: a field of an
event, a comment, the beginning of JSON, or nothing that an answer is made of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

__all__ = ["DONE", "Payload", "Unreadable", "Unwrapper", "is_done"]

DONE: Final = "[DONE]"
_BOM: Final = b"\xef\xbb\xbf"
_BEFORE: Final = b" \t\v\f\0" + _BOM
"""What a line is read without, at its beginning."""
_USUAL: Final = b"data: {"
"""How most lines begin."""
_FIELD: Final = re.compile(rb"(data|event|id|retry)(?::[ ]?(.*))?\Z|(error):(.*)\Z", re.DOTALL)
"""Of an event; some endpoints send an error as a field of that name."""
_BETWEEN: Final = re.compile(r"(?:[ \t\r\n\x1e]|data:)*+")
"""What stands between JSON values: some endpoints prefix a line twice, or end none."""
_DONE_WORDS: Final = frozenset({b"DONE", b"END", b"EOS"})
_SIGNS_OF_LIFE: Final = frozenset({"ping", "pong", "heartbeat", "keepalive"})
"""Names of events, or all that one holds, that keep a connection alive."""
_MAX_STRANGE: Final = 1000
"""Bytes of what is no answer that are kept for the error."""
_MAX_VALUES: Final = 100_000
"""JSON values that are read of one line."""
_DECODER: Final = json.JSONDecoder(
    strict=False, parse_int=lambda digits: int(digits) if len(digits) < 400 else float(digits)
)


class Unreadable(Exception):  # noqa: N818 - what it stands for is the endpoint's error
    """Bytes that no answer is made of."""

    def __init__(self, content: bytes) -> None:
        """Keep the beginning of them."""
        super().__init__()
        self.content = content


class Payload(msgspec.Struct, frozen=True):
    """One thing that an answer says."""

    event: str
    """The name of its event, or an empty one."""
    value: Any
    """A JSON value, decoded by `usual` or as any; the text `DONE`; bytes, if they say an error."""


class Unwrapper:
    """Makes JSON values of the bytes of one answer, however these are cut.

    Args:
        usual: Decodes what most lines hold, and refuses anything else.
    """

    def __init__(self, usual: msgspec.json.Decoder[Any] | None = None) -> None:
        """Begin an answer."""
        self._usual = usual
        self._line = bytearray()
        self._is_first = True
        self._event = ""
        self._data: list[bytes] = []
        self._json: list[bytes] = []
        """Lines of a JSON text that is not whole yet."""
        self._strange = bytearray()
        self._tried = 0
        """Bytes of the line when it was last tried whether they are whole."""
        self.is_complete = False
        """Whether the line that is not ended yet is a whole JSON value."""
        self.head = b""
        """The beginning of the answer, for errors."""

    def feed(self, piece: bytes) -> Iterator[Payload]:
        """Yield what the bytes complete.

        Raises:
            Unreadable: They are no answer.
        """
        if len(self.head) < _MAX_STRANGE:
            self.head += piece[: _MAX_STRANGE - len(self.head)]
        self.is_complete = False
        held = self._line.endswith(b"\r")  # which may be half a line end
        self._line += piece
        if held or b"\n" in piece or b"\r" in piece:
            text = bytes(self._line)
            lines = text.splitlines()
            self._line.clear()
            if not text.endswith(b"\n"):
                self._line += lines.pop() + (b"\r" if text.endswith(b"\r") else b"")
            for line in lines:
                if line or self._data or self._event or self._json:
                    yield from self._read(line)
            self._tried = 0
        yield from self._read_unended()

    @property
    def is_within(self) -> bool:
        """Return whether something has begun that is not whole yet."""
        begun = bytes(self._line[:64]).lstrip()
        return bool(self._data or self._json or (begun and not begun.startswith(b":")))

    def _read_unended(self) -> Iterator[Payload]:
        """Read an event that is whole although its line is not ended: the end may never come.

        It is tried each time it has doubled, so that all tries together read it twice.
        """
        line = self._line
        if line[-1:] != b"}" or len(line) < 2 * self._tried or self._data or self._json:
            return
        self._tried = len(line)
        field = _FIELD.match(line)
        content = bytes(line) if field is None else (field[2] or b"")
        if self._is_sign_of_life(content):
            return
        if (field is None or field[1] == b"data") and content.lstrip()[:1] == b"{":
            values = _values(content)
            if values is None or self._strange:
                return
            if field is None:
                self.is_complete = True  # passed on at its end: a body may be cut all the same
                return
            self._line.clear()
            self._tried, self._is_first = 0, False
            for value in values:
                yield Payload(self._event, value)

    def finish(self) -> Iterator[Payload]:
        """Yield what is there although nothing ended it.

        Raises:
            Unreadable: It is no answer, or half a one.
        """
        line = bytes(self._line).rstrip(b"\r")
        self._line.clear()
        if line:
            yield from self._read(line)
        yield from self._dispatch()
        if self._json:
            content = b"\n".join(self._json)
            self._json.clear()
            yield from self._payloads(content)
        if self._strange:
            raise Unreadable(bytes(self._strange))

    def _read(self, line: bytes) -> Iterable[Payload]:
        """Return what a line completes."""
        if self._is_first:
            line, self._is_first = line.removeprefix(_BOM), False
        if self._strange:
            self._refuse(line)
        elif self._json:
            self._json.append(line)
        elif (usual := self._usual_value(line)) is not None:
            return [Payload("", usual)]
        elif not (line := line.lstrip(_BEFORE).rstrip(b"\0")):
            return self._dispatch()
        elif (field := _FIELD.match(line)) is not None:
            return self._field(field[1] or field[3], field[2] or field[4] or b"")
        elif self._data and not line.startswith(b":"):
            self._data.append(line)  # a value over several lines, of which the first is prefixed
        elif line[:1] in (b"{", b"["):
            return self._json_line(line)
        elif not line.startswith(b":"):
            self._refuse(line)
        return ()

    def _usual_value(self, line: bytes) -> Any:
        """Return what a line holds if that is the usual; it is read in a third of the time."""
        if self._usual is None or self._data or self._event or not line.startswith(_USUAL):
            return None
        try:
            return self._usual.decode(line[6:])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def _refuse(self, line: bytes) -> None:
        self._strange += line[:_MAX_STRANGE] + b"\n"
        if len(self._strange) > _MAX_STRANGE:
            raise Unreadable(bytes(self._strange))

    def _json_line(self, line: bytes) -> Iterable[Payload]:
        """Read a line of JSON; one that is not whole may go on in the next line."""
        values = _values(line)
        if values is None:
            self._json.append(line)
            return ()
        return [Payload("", value) for value in values]

    def _field(self, name: bytes, value: bytes) -> Iterable[Payload]:
        if name == b"event":
            self._event = value.decode("utf-8", "replace").strip()
        elif name == b"error":
            return [Payload("error", one) for one in _values(value) or [value]]
        elif name == b"data" and not self._is_sign_of_life(value):
            # A whole object is passed on at once: some endpoints send no blank lines.
            values = _values(value) if not self._data and value.strip()[:1] == b"{" else None
            if values is None:
                self._data.append(value)
                return self._dispatch() if is_done(value) else ()
            return [Payload(self._event, one) for one in values]
        return ()

    def _is_sign_of_life(self, value: bytes) -> bool:
        """Tell data that only keeps the connection alive, by the name of its event."""
        return bool(self._event) and _is_sign_of_life(self._event) and b"choices" not in value

    def _dispatch(self) -> Iterable[Payload]:
        """Return what an event says that is ended."""
        content, event = b"\n".join(self._data), self._event
        self._data.clear()
        self._event = ""
        if not content or content.isspace():
            return ()
        if is_done(content):
            return [Payload(event, DONE)]
        if event == "error" and _values(content) is None:
            return [Payload(event, content)]
        return self._payloads(content, event)

    def _payloads(self, content: bytes, event: str = "") -> Iterator[Payload]:
        values = _values(content)
        if values is not None:
            for value in values:
                yield Payload(event, value)
            return
        for line in content.split(b"\n"):  # several events without blank lines
            values = [DONE] if is_done(line) else _values(line)
            if values is None and _is_sign_of_life(line.decode("utf-8", "replace")):
                continue
            if values is None:
                raise Unreadable(line[:_MAX_STRANGE])
            for value in values:
                yield Payload(event, value)


def is_done(data: bytes) -> bool:
    """Return whether an event says that the answer is complete.

    >>> is_done(b" [DONE]"), is_done(b'"[DONE]"'), is_done(b"{}")
    (True, True, False)
    """
    return len(data) < 64 and data.strip().strip(b'"<[]>').upper() in _DONE_WORDS


def _is_sign_of_life(said: str) -> bool:
    return said[:64].strip().lower().replace("-", "") in _SIGNS_OF_LIFE


def _values(content: bytes) -> list[Any] | None:
    """Return the JSON values that stand in a text one behind the other; None: it is no JSON.

    Strictly first; then also with raw line feeds, halves of characters and numbers of any size.
    A JSON text within a JSON text is read, too.
    """
    try:
        value = msgspec.json.decode(content)
        return [value] if not isinstance(value, str) else _inner_values(value)
    except RecursionError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    values: list[Any] = []
    text, at = content.decode("utf-8", "replace"), 0
    try:
        while (at := _end_of(text, at)) < len(text) and len(values) < _MAX_VALUES:
            if text.startswith(DONE, at):
                value, at = DONE, at + len(DONE)
            else:
                value, at = _DECODER.raw_decode(text, at)
            values.append(value)
    except (ValueError, RecursionError, OverflowError):
        return None
    return values if len(values) < _MAX_VALUES else None


def _end_of(text: str, at: int) -> int:
    """Return where the next value begins, behind what stands between two of them."""
    found = _BETWEEN.match(text, at)
    assert found is not None
    return found.end()


def _inner_values(text: str) -> list[Any]:
    """Return the objects that a text holds as JSON, or the text."""
    if "{" not in text:
        return [text]
    values = _values(text.encode("utf-8", "surrogatepass"))
    is_answer = values and all(isinstance(one, dict) or one is DONE for one in values)
    return values if values and is_answer else [text]
