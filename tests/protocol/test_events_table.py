"""The events table: each row is used by the reader, the snapshot, backfill and the relay."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from openai_runs import AsyncClient, relay
from openai_runs._client.streams.backfill import missing_events
from openai_runs._protocol.events import ALL_FIELDS, EVENTS, EventType, read_event
from openai_runs._protocol.snapshot.snapshot import Snapshot
from openai_runs._protocol.sse import Frame
from openai_runs.types import Event, EventName, Message, Run, RunStep, UnknownEvent
from tests.client.broadcaster import HEAD, delta, frame, message_json, step_json
from tests.relaying import frames_of
from tests.support import HostileServer, Raw, run_json

OBJECTS: dict[str, dict[str, Any]] = {
    "thread.created": {"id": "thread_1", "object": "thread", "created_at": 1, "metadata": {}},
    "thread.run": run_json("completed", metadata={}),
    "thread.run.step": step_json("completed"),
    "thread.run.step.delta": {
        "id": "step_1",
        "object": "thread.run.step.delta",
        "delta": {"step_details": {"type": "tool_calls", "tool_calls": []}},
    },
    "thread.message": message_json("Hello", "completed"),
    "thread.message.delta": delta("Hello"),
}
"""The name of a row -> an object as a server sends it."""

each_row = pytest.mark.parametrize("row", EVENTS, ids=lambda row: row.name)


def name_of(row: EventType) -> str:
    """Return the name of an event of this type."""
    return f"{row.name}.completed" if row.has_status else row.name


def event_with(row: EventType) -> Event:
    """Return an event of this type, as it is read."""
    event = read_event(Frame(name_of(row), msgspec.json.encode(OBJECTS[row.name]), ""))
    assert event is not None
    return event


def test_table_has_one_row_for_each_class_of_event() -> None:
    """None is left out, and each name of an event has a row."""
    names = {value for key, value in vars(EventName).items() if key.isupper()}
    exact = {row.name for row in EVENTS if not row.has_status}
    prefixes = {row.name for row in EVENTS if row.has_status}

    assert len({row.event for row in EVENTS}) == len(EVENTS)
    assert {row.event for row in EVENTS} == set(get_args(Event)) - {UnknownEvent}
    for name in names - exact - {EventName.ERROR, EventName.DONE}:
        assert name.rpartition(".")[0] in prefixes


@each_row
def test_row_says_which_event_is_read(row: EventType) -> None:
    """Its class, and the class of its data."""
    event = event_with(row)

    assert type(event) is row.event
    assert type(event.data) is row.data


@each_row
def test_row_says_how_its_event_is_folded(row: EventType) -> None:
    """The snapshot's method of that name does what `apply` does, and that is something."""
    applied, folded = Snapshot(), Snapshot()

    applied.apply(event_with(row))
    getattr(folded, row.fold)(event_with(row))

    assert contents(applied) == contents(folded) != contents(Snapshot())


def contents(snapshot: Snapshot) -> tuple[Any, ...]:
    """Return all that a snapshot shows."""
    return snapshot.thread, snapshot.run, snapshot.messages, snapshot.steps


@pytest.mark.parametrize("is_known", [False, True], ids=["nothing seen", "seen in part"])
def test_rows_say_which_events_are_backfilled(is_known: bool) -> None:
    """Of a whole run, one of each of those types, and none of another."""
    snapshot = Snapshot()
    if is_known:
        for name, begun in (
            ("thread.run.in_progress", run_json("in_progress")),
            ("thread.run.step.created", step_json()),
            ("thread.message.delta", delta("Hel")),
        ):
            event = read_event(Frame(name, msgspec.json.encode(begun), ""))
            assert event is not None
            snapshot.apply(event)
    run = msgspec.convert(OBJECTS["thread.run"], Run)
    message = msgspec.convert(OBJECTS["thread.message"], Message)
    step = msgspec.convert(OBJECTS["thread.run.step"], RunStep)

    missed = missing_events(snapshot, run, [message], [step])

    assert {type(event) for event in missed} == {row.event for row in EVENTS if row.backfill}
    for event in missed:
        (row,) = [one for one in EVENTS if one.event is type(event)]
        about = event.event.rpartition(".")[0] if row.has_status else event.event
        assert about == row.name


@each_row
async def test_row_says_what_a_browser_is_shown(row: EventType) -> None:
    """These fields of those that are sent, the whole object, or no event at all."""
    sent = OBJECTS[row.name]
    stream = [frame("thread.run.created", run_json()), frame(name_of(row), sent)]
    if row.name != "thread.run":
        stream.append(frame("thread.run.completed", run_json("completed")))
    body = HEAD + b"\r\n" + b"".join(stream) + b"event: done\ndata: [DONE]\n\n"
    async with (
        HostileServer(lambda request: Raw(body)) as server,
        AsyncClient(server.url, "k") as client,
    ):
        relayed = relay.sse(client.runs.stream("thread_1", assistant_id="a"))
        seen = frames_of([part async for part in relayed])

    shown = [msgspec.json.decode(one.data) for one in seen if one.event == name_of(row)]
    fields = sent.keys() if row.shown is ALL_FIELDS else [one for one in sent if one in row.shown]
    assert [set(one) for one in shown] == ([set(fields)] if fields else [])
