"""The events of one open stream: the bytes of one connection, parsed as they come.

What to do at the end of a stream, or when it breaks, is in `streams.session`.
"""

from __future__ import annotations

from typing import Final

import anyio

from openai_runs._protocol.create_marker import strip_marker_from_event
from openai_runs._protocol.events import StreamFault, UnreadableEvent, read_event
from openai_runs._protocol.sse import EventTooLarge, SSEParser
from openai_runs._transport import StreamReply
from openai_runs.errors import OpenAIRunsError, StreamError
from openai_runs.types.base import ADOPTION_KEY
from openai_runs.types.events import Event, RunEvent

__all__ = ["EventReader"]

_MARKER: Final = ADOPTION_KEY.encode()


class EventReader:
    """Reads one connection; to be closed by its owner."""

    def __init__(self, reply: StreamReply, *, after: str = "") -> None:
        """Read an open stream; events up to the one with the id `after` are left out."""
        self._reply = reply
        self._after = _number(after)
        self._parser = SSEParser()
        self._failure: OpenAIRunsError | None = None
        self._is_done = self._has_events = False
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
            StreamError: The server sent an error event, or one that cannot be read. Events
                that came before it were returned before.

        Cancellation: loses nothing.
        """
        if self._failure is not None:
            raise self._failure
        with anyio.move_on_after(wait):
            while not self._is_done:
                chunk = await self._reply.read()
                if not chunk:
                    return None
                self.is_alive = True
                events = self._events_in(chunk)
                if events:
                    return events
                if self._failure is not None:
                    raise self._failure
            return None
        return []

    def _events_in(self, chunk: bytes) -> list[Event]:
        events: list[Event] = []
        try:
            for frame in self._parser.feed(chunk):
                event = read_event(frame)
                if event is None:
                    self._is_done = True
                    break
                # The first condition is cheap, and most events are no run's.
                if _MARKER in event.raw and isinstance(event, RunEvent):
                    event = strip_marker_from_event(event)
                if self._after is None or not self._is_repeated(event, self._after):
                    events.append(event)
                self._has_events = True
        except StreamFault as fault:
            self._failure = _fault_error(StreamFault(fault.frame, self._reply.secrets))
        except UnreadableEvent as error:
            masked = UnreadableEvent(error.frame, error.problem, self._reply.secrets)
            self._failure = StreamError(f"the stream cannot be read: {masked}")
        except EventTooLarge as error:
            self._failure = StreamError(f"the stream cannot be read: {error}")
        return events

    def _is_repeated(self, event: Event, after: int) -> bool:
        """Return whether a resumed stream repeats an event that was received before."""
        number = _number(event.id)
        return number is not None and number <= after

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


def _fault_error(fault: StreamFault) -> StreamError:
    error = StreamError(f"the server ended the stream with an error: {fault.message}")
    error.code, error.type, error.body = fault.code, fault.type, fault.body
    return error
