"""The events of one open stream: the bytes of one connection, parsed as they come.

What to do at the end of a stream, or when it breaks, is in `streams.session`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import anyio

from openai_runs._client.core.size_limit import SizeLimit
from openai_runs._protocol.create_marker import strip_marker_from_event
from openai_runs._protocol.error_mapping import excerpt
from openai_runs._protocol.events import StreamFault, UnreadableEvent, read_event
from openai_runs._protocol.json_repair import PieceRepair
from openai_runs._protocol.sse import EventTooLarge, Frame, SSEParser
from openai_runs._transport import StreamReply
from openai_runs.errors import APIConnectionError, StreamError, StreamTooLarge
from openai_runs.types.base import ADOPTION_KEY
from openai_runs.types.events import Event, EventName, RunEvent
from openai_runs.types.http import request_id_of

__all__ = ["EventReader", "Gaps"]

_LOG: Final = logging.getLogger("openai_runs.client")
_MARKER: Final = ADOPTION_KEY.encode()
_DELTA: Final = ".delta"
_MAX_HEAD: Final = 2000
"""Bytes of what is no event that are kept for the error."""
_LOGGED: Final = 10
"""Events that cannot be read, of one stream, that are logged."""


class Gaps:
    """What could not be read of one stream, over all of its connections."""

    def __init__(self) -> None:
        """Begin with the stream."""
        self.repair = PieceRepair()
        """Joins characters that two pieces hold, also where these come over two connections."""
        self.unreadable = 0
        """Events that could not be read."""
        self.in_deltas = False
        """Whether a piece of a message or of a step could not be read."""
        self.in_objects = False
        """Whether an event about a whole object could not be read, before the run's last event."""

    def clear(self) -> None:
        """Forget them: what is stored was fetched."""
        self.in_deltas = self.in_objects = False


