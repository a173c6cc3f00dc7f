"""Server-sent events: their bytes, encoded and parsed; what they mean is in `events`.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6.
Not read: `retry`, since pauses are those of `RetryPolicy`.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from openai_runs.config import MAX_EVENT_BYTES
from openai_runs.types.events import EventName

__all__ = ["COMMENT", "EventTooLarge", "Frame", "SSEParser", "encode"]

COMMENT: Final = b": keep-alive\n\n"
"""What keeps a silent connection alive."""
_LF: Final = 0x0A
_CR: Final = 0x0D
_BOM: Final = b"\xef\xbb\xbf"


def encode(event: str, data: bytes, *, id: str = "") -> bytes:
    r"""Return one event as it is sent.

    Args:
        event: Its name; on one line.
        data: JSON, as a rule. A line break in it begins another `data:` line.
        id: Where the stream can be resumed; on one line. Empty: no `id:` line.

    Raises:
        ValueError: `event` or `id` would end its line, or `id` holds a NUL.

    >>> encode("done", b"[DONE]")
    b'event: done\ndata: [DONE]\n\n'
    """
    if _breaks_its_line(event) or _breaks_its_line(id) or "\0" in id:
        message = f"an event's name and id stand on one line each, got {event!r} and {id!r}"
        raise ValueError(message)
    if _LF in data or _CR in data:
        data = _to_line_feeds(data).replace(b"\n", b"\ndata: ")
    id_line = f"id: {id}\n" if id else ""
    return f"event: {event}\n{id_line}data: ".encode() + data + b"\n\n"


def _breaks_its_line(text: str) -> bool:
    return "\n" in text or "\r" in text


def _to_line_feeds(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One event as it was sent."""

    event: str
    """Its name; empty if the server gave none."""
    data: bytes
    """The `data:` lines, joined by line feeds."""
    id: str
    """The id in force: this event's, or the last one before it; empty if there was none."""


class EventTooLarge(ValueError):  # noqa: N818 - named for what happened, as in `errors`
    """An event, whole or not yet, takes more memory than it may."""


_WHOLE_EVENTS: Final = re.compile(
    rb"(?:event: ([^\n]*)\n)?(?:id: ([^\n\0]+)\n)?data: ([^\n]*)\n\n|(.+?\n\n|.+)", re.DOTALL
)
"""An event as servers of this protocol write it: name, id, data; or all up to a blank line.

The last alternative always matches, so the regex never rescans.
"""
_NAMES: Final = {name.encode(): name for key, name in vars(EventName).items() if key.isupper()}


class SSEParser:
    r"""Makes events of the bytes of one stream, however these are cut.

    >>> SSEParser().feed(b"id: 7\nevent: done\ndata: [DONE]\n\ndata: half an ev")
    [Frame(event='done', data=b'[DONE]', id='7')]
    """

    def __init__(self, *, max_bytes: int = MAX_EVENT_BYTES) -> None:
        """Begin a stream.

        Args:
            max_bytes: Bytes that one event may hold in memory: its data, its name, and the
                line that has not ended yet.
        """
        self._max_bytes = max_bytes
        self._start: bytes | None = b""  # what may become a byte order mark; None once decided
        self._after_cr = False
        self._line = bytearray()  # the line that has not ended yet
        self._event = b""
        self._data = bytearray()  # each line with its line feed
        self._id = ""
        self._frames: list[Frame] = []
        self._too_large = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """Return the events that this chunk completes.

        Raises:
            EventTooLarge: An event exceeds the limit. Events that this chunk completed before
                it are returned first; the error then comes with the next chunk.
        """
        if self._start is not None or self._after_cr or _CR in chunk:
            chunk = self._normalise(chunk)
        held = len(self._line) + len(self._data) + len(self._event)
        if self._too_large or len(chunk) + held > self._max_bytes:
            self._parse_within_limit(chunk)
        else:
            self._parse(chunk)
        if not self._frames:
            return []
        frames = self._frames
        self._frames = []
        return frames

    def _normalise(self, chunk: bytes) -> bytes:
        """Return the chunk without a byte order mark, its lines ended by line feeds only."""
        if self._start is not None:
            chunk = self._start + chunk
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._start = chunk
                return b""
            self._start = None
            chunk = chunk.removeprefix(_BOM)
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")  # the second half of a line end
            self._after_cr = False
        if _CR in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = _to_line_feeds(chunk)
        return chunk

    def _parse(self, text: bytes) -> None:
        """Parse text that cannot exceed the limit, whole events at a time."""
        if self._line:
            if _LF not in text:  # a long line in small pieces
                self._line += text
                return
            text = bytes(self._line) + text
            self._line.clear()
        begin = 0
        if self._data or self._event:  # line by line to the end of the event begun
            blank = text.find(b"\n\n")
            begin = len(text) if blank < 0 else blank + 2
            self._parse_lines(text[:begin])
        blank = text.rfind(b"\n\n", begin)
        if blank >= 0:
            self._parse_events(text, begin, blank + 2)
            begin = blank + 2
        if begin < len(text):
            self._parse_lines(text[begin:])

    def _parse_events(self, text: bytes, begin: int, end: int) -> None:
        """Parse whole events, from after one blank line to after another."""
        append, names = self._frames.append, _NAMES
        for name, event_id, data, other in _WHOLE_EVENTS.findall(text, begin, end):
            if other:
                self._parse_lines(other)
                continue
            if event_id:
                self._id = event_id.decode("utf-8", "replace")
            event = names.get(name)
            if event is None:
                event = name.decode("utf-8", "replace")
            append(Frame(event, data, self._id))

    def _parse_within_limit(self, text: bytes) -> None:
        """Parse text that may exceed the limit, line by line."""
        if not self._too_large:
            *lines, rest = text.split(b"\n")
            for line in lines:
                if not self._hold(line):
                    break
                self._parse_lines(b"\n")
            else:
                self._hold(rest)
        if self._too_large and not self._frames:
            message = f"an event of the stream exceeds {self._max_bytes} bytes"
            raise EventTooLarge(message)

    def _hold(self, rest: bytes) -> bool:
        """Append to the line that has not ended; return whether the event is within its limit."""
        self._line += rest
        held = len(self._line) + len(self._data) + len(self._event)
        self._too_large = held > self._max_bytes
        return not self._too_large

    def _parse_lines(self, text: bytes) -> None:
        if self._line:
            text = bytes(self._line) + text
            self._line.clear()
        *lines, rest = text.split(b"\n")
        for line in lines:
            if line:
                self._parse_field(*line.split(b":", 1))
            else:
                self._dispatch()
        self._line += rest

    def _parse_field(self, name: bytes, value: bytes = b"") -> None:
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data += value
            self._data += b"\n"
        elif name == b"event":
            self._event = value
        elif name == b"id" and 0 not in value:
            self._id = value.decode("utf-8", "replace")

    def _dispatch(self) -> None:
        if self._data:
            event = self._event.decode("utf-8", "replace")
            self._frames.append(Frame(event, bytes(self._data[:-1]), self._id))
            self._data.clear()
        self._event = b""
