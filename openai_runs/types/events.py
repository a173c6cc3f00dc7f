"""Events of a stream: the server's name for what happened, and the object or piece it is about.

An event this version does not know is kept as `UnknownEvent`, with its JSON.
"""

from typing import Any, Final, TypeAlias

import msgspec

from openai_runs._printing import Pairs, Printed
from openai_runs.types.deltas import MessageDelta, RunStepDelta
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run
from openai_runs.types.steps import RunStep
from openai_runs.types.threads import Thread

__all__ = [
    "Event",
    "EventName",
    "MessageDeltaEvent",
    "MessageEvent",
    "RunEvent",
    "RunStepDeltaEvent",
    "RunStepEvent",
    "StreamEvent",
    "ThreadEvent",
    "UnknownEvent",
]


class EventName:
    """Names of the events; `error` and `done` end a stream and are never handed out."""

    THREAD_CREATED: Final = "thread.created"
    RUN_CREATED: Final = "thread.run.created"
    RUN_QUEUED: Final = "thread.run.queued"
    RUN_IN_PROGRESS: Final = "thread.run.in_progress"
    RUN_REQUIRES_ACTION: Final = "thread.run.requires_action"
    RUN_COMPLETED: Final = "thread.run.completed"
    RUN_INCOMPLETE: Final = "thread.run.incomplete"
    RUN_FAILED: Final = "thread.run.failed"
    RUN_CANCELLING: Final = "thread.run.cancelling"
    RUN_CANCELLED: Final = "thread.run.cancelled"
    RUN_EXPIRED: Final = "thread.run.expired"
    STEP_CREATED: Final = "thread.run.step.created"
    STEP_IN_PROGRESS: Final = "thread.run.step.in_progress"
    STEP_DELTA: Final = "thread.run.step.delta"
    STEP_COMPLETED: Final = "thread.run.step.completed"
    STEP_FAILED: Final = "thread.run.step.failed"
    STEP_CANCELLED: Final = "thread.run.step.cancelled"
    STEP_EXPIRED: Final = "thread.run.step.expired"
    MESSAGE_CREATED: Final = "thread.message.created"
    MESSAGE_IN_PROGRESS: Final = "thread.message.in_progress"
    MESSAGE_DELTA: Final = "thread.message.delta"
    MESSAGE_COMPLETED: Final = "thread.message.completed"
    MESSAGE_INCOMPLETE: Final = "thread.message.incomplete"
    ERROR: Final = "error"
    DONE: Final = "done"


class StreamEvent(Printed, msgspec.Struct, frozen=True, kw_only=True):
    """What all events have."""

    event: str
    """One of `EventName`, or what the server calls it."""
    id: str = ""
    """Its place in the run's stream, where the server gives one; what resuming begins after."""
    raw: bytes = b""
    """The JSON of `data` as it was sent; empty where the client made the event itself, or where
    it was no JSON."""

    @property
    def json(self) -> bytes:
        """Return the JSON of `data`: as it was sent, or as it is written."""
        return self.raw or msgspec.json.encode(getattr(self, "data", None))

    def to_dict(self) -> dict[str, Any]:
        """Return the event as `{"event": ..., "data": ...}`, unknown fields included."""
        return {"event": self.event, "data": msgspec.json.decode(self.json)}

    def model_dump(self) -> dict[str, Any]:
        """Return `to_dict()`, under the official SDK's name."""
        return self.to_dict()

    def _printed(self) -> Pairs:
        """Return what the event says, and not its JSON a second time."""
        shown = [("event", self.event), ("data", getattr(self, "data", None))]
        return [*shown, ("id", self.id)] if self.id else shown


class ThreadEvent(StreamEvent, frozen=True, kw_only=True):
    """`thread.created`."""

    data: Thread


class RunEvent(StreamEvent, frozen=True, kw_only=True):
    """The run was made or has moved on: `thread.run.` and its status."""

    data: Run


class RunStepEvent(StreamEvent, frozen=True, kw_only=True):
    """A step began or ended: `thread.run.step.` and what happened."""

    data: RunStep


class RunStepDeltaEvent(StreamEvent, frozen=True, kw_only=True, gc=False):
    """`thread.run.step.delta`: a piece of a step."""

    data: RunStepDelta


class MessageEvent(StreamEvent, frozen=True, kw_only=True):
    """A message began or ended: `thread.message.` and what happened."""

    data: Message


class MessageDeltaEvent(StreamEvent, frozen=True, kw_only=True, gc=False):
    """`thread.message.delta`: a piece of a message."""

    data: MessageDelta


class UnknownEvent(StreamEvent, frozen=True, kw_only=True):
    """An event this version does not know, or one whose data is no object it can read."""

    data: Any
    """Its JSON value, or its text where that is no JSON."""


Event: TypeAlias = (
    ThreadEvent
    | RunEvent
    | RunStepEvent
    | RunStepDeltaEvent
    | MessageEvent
    | MessageDeltaEvent
    | UnknownEvent
)