class EventReader:
    """Reads one connection; to be closed by its owner."""

    def __init__(
        self,
        reply: StreamReply,
        *,
        after: str = "",
        gaps: Gaps | None = None,
        size: SizeLimit | None = None,
        ids: Mapping[str, str] | None = None,
    ) -> None:
        """Read an open stream; events up to the one with the id `after` are left out.

        Events that cannot be read are passed over, and noted in `gaps`; `size` counts the bytes.
        `ids` are those of the run, for the log, as far as they are known.
        """
        self._ids = ids or {}
        self._reply = reply
        self._after = _number(after)
        self._gaps = gaps or Gaps()
        self._size = size or SizeLimit()
        self._parser = SSEParser()
        self._failure: StreamError | APIConnectionError | EventTooLarge | None = None
        self._is_done = self._has_events = self._run_has_ended = False
        self._head = b""
        """The beginning of what came, as long as no event has come."""
        self.is_alive = False
        """Whether any bytes were received since this was last set to False."""

    @property
    def is_empty(self) -> bool:
        """Return whether the server sent the end mark and no event before it."""
        return self._is_done and not self._has_events

    async def read(self, wait: float) -> list[Event] | None:
        """Return the events that came next; none after `wait` seconds; None at the end.

        Raises:
            APIConnectionError: The connection was lost.
            StreamError: The server sent an error event.
            StreamTooLarge: The stream exceeds its limit, with all of its connections.
            EventTooLarge: An event is too large to be read, and ends the connection.

        Events that came before either were returned before.

        Cancellation: loses nothing.
        """
        if self._failure is not None:
            raise self._failure
        with anyio.move_on_after(wait):
            while not self._is_done:
                chunk = await self._reply.read()
                if not chunk:
                    self._check_words()
                    return None
                self.is_alive = True
                events = self._events_in(chunk)
                if not self._has_events and len(self._head) < _MAX_HEAD:
                    self._head += chunk[:_MAX_HEAD]
                if events:
                    return events
                if self._failure is not None:
                    raise self._failure
            return None
        return []

    def _check_words(self) -> None:
        """Raise what stands in the place of the events, if that is not just nothing.

        Raises:
            APIConnectionError: It is no event.
        """
        lines = [line for line in self._head.splitlines() if not line.startswith(b":")]
        said = b"" if self._has_events else b"\n".join(lines).strip()
        if said:
            words = excerpt(said, secrets=self._reply.secrets)
            message = f"the stream held no event, but {words!r}"
            raise APIConnectionError(message)

    def _events_in(self, chunk: bytes) -> list[Event]:
        events: list[Event] = []
        repair = self._gaps.repair
        try:
            self._size.add(chunk, objects=chunk.count(b"data"))
            for frame in self._size.within(self._parser.feed(chunk)):
                if self._after is not None and self._is_repeated(frame, self._after):
                    self._has_events = True
                    continue
                # The conditions are cheap, and few events need a repair.
                may_be_cut = repair.held or b"\\u" in frame.data or b"\xed" in frame.data
                for one in repair.repair(frame) if may_be_cut else (frame,):
                    try:
                        event = read_event(one)
                    except UnreadableEvent as error:
                        self._pass_over(error)
                        continue
                    if event is None:
                        self._is_done = True
                        return events
                    if event.__class__ is RunEvent:
                        event = self._noted(event)
                    events.append(event)
                    self._has_events = True
        except StreamFault as fault:
            masked = StreamFault(fault.frame, self._reply.secrets)
            # One that says nothing is taken for a lost connection: the run may go on.
            self._failure = _fault_error(masked) if not masked.is_empty else _no_reason()
        except EventTooLarge as error:
            self._failure = error
        if self._size.is_exceeded:
            self._failure = self._failure or _too_large(self._size.max_bytes)
        return events

    def _noted(self, event: Event) -> Event:
        """Return an event about the run without the create marker."""
        assert isinstance(event, RunEvent)
        self._run_has_ended = event.data.is_terminal or event.data.needs_action
        self._ids = {"thread_id": event.data.thread_id, "run_id": event.data.id}
        return strip_marker_from_event(event) if _MARKER in event.raw else event

    def _pass_over(self, error: UnreadableEvent) -> None:
        problem = UnreadableEvent(error.frame, error.problem, self._reply.secrets)
        self._gaps.unreadable += 1
        if self._gaps.unreadable <= _LOGGED:
            _LOG.warning(
                "an event of the stream cannot be read: %s: %s",
                problem.event,
                problem.problem,
                extra=self._log_ids(),
            )
        elif self._gaps.unreadable == _LOGGED + 1:
            words = "more events of the stream cannot be read; they are not logged"
            _LOG.warning(words, extra=self._log_ids())
        self._has_events = True
        if error.frame.event.endswith(_DELTA):
            self._gaps.in_deltas = True
        elif not self._run_has_ended:
            self._gaps.in_objects = True

    def _log_ids(self) -> dict[str, str]:
        request_id = request_id_of(self._reply.headers)
        return {**self._ids, **({"request_id": request_id} if request_id else {})}

    def _is_repeated(self, frame: Frame, after: int) -> bool:
        """Return whether a resumed stream repeats an event that was received before."""
        number = _number(frame.id)
        return number is not None and number <= after and frame.event != EventName.DONE

    def close(self) -> None:
        """Close the connection."""
        self._reply.close()


def _number(event_id: str) -> int | None:
    """Return which event of its run an id names; None if it is not of our form.

    >>> _number("2-17"), _number("17"), _number("")
    (17, None, None)
    """
    epoch, _, number = event_id.partition("-")
    return int(number) if epoch.isdecimal() and number.isdecimal() else None


def _no_reason() -> APIConnectionError:
    return APIConnectionError("the server ended the stream with an error event that says nothing")


def _too_large(max_bytes: int) -> StreamTooLarge:
    error = StreamTooLarge(
        f"the stream exceeds max_stream_bytes={max_bytes}, and was closed; the run may go on: "
        "retrieve it, or set max_stream_bytes= of the client or the call"
    )
    error.max_stream_bytes = max_bytes
    return error


def _fault_error(fault: StreamFault) -> StreamError:
    error = StreamError(f"the server ended the stream with an error: {fault.message}")
    error.code, error.type, error.body = fault.code, fault.type, fault.body
    return error
