"""Frames of a stream, as typed events.

What may not live here: what to do about an event, a fault or the end. The names are those
of the OpenAPI description's AssistantStreamEvent; docs/pages/explain/protocol.md says how
other servers write them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec

from openai_runs._protocol.error_mapping import error_facts, excerpt, masked_json
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
    "MESSAGE_ENDS",
    "STEP_ENDS",
    "StreamFault",
    "UnreadableEvent",
    "contradicts",
    "named_by_its_data",
    "read_event",
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


class StreamFault(ValueError):  # noqa: N818 - what the server says went wrong
    """The server ends the stream with an error event."""

    def __init__(self, frame: Frame, secrets: Collection[str] = ()) -> None:
        """Take out what the event says, as far as it says it, without the secrets."""
        self.frame = frame
        facts = error_facts(frame.data, secrets)
        said = facts.get("message") or excerpt(frame.data, secrets=secrets)
        self.message = said or "no error text"
        self.code = facts.get("code")
        self.param = facts.get("param")
        self.type = facts.get("type")
        self.body: Any = masked_json(frame.data, secrets)
        super().__init__(self.message)


class UnreadableEvent(ValueError):  # noqa: N818 - as `StreamFault`
    """The data of a known event is not the object that belongs to it."""

    def __init__(self, frame: Frame, problem: str, secrets: Collection[str] = ()) -> None:
        """Keep the beginning of the data, without the secrets."""
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
    """What an event of one kind is made of."""

    __slots__ = ("kind", "mend", "strict")

    def __init__(self, kind: Any, data: type[Any]) -> None:
        """Build the decoders of an event class and of the object in its data."""
        self.kind = kind
        self.strict = msgspec.json.Decoder(data).decode  # called at once: a stream has many
        self.mend = decoder_for(data).decode

    def read(self, frame: Frame) -> Event:
        """Return the event, mended; raise `msgspec.DecodeError` if its data is of another kind."""
        data = self.mend(frame.data)
        event: Event = self.kind(event=frame.event, id=frame.id, raw=frame.data, data=data)
        return event


_RUN: Final = _Reader(RunEvent, Run)
_STEP: Final = _Reader(RunStepEvent, RunStep)
_MESSAGE: Final = _Reader(MessageEvent, Message)

_BY_OBJECT: Final[dict[str, _Reader]] = {
    "thread.run": _RUN,
    "thread.run.step": _STEP,
    "thread.message": _MESSAGE,
}
"""The name of an event but for its last word, which is its data's `object` -> what it is."""


def _readers() -> dict[str, _Reader]:
    names = {value for key, value in vars(EventName).items() if key.isupper()}
    apart = {
        EventName.THREAD_CREATED: _Reader(ThreadEvent, Thread),
        EventName.STEP_DELTA: _Reader(RunStepDeltaEvent, RunStepDelta),
        EventName.MESSAGE_DELTA: _Reader(MessageDeltaEvent, MessageDelta),
    }
    statuses = names - apart.keys() - {EventName.ERROR, EventName.DONE}
    return {**apart, **{name: _BY_OBJECT[name.rpartition(".")[0]] for name in statuses}}


_READERS: Final = _readers()
"""The name of each known event -> what it is. Made at import, which lays the types out."""


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
        try:
            return reader.read(frame)
        except msgspec.DecodeError as error:
            raise UnreadableEvent(frame, str(error)) from None
    event: Event = reader.kind(event=frame.event, id=frame.id, raw=text, data=data)
    return event


def status_in_name(event: str) -> str:
    """Return the last word of an event's name, which is the status of what it is about.

    >>> status_in_name("thread.run.requires_action")
    'requires_action'
    """
    return event.rpartition(".")[2]


def contradicts(event: RunEvent | RunStepEvent | MessageEvent) -> bool:
    """Return whether an event's name says another status than its data.

    Of steps and messages only an end counts: what their other events are called does no harm.

    >>> run = Run(id="run_1", thread_id="thread_1", assistant_id="a", status="requires_action")
    >>> contradicts(RunEvent(event="thread.run.completed", data=run))
    True
    """
    name, status = status_in_name(event.event), event.data.status
    if not isinstance(event, RunEvent):
        return name != status and name in (
            MESSAGE_ENDS if isinstance(event, MessageEvent) else STEP_ENDS
        )
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
    return msgspec.structs.replace(event, event=f"thread.run.{event.data.status}")


def _read_other(frame: Frame) -> Event | None:
    if frame.event == EventName.DONE or frame.data.strip() in {_DONE, b'"[DONE]"'}:
        return None
    if frame.event == EventName.ERROR:
        raise StreamFault(frame)
    data = _as_json(frame.data)
    if frame.event in _UNNAMED and isinstance(data, dict):
        if isinstance(data.get("event"), str):
            return _open_envelope(frame)
        if data.get("error") is not None:
            raise StreamFault(frame)
    return _read_later(frame, data) or _unknown(frame, data)


def _open_envelope(frame: Frame) -> Event | None:
    envelope = _ENVELOPE.decode(frame.data)
    if envelope.event in _UNNAMED or not envelope.event.isprintable():
        return _unknown(frame, _as_json(frame.data))
    return read_event(Frame(envelope.event, bytes(envelope.data), frame.id))


def _read_later(frame: Frame, data: Any) -> Event | None:
    """Return the event if it tells of a status that this version does not know."""
    about = frame.event.rpartition(".")[0]
    reader = _BY_OBJECT.get(about)
    if reader is None or not isinstance(data, dict) or data.get("object") != about:
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


def _as_json(text: bytes) -> Any:
    """Return the JSON value; None if there is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
