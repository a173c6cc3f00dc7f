"""Whole streams: in whatever order the protocol allows, the same objects come of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs._protocol.snapshot.snapshot import Snapshot
from openai_runs.types import Event, MessageDeltaEvent, RunStepDeltaEvent
from tests.protocol.event_builders import (
    DESCRIBED,
    call_delta,
    events_of,
    full,
    message,
    message_delta,
    piece,
    snapshot_of,
    step,
    text,
)
from tests.samples import STREAMS, raw

WORDS = st.lists(st.text(max_size=3), max_size=5)
INDICES = st.lists(st.integers(0, 9), unique=True, max_size=3)


class Telling(NamedTuple):
    """One thing that a stream tells in order, and what has to come of it."""

    events: list[Event]
    object_id: str
    place: int
    expected: Any


@st.composite
def text_parts(draw: st.DrawFn, message_id: str, index: int) -> Telling:
    """Return the pieces of a text part, with annotations said in parts and again."""
    words = draw(WORDS)
    says: list[dict[str, Any]] = [{"text": "[1]"}, {"start_index": 4}, {"end_index": 7}, {}]
    notes: list[dict[str, Any]] = [
        {"index": number, "type": "file_citation", **said}
        for number in draw(INDICES)
        for said in draw(st.permutations(says))
    ]
    pieces = [text(word, index) for word in words]
    pieces += [piece("text", index, text={"annotations": [note]}) for note in notes]
    told = {"type": "file_citation", "file_citation": {}, "text": "[1]"}
    count = len({note["index"] for note in notes})
    expected = full("".join(words), *[{**told, "start_index": 4, "end_index": 7}] * count)
    events = [message_delta(one, id=message_id) for one in pieces or [text(None, index)]]
    return Telling(events, message_id, index, expected)


@st.composite
def refusals(draw: st.DrawFn, message_id: str, index: int) -> Telling:
    """Return the pieces of a refusal."""
    words = ["", *draw(WORDS)]
    events = [message_delta(piece("refusal", index, refusal=word), id=message_id) for word in words]
    return Telling(events, message_id, index, {"type": "refusal", "refusal": "".join(words)})


@st.composite
def calls(draw: st.DrawFn, step_id: str, index: int) -> Telling:
    """Return the pieces of a function call, which repeat its id and name as they like."""
    words = ["", *draw(WORDS)]
    function = {"name": "f", "arguments": "".join(words), "output": None}
    events = [
        call_delta(
            {
                "index": index,
                "type": "function",
                "id": "call_1" if number == 0 or draw(st.booleans()) else None,
                "function": {
                    "name": "f" if number == 0 or draw(st.booleans()) else None,
                    "arguments": word,
                },
            },
            id=step_id,
        )
        for number, word in enumerate(words)
    ]
    expected = {"type": "function", "id": "call_1", "function": function}
    return Telling(events, step_id, index, expected)


@st.composite
def tellings(draw: st.DrawFn) -> list[Telling]:
    """Return what happens in a run: parts of messages, calls of steps."""
    told: list[Telling] = []
    for message_id in draw(st.sampled_from([[], ["msg_1"], ["msg_1", "msg_2"]])):
        parts = [text_parts(message_id, at) | refusals(message_id, at) for at in draw(INDICES)]
        told.extend(draw(part) for part in parts)
    for step_id in draw(st.sampled_from([[], ["step_1"], ["step_1", "step_2"]])):
        told.extend(draw(calls(step_id, at)) for at in draw(INDICES))
    return told


@st.composite
def interleaved(draw: st.DrawFn) -> tuple[list[Event], list[Telling]]:
    """Return a run's events, each telling's in its order, with `created` anywhere or nowhere."""
    told = draw(tellings())
    objects = sorted({one.object_id for one in told})
    sequences = [list(one.events) for one in told]
    sequences += [created(object_id)[: draw(st.integers(0, 2))] for object_id in objects]
    turns = [number for number, events in enumerate(sequences) for _ in events]
    return [sequences[number].pop(0) for number in draw(st.permutations(turns))], told


def created(object_id: str) -> list[Event]:
    """Return the events that tell that an object is there, still empty."""
    if object_id.startswith("msg"):
        return [message(event, id=object_id) for event in ("created", "in_progress")]
    empty: dict[str, Any] = {"type": "tool_calls", "tool_calls": []}
    return [step(event, empty, id=object_id) for event in ("created", "in_progress")]


def built(events: Sequence[Event]) -> dict[str, list[Any]]:
    """Return the parts and calls that come of these events, by id."""
    snapshot = snapshot_of(*events)
    parts = {one.id: msgspec.to_builtins(one.content) for one in snapshot.messages}
    return parts | {one.id: msgspec.to_builtins(one.tool_calls) for one in snapshot.steps}


@given(interleaved())
def test_every_order_that_is_allowed_gives_the_same(run: tuple[list[Event], list[Telling]]) -> None:
    """Pieces of one part keep their order; all else may come in any, and be said again."""
    events, told = run

    expected: dict[str, list[Any]] = {one.object_id: [] for one in told}
    for one in sorted(told, key=lambda one: one.place):
        expected[one.object_id].append(one.expected)
    assert built(events) == expected


@given(interleaved(), st.lists(st.booleans()))
def test_reading_in_between_changes_nothing(
    run: tuple[list[Event], list[Telling]], looks: list[bool]
) -> None:
    """What a reader looks at while it grows is the same as for one who waits."""
    events, _ = run
    snapshot = snapshot_of()
    for number, event in enumerate(events):
        snapshot.apply(event)
        if number < len(looks) and looks[number]:
            assert (snapshot.messages, snapshot.steps) == (snapshot.messages, snapshot.steps)

    whole = snapshot_of(*events)
    assert (snapshot.messages, snapshot.steps, snapshot.text) == (
        whole.messages,
        whole.steps,
        whole.text,
    )


@pytest.mark.parametrize("name", STREAMS)
def test_streams_of_other_servers_add_up(name: str) -> None:
    """One text or one call comes of them, although they repeat and rename things."""
    snapshot = snapshot_of(*events_of(raw(name)))

    if "message" in name:
        assert snapshot.text == "It is sunny in Bern."
        assert [one.id for one in snapshot.messages] == ["msg_1"]
    else:
        (built,) = snapshot.steps
        function = {"name": "get_weather", "arguments": '{"city": "Bern"}', "output": None}
        call = {"type": "function", "id": "call_1", "function": function}
        assert msgspec.to_builtins(built.tool_calls) == [call]


GREETING = "Hello! How can I assist you today?"
WEATHER = "The current weather in San Francisco, CA is 70 degrees Fahrenheit and sunny."
OUTCOMES = [
    ("completed", GREETING),
    ("requires_action", ""),
    ("completed", GREETING),
    ("completed", GREETING),
    ("completed", WEATHER),
]


@pytest.mark.parametrize(("stream", "outcome"), list(zip(DESCRIBED, OUTCOMES, strict=True)))
def test_streams_of_the_description_add_up(stream: bytes, outcome: tuple[str, str]) -> None:
    """The run has ended as it says, with its whole text; no piece makes an object of its own."""
    events = events_of(stream)[:-1]
    snapshot = snapshot_of(*events)

    assert snapshot.run is not None
    assert (snapshot.run.status, snapshot.text) == outcome
    told = {event.data.id for event in events if event.event.endswith(".created")}
    pieces = [event for event in events if isinstance(event, MessageDeltaEvent | RunStepDeltaEvent)]
    assert {event.data.id for event in pieces} <= told


@pytest.mark.parametrize(
    "events",
    [
        [message_delta("a"), message_delta(piece("poem", 0)), message_delta("b")],
        [message_delta("a", text("x", 1)), message_delta(text("y", 1), "b"), message_delta("c")],
        [message_delta("a"), message_delta("z", id="msg_2"), message_delta("b")],
        [message_delta("a"), message("in_progress", "a"), message_delta("b", role="assistant")],
        [message_delta(f"word{number} ") for number in range(600)],
    ],
    ids=["kinds", "indices", "messages", "told-between", "many"],
)
def test_pieces_amount_to_the_same_whenever_somebody_looks(events: list[Event]) -> None:
    """A snapshot that is read after each event ends as one that is read at the end does."""
    watched, unwatched = Snapshot(), Snapshot()
    for event in events:
        watched.apply(event)
        assert watched.text is not None
        unwatched.apply(event)

    assert unwatched.text == watched.text
    assert unwatched.messages == watched.messages
