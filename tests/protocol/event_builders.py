"""Builders of events as a server sends them, and of snapshots."""

from typing import Any

import msgspec

from openai_runs._protocol.events import read_event
from openai_runs._protocol.snapshot.snapshot import Snapshot
from openai_runs._protocol.sse import Frame, SSEParser
from openai_runs.types import Event
from tests.openapi import EXAMPLES

__all__ = [
    "DESCRIBED",
    "call_delta",
    "event_with",
    "events_of",
    "full",
    "message",
    "message_delta",
    "piece",
    "run",
    "snapshot_of",
    "step",
    "step_delta",
    "text",
]


def event_with(name: str, **data: Any) -> Event:
    """Return an event with this JSON object as its data."""
    event = read_event(Frame(name, msgspec.json.encode(data), ""))
    assert event is not None
    return event


def run(status: str, event: str = "", **fields: Any) -> Event:
    """Return an event about a run."""
    data = {"id": "run_1", "thread_id": "thread_1", "assistant_id": "asst_1", "status": status}
    return event_with(f"thread.run.{event or status}", **data, **fields)


def message(event: str, *content: Any, id: str = "msg_1", **fields: Any) -> Event:
    """Return an event with a whole message; a text is a text part."""
    parts = [full(part) if isinstance(part, str) else part for part in content]
    data = {"id": id, "status": event if event != "created" else "in_progress", "role": "assistant"}
    return event_with(f"thread.message.{event}", **{**data, **fields}, content=parts)


def full(value: str, *annotations: Any) -> dict[str, Any]:
    """Return a text part as a message has it."""
    return {"type": "text", "text": {"value": value, "annotations": list(annotations)}}


def piece(kind: str, index: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a piece of a part of a message."""
    return {"index": index, "type": kind, **fields}


def text(value: str | None, index: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a piece of a text part."""
    return piece("text", index, text={"value": value, **fields})


def message_delta(*parts: Any, id: str = "msg_1", **fields: Any) -> Event:
    """Return a piece of a message; a text is a piece of text part 0."""
    content = [text(part) if isinstance(part, str) else part for part in parts]
    return event_with("thread.message.delta", id=id, delta={"content": content, **fields})


def step(event: str, details: Any, id: str = "step_1", **fields: Any) -> Event:
    """Return an event with a whole step."""
    status = event if event != "created" else "in_progress"
    data = {"id": id, "type": details["type"], "status": status, "step_details": details}
    return event_with(f"thread.run.step.{event}", **{**data, **fields})


def step_delta(details: Any, id: str = "step_1") -> Event:
    """Return a piece of a step."""
    return event_with("thread.run.step.delta", id=id, delta={"step_details": details})


def call_delta(*calls: Any, id: str = "step_1") -> Event:
    """Return a piece of a step's tool calls."""
    return step_delta({"type": "tool_calls", "tool_calls": list(calls)}, id)


def snapshot_of(*events: Event) -> Snapshot:
    """Return what these events add up to."""
    snapshot = Snapshot()
    for event in events:
        snapshot.apply(event)
    return snapshot


def events_of(text: bytes) -> list[Any]:
    """Return the events of a whole stream; None where it says that it is done."""
    return [read_event(frame) for frame in SSEParser().feed(text)]


def tidied(text: str) -> bytes:
    """Return an example of the description without its slips: `data:` forgotten, `}` doubled."""
    text = text.replace("\n{", "\ndata: {").replace("true}}\n", "true}\n")
    return text.rstrip().encode() + b"\n\n"


DESCRIBED = [
    tidied(example["answer"])
    for example in EXAMPLES["operations"]
    if isinstance(example["answer"], str)
]
"""The streams of the OpenAPI description's examples."""
