"""The events table, and frames of a stream read as typed events by it.

The names are those of the OpenAPI description's AssistantStreamEvent;
docs/pages/explain/protocol.md says how other servers write them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from openai_runs._protocol.error_mapping import error_facts, excerpt, masked_json
from openai_runs._protocol.json_repair import read_json, repaired, write_json
from openai_runs._protocol.lenient import decoder_for
from openai_runs._protocol.masking import mask
from openai_runs._protocol.sse import Frame
from openai_runs.types.base import ACTIVE_STATUSES, TERMINAL_STATUSES
from openai_runs.types.deltas import MessageDelta, RunStepDelta
from openai_runs.types.events import (
    Event,
    EventName,
    MessageDeltaEvent,
    MessageEvent,
    RunEvent,
    RunStepDeltaEvent,
    RunStepEvent,
    ThreadEvent,
    UnknownEvent,
)
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run, RunStatus
from openai_runs.types.steps import RunStep
from openai_runs.types.threads import Thread

__all__ = [
    "ALL_FIELDS",
    "EVENTS",
    "EventType",
    "StreamFault",
    "UnreadableEvent",
    "backfill_event",
    "contradicts",
    "ends_in_name",
    "is_end_of",
    "named_by_its_data",
    "read_event",
    "shown_fields",
    "status_in_name",
]

_DONE: Final = b"[DONE]"
_UNNAMED: Final = ("", "message")
"""No name, and the name that server-sent events have where none is sent."""

MESSAGE_ENDS: Final = frozenset({"completed", "incomplete"})
STEP_ENDS: Final = frozenset({"completed", "failed", "cancelled", "expired"})
_RUN_STATUSES: Final = ACTIVE_STATUSES | TERMINAL_STATUSES
_CREATED: Final = "created"
_STARTED: Final = frozenset({RunStatus.QUEUED, RunStatus.IN_PROGRESS})
"""Statuses that a run may have when it was just created."""

_SAYS_NOTHING: Final = (b"", b"null", b"{}", b'""', b'{"error":null}')
_MAX_WRAPPINGS: Final = 4
"""Wrappings of one event's object that are removed."""
ALL_FIELDS: Final = ("*",)
"""A browser receives the object as it was sent."""
_NO_FIELDS: Final = ()


