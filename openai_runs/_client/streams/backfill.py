"""The events that a broken stream did not send, made from the objects that the server returns.

Pure: snapshot and fetched objects in, missing events out. Which types of events are made, and
their names, is in the events table (`_protocol.events`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from openai_runs._protocol.events import backfill_event
from openai_runs._protocol.snapshot.snapshot import Snapshot
from openai_runs.types.deltas import (
    ContentDelta,
    MessageDelta,
    MessageDeltaBody,
    RefusalContentDelta,
    TextContentDelta,
    TextDelta,
)
from openai_runs.types.events import Event
from openai_runs.types.messages import Content, Message, RefusalContent, TextContent
from openai_runs.types.runs import Run
from openai_runs.types.steps import MessageCreationDetails, RunStep

__all__ = ["missing_events", "missing_piece"]

_IN_PROGRESS: Final = "in_progress"


def missing_events(
    snapshot: Snapshot, run: Run, messages: Iterable[Message], steps: Iterable[RunStep]
) -> list[Event]:
    """Return the events that lead from `snapshot` to the fetched objects.

    Of a text that came in part, the rest is one delta, so that the deltas add up to the text.
    Where the stored text does not begin with the received part (the server repeated the work after
    a crash), there is no such delta: only the message's last event has the whole text.

    Args:
        snapshot: Built from the events so far.
        run: The run as it is now.
        messages: The messages it wrote, oldest first; items that could not be decoded are skipped.
        steps: Its steps, oldest first.
    """
    events: list[Event] = []
    left = {message.id: message for message in messages if isinstance(message, Message)}
    for step in steps:
        if not isinstance(step, RunStep):
            continue
        if isinstance(step.step_details, MessageCreationDetails):
            written = left.pop(step.step_details.message_creation.message_id, None)
            events.extend(_of_message(snapshot, written))
        events.extend(_of_step(snapshot, step))
    for message in left.values():
        events.extend(_of_message(snapshot, message))
    known = snapshot.run
    if known is None or known.status != run.status or known.tool_calls != run.tool_calls:
        events.append(backfill_event(run))
    return events


def missing_piece(snapshot: Snapshot, message: Message) -> Event | None:
    """Return the rest of the message's text as a delta; None if there is none."""
    known = snapshot.message(message.id)
    parts = list(_rest(message, known.content if known is not None else []))
    if not parts:
        return None
    return backfill_event(MessageDelta(id=message.id, delta=MessageDeltaBody(content=parts)))


def _of_step(snapshot: Snapshot, step: RunStep) -> Iterator[Event]:
    known = snapshot.step(step.id)
    differs = snapshot.contradicts(step.id) and known != step
    if known is None and step.status != _IN_PROGRESS:
        yield backfill_event(step, "created")
    if known is None or known.status != step.status or differs:
        yield backfill_event(step)


def _of_message(snapshot: Snapshot, message: Message | None) -> Iterator[Event]:
    if message is None:
        return
    known = snapshot.message(message.id)
    if known is not None and known.status != _IN_PROGRESS and not _differs(snapshot, message):
        return
    rest = missing_piece(snapshot, message)
    if rest is not None:
        yield rest
    if message.status != _IN_PROGRESS:
        yield backfill_event(message)


def _differs(snapshot: Snapshot, message: Message) -> bool:
    """Return whether an end known by an event's name alone differs from the fetched one."""
    known = snapshot.message(message.id)
    return (
        known is not None
        and snapshot.contradicts(message.id)
        and (known.status, known.text) != (message.status, message.text)
    )


def _rest(message: Message, seen: list[Content]) -> Iterator[ContentDelta]:
    """Yield the rest of each part."""
    for index, part in enumerate(message.content):
        before = _text_of(seen[index]) if index < len(seen) else ""
        text = _text_of(part)
        if len(text) > len(before) and text.startswith(before):
            rest = text[len(before) :]
            if isinstance(part, TextContent):
                yield TextContentDelta(index=index, text=TextDelta(value=rest))
            else:
                yield RefusalContentDelta(index=index, refusal=rest)


def _text_of(part: Content) -> str:
    if isinstance(part, TextContent):
        return part.text.value
    return part.refusal if isinstance(part, RefusalContent) else ""