class EventType(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the events table."""

    name: str
    """Its name; with `has_status` the object's name, which a dot and a status follow."""
    has_status: bool = False
    """Whether the last word of its name is a status, also one that this version does not know."""
    ends: frozenset[str] = frozenset()
    """Last words of its name after which the object changes no more, whatever its data says."""
    event: Any
    """The class of the event."""
    data: type[Any]
    """The class of its `data`."""
    fold: str
    """The method of `Snapshot` that applies it."""
    backfill: bool
    """Whether `streams.backfill`, which says when, emits it for what a poll shows and the stream
    did not."""
    shown: tuple[str, ...]
    """The fields of its object that `relay` sends to a browser; none: the event is left out."""


EVENTS: Final = (
    EventType(
        name=EventName.THREAD_CREATED,
        event=ThreadEvent,
        data=Thread,
        fold="fold_thread",
        backfill=False,
        shown=("id", "object", "created_at"),
    ),
    EventType(
        name="thread.run",
        has_status=True,
        event=RunEvent,
        data=Run,
        fold="fold_run",
        backfill=True,
        shown=("id", "object", "thread_id", "status", "last_error", "incomplete_details"),
    ),
    EventType(
        name="thread.run.step",
        has_status=True,
        ends=STEP_ENDS,
        event=RunStepEvent,
        data=RunStep,
        fold="fold_step",
        backfill=True,
        shown=_NO_FIELDS,
    ),
    EventType(
        name=EventName.STEP_DELTA,
        event=RunStepDeltaEvent,
        data=RunStepDelta,
        fold="fold_step_delta",
        backfill=False,  # the step as a whole holds them
        shown=_NO_FIELDS,
    ),
    EventType(
        name="thread.message",
        has_status=True,
        ends=MESSAGE_ENDS,
        event=MessageEvent,
        data=Message,
        fold="fold_message",
        backfill=True,
        shown=(
            "id",
            "object",
            "created_at",
            "thread_id",
            "run_id",
            "assistant_id",
            "role",
            "status",
            "incomplete_details",
            "completed_at",
            "incomplete_at",
            "content",
        ),
    ),
    EventType(
        name=EventName.MESSAGE_DELTA,
        event=MessageDeltaEvent,
        data=MessageDelta,
        fold="fold_message_delta",
        backfill=True,
        shown=ALL_FIELDS,
    ),
)
"""The events table. What reads events (below), folds them into a snapshot
(`snapshot.snapshot`), emits missed ones (`streams.backfill`) and relays them (`relay`) uses
its rows.

A new type of event is a row here, its class and its name in `types.events` (`EventName`, `Event`),
and its `fold` method in the snapshot where it folds in a way of its own. A new status of a run, a
step or a message is no new event: its name goes into `EventName`, and the status into `types`.
"""

_BY_EVENT: Final = {row.event: row for row in EVENTS}
_BACKFILLED: Final = {row.data: row for row in EVENTS if row.backfill}


def shown_fields(event: Event) -> tuple[str, ...]:
    """Return the fields of the event's object that `relay` sends to a browser."""
    row = _BY_EVENT.get(type(event))
    return _NO_FIELDS if row is None else row.shown


def backfill_event(data: Any, status: str = "") -> Event:
    """Return the event that is emitted for an object that was polled, or for a piece of it.

    Args:
        data: The object, of a type that is backfilled.
        status: The last word of the event's name; empty: the object's status.

    >>> run = Run(id="run_1", thread_id="thread_1", assistant_id="a", status="completed")
    >>> backfill_event(run).event
    'thread.run.completed'
    """
    row = _BACKFILLED[type(data)]
    name = f"{row.name}.{status or data.status}" if row.has_status else row.name
    event: Event = row.event(event=name, data=data)
    return event


class StreamFault(ValueError):  # noqa: N818 - the server's error
    """The server ends the stream with an error event."""

    def __init__(self, frame: Frame, secrets: Collection[str] = ()) -> None:
        """Parse the event, as far as that can be done; secrets are masked."""
        self.frame = frame
        facts = error_facts(frame.data, secrets)
        message = facts.get("message") or excerpt(frame.data, secrets=secrets)
        self.is_empty = frame.data.strip() in _SAYS_NOTHING
        """Whether the event says nothing about what went wrong."""
        self.message = message or "no error text"
        self.code = facts.get("code")
        self.param = facts.get("param")
        self.type = facts.get("type")
        self.body: Any = masked_json(frame.data, secrets)
        super().__init__(self.message)


class UnreadableEvent(ValueError):  # noqa: N818 - as `StreamFault`
    """The data of a known event is not the object that belongs to it."""

    def __init__(self, frame: Frame, problem: str, secrets: Collection[str] = ()) -> None:
        """Keep the beginning of the data; secrets are masked."""
        self.frame = frame
        self.event = mask(frame.event, secrets)
        self.excerpt = excerpt(frame.data, secrets=secrets)
        self.problem = problem = mask(problem, secrets)
        super().__init__(f"{self.event}: {problem}; the data begins {self.excerpt!r}")


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A whole event as the data of a nameless one."""

    event: str
    data: msgspec.Raw = msgspec.Raw(b"null")


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)


class _Reader:
    """Decodes frames to events of one type."""

    __slots__ = ("event", "lenient", "strict")

    def __init__(self, row: EventType) -> None:
        """Build the decoders of the object in its data."""
        self.event = row.event
        self.lenient = decoder_for(row.data).decode
        # Called at once: a stream has many. Runs are few, and their ids are checked.
        strict = msgspec.json.Decoder(row.data).decode
        self.strict = self.lenient if row.data is Run else strict

    def read(self, frame: Frame) -> Event:
        """Return the event, decoded leniently.

        Raises `msgspec.DecodeError` if its data is another kind of object.
        """
        data = self.lenient(frame.data)
        event: Event = self.event(event=frame.event, id=frame.id, raw=frame.data, data=data)
        return event


_BY_OBJECT: Final = {row.name: _Reader(row) for row in EVENTS if row.has_status}
"""The name of an event but for its status, which is its data's `object` -> its reader."""


def _readers() -> dict[str, _Reader]:
    names = {value for key, value in vars(EventName).items() if key.isupper()}
    exact = {row.name: _Reader(row) for row in EVENTS if not row.has_status}
    statuses = names - exact.keys() - {EventName.ERROR, EventName.DONE}
    without_row = {name for name in statuses if name.rpartition(".")[0] not in _BY_OBJECT}
    assert not without_row, f"names of events without a row in EVENTS: {without_row}"
    return {**exact, **{name: _BY_OBJECT[name.rpartition(".")[0]] for name in statuses}}


_READERS: Final = _readers()
"""The name of each known event -> its reader. Made at import, where msgspec inspects the types."""


def read_event(frame: Frame) -> Event | None:
    """Return the event in a frame; None if it says that the stream is done.

    An event that this version does not know is an `UnknownEvent`. One of a later status is
    known if its name and its data's `object` say what it is about.

    Raises:
        StreamFault: It is an error event, in any of the forms that servers send.
        UnreadableEvent: Its name is known, and its data is not what belongs to the name.

    >>> read_event(Frame("thread.archived", b'{"id": "thread_1"}', "")).data
    {'id': 'thread_1'}
    """
    reader = _READERS.get(frame.event)
    if reader is None:
        return _read_other(frame)
    text = frame.data
    try:
        data = reader.strict(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _read_repaired(reader, frame)
    event: Event = reader.event(event=frame.event, id=frame.id, raw=text, data=data)
    return event


def _read_repaired(reader: _Reader, frame: Frame) -> Event:
    try:
        return reader.read(frame)
    except msgspec.DecodeError as error:
        problem = str(error)
    try:
        return reader.read(replace(frame, data=_unwrapped(frame.data)))
    except msgspec.DecodeError:
        raise UnreadableEvent(frame, problem) from None


def _unwrapped(text: bytes, *, in_envelope: bool = True) -> bytes:
    r"""Return the JSON object in an event's data, without what some servers wrap it in.

    That is JSON text as a text, a list of one, `data:` once more, and perhaps an envelope.

    >>> _unwrapped(b'["{\\"id\\": 1}"]')
    b'{"id":1}'
    """
    for _ in range(_MAX_WRAPPINGS):
        value = read_json(text.strip().removeprefix(b"data:"))
        if isinstance(value, str):
            text = value.encode()
            continue
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        elif in_envelope and isinstance(value, dict) and isinstance(value.get("event"), str):
            value, in_envelope = value.get("data"), False
        else:
            return write_json(value) if isinstance(value, dict) else text
        text = write_json(value)
    return text


def status_in_name(event: str) -> str:
    """Return the last word of an event's name, which is the status of what it is about.

    >>> status_in_name("thread.run.requires_action")
    'requires_action'
    """
    return event.rpartition(".")[2]


def is_end_of(event: RunStepEvent | MessageEvent, status: str) -> bool:
    """Return whether the object of such an event changes no more once it has this status."""
    return status in _BY_EVENT[type(event)].ends


def ends_in_name(event: RunStepEvent | MessageEvent) -> bool:
    """Return whether the event's name says that its object changes no more."""
    return is_end_of(event, status_in_name(event.event))


def contradicts(event: RunEvent | RunStepEvent | MessageEvent) -> bool:
    """Return whether an event's name says another status than its data.

    Of steps and messages only an end counts.

    >>> run = Run(id="run_1", thread_id="thread_1", assistant_id="a", status="requires_action")
    >>> contradicts(RunEvent(event="thread.run.completed", data=run))
    True
    """
    name, status = status_in_name(event.event), event.data.status
    if not isinstance(event, RunEvent):
        return name != status and ends_in_name(event)
    if name == _CREATED:
        return status in _RUN_STATUSES - _STARTED
    return name != status and name in _RUN_STATUSES


def named_by_its_data(event: RunEvent) -> RunEvent:
    """Return the event under the name of its data's status, where its own name says another.

    >>> run = Run(id="run_1", thread_id="thread_1", assistant_id="a", status="requires_action")
    >>> named_by_its_data(RunEvent(event="thread.run.completed", data=run)).event
    'thread.run.requires_action'
    """
    if not contradicts(event) or status_in_name(event.event) == _CREATED:
        return event
    return replace(event, event=f"thread.run.{event.data.status}")


def _read_other(frame: Frame) -> Event | None:
    if frame.event == EventName.DONE or frame.data.strip() in {_DONE, b'"[DONE]"'}:
        return None
    if frame.event == EventName.ERROR:
        raise StreamFault(frame)
    data = read_json(frame.data)
    if frame.event in _UNNAMED and isinstance(data, (str, list)):
        text = _unwrapped(frame.data, in_envelope=False)
        if isinstance(inner := read_json(text), dict):
            frame, data = replace(frame, data=text), inner
    if frame.event in _UNNAMED and isinstance(data, dict):
        if isinstance(data.get("event"), str):
            return _open_envelope(frame)
        if data.get("error") is not None:
            raise StreamFault(frame)
    return _read_new_status(frame, data) or _unknown(frame, data)


def _open_envelope(frame: Frame) -> Event | None:
    try:
        envelope = _ENVELOPE.decode(frame.data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        envelope = _ENVELOPE.decode(repaired(frame.data))
    if envelope.event in _UNNAMED or not envelope.event.isprintable():
        return _unknown(frame, read_json(frame.data))
    return read_event(Frame(envelope.event, bytes(envelope.data), frame.id))


def _read_new_status(frame: Frame, data: Any) -> Event | None:
    """Return the event if its name ends in a status that this version does not know."""
    name = frame.event.rpartition(".")[0]
    reader = _BY_OBJECT.get(name)
    if reader is None or not isinstance(data, dict) or data.get("object") != name:
        return None
    try:
        return reader.read(frame)
    except msgspec.DecodeError:
        return None


def _unknown(frame: Frame, data: Any) -> UnknownEvent:
    if data is None and frame.data.strip() != b"null":
        text = frame.data.decode("utf-8", "replace")
        return UnknownEvent(event=frame.event, id=frame.id, data=text)
    return UnknownEvent(event=frame.event, id=frame.id, raw=frame.data, data=data)
