"""Frames become typed events, in whichever form a server sends them."""

from typing import Any

import msgspec
import pytest

from openai_runs._protocol.events import StreamFault, UnreadableEvent, read_event
from openai_runs._protocol.sse import Frame, SSEParser, encode
from openai_runs.types import (
    Event,
    EventName,
    MessageDeltaEvent,
    MessageEvent,
    RunEvent,
    RunStepDeltaEvent,
    RunStepEvent,
    ThreadEvent,
    UnknownContentDelta,
    UnknownEvent,
)
from tests.protocol.event_builders import DESCRIBED, events_of
from tests.samples import STREAMS, raw

RUN = b'{"id": "run_1", "object": "thread.run", "thread_id": "thread_1", "status": "queued"}'
STEP = (
    b'{"id": "step_1", "object": "thread.run.step", "status": "paused", '
    b'"step_details": {"type": "tool_calls", "tool_calls": []}}'
)
MESSAGE = b'{"id": "msg_1", "object": "thread.message", "status": "paused", "content": []}'

KINDS: dict[str, tuple[type[Any], bytes]] = {
    "thread.created": (ThreadEvent, b'{"id": "thread_1"}'),
    "thread.run.step.delta": (RunStepDeltaEvent, b'{"id": "step_1", "delta": {}}'),
    "thread.message.delta": (MessageDeltaEvent, b'{"id": "msg_1", "delta": {}}'),
}
NAMES = sorted(
    {value for key, value in vars(EventName).items() if key.isupper()}
    - {EventName.ERROR, EventName.DONE}
)


def kind_of(name: str) -> tuple[type[Any], bytes]:
    """Return the class of a known event, and data that it may have."""
    if name in KINDS:
        return KINDS[name]
    if name.startswith("thread.run.step."):
        return RunStepEvent, STEP
    return (MessageEvent, MESSAGE) if name.startswith("thread.message.") else (RunEvent, RUN)


def read(event: str, data: bytes, id: str = "") -> Event | None:
    """Return the event of a frame."""
    return read_event(Frame(event, data, id))


@pytest.mark.parametrize("name", NAMES)
def test_known_event_has_its_object(name: str) -> None:
    """Name, place and JSON are as sent; the data is the object the name stands for."""
    kind, data = kind_of(name)

    event: Any = read(name, data, "1-7")

    assert type(event) is kind
    assert (event.event, event.id, event.raw) == (name, "1-7", data)
    assert event.data.id == msgspec.json.decode(data)["id"]
    assert event.to_dict() == {"event": name, "data": msgspec.json.decode(data)}


@pytest.mark.parametrize("name", NAMES)
def test_envelope_is_the_event_within(name: str) -> None:
    """An event whose name stands in its JSON is the same as one with an `event:` line."""
    _, data = kind_of(name)
    wire = msgspec.json.encode({"data": msgspec.Raw(data), "event": name})

    assert read("", wire, "7") == read("message", wire, "7") == read(name, data, "7")


def test_envelope_whose_text_is_damaged_is_the_event_within() -> None:
    """Half of a character costs only itself."""
    data = MESSAGE[:-1] + b', "metadata": {"note": "a \\ud83d"}}'

    event: Any = read("", b'{"event":"thread.message.created","data":%s}' % data, "7")

    assert event.event == "thread.message.created"
    assert event.data.metadata["note"] == "a \N{REPLACEMENT CHARACTER}"


def test_event_that_was_encoded_too_often_cannot_be_read() -> None:
    """There is an end to unwrapping."""
    data = RUN
    for _ in range(5):
        data = msgspec.json.encode(data.decode())

    with pytest.raises(UnreadableEvent):
        read("thread.run.created", data)


LATER = [
    ("thread.run.paused", RUN, RunEvent),
    ("thread.run.step.paused", STEP, RunStepEvent),
    ("thread.message.paused", MESSAGE, MessageEvent),
    ("thread.run.paused", STEP, UnknownEvent),
    ("thread.run.paused", b'{"id": "run_1", "object": "thread.run"}', UnknownEvent),
    ("thread.run.step.paused", RUN, UnknownEvent),
    ("thread.run.step.pause.long", STEP, UnknownEvent),
    ("thread.message.paused", RUN, UnknownEvent),
    ("thread.message.paused", b"[]", UnknownEvent),
    ("thread.message.paused", b"", UnknownEvent),
    ("thread.banana", b'{"object": "thread"}', UnknownEvent),
    ("run.created", RUN, UnknownEvent),
    ("", RUN, UnknownEvent),
    ("", b'{"event": 5}', UnknownEvent),
    ("", b'{"event": ""}', UnknownEvent),
    ("", b'{"event": "message", "data": {}}', UnknownEvent),
    ("", b'{"event": "a\\nevent: b", "data": {}}', UnknownEvent),
    ("", b'{"error": null}', UnknownEvent),
    ("", b'"text"', UnknownEvent),
    ("thread.created.twice", b'{"error": {"message": "no"}}', UnknownEvent),
]


@pytest.mark.parametrize(("name", "data", "kind"), LATER)
def test_event_of_a_later_version_is_kept(name: str, data: bytes, kind: type[Event]) -> None:
    """A new status of a known object is one; anything else is kept as it came."""
    event = read(name, data, "7")

    assert type(event) is kind
    assert (event.event, event.id) == (name, "7")


@pytest.mark.parametrize(
    ("data", "value", "json"),
    [
        (b'{"a": [1, null]}', {"a": [1, None]}, b'{"a": [1, null]}'),
        (b" null ", None, b" null "),
        (b"hello", "hello", b'"hello"'),
        (b"", "", b'""'),
        (b"\xff{", "\ufffd{", '"\ufffd{"'.encode()),
        (b"[" * 100_000, "[" * 100_000, b'"' + b"[" * 100_000 + b'"'),
    ],
)
def test_data_of_an_unknown_event_is_its_json_or_its_text(
    data: bytes, value: object, json: bytes
) -> None:
    """Whatever a server sends under a new name, it is there, and can be written again."""
    event = read("banana", data)

    assert isinstance(event, UnknownEvent)
    assert (event.data, event.json) == (value, json)
    assert event.to_dict() == {"event": "banana", "data": value}


DONE = [
    ("done", b"[DONE]"),
    ("done", b"done"),
    ("", b"[DONE]"),
    ("message", b" [DONE]"),
    ("", b'"[DONE]"'),
    ("", b'{"event": "done", "data": "[DONE]"}'),
    ("", b'{"event": "done"}'),
]


@pytest.mark.parametrize(("name", "data"), DONE)
def test_end_of_the_stream_is_none(name: str, data: bytes) -> None:
    """`[DONE]` ends the stream, under whichever name."""
    assert read(name, data) is None


FLAT = b'{"code": "rate_limit_exceeded", "message": "Slow down", "param": "x", "type": "requests"}'
FACTS = ("Slow down", "rate_limit_exceeded", "x", "requests")
FAULTS = [
    ("error", FLAT, FACTS),
    ("error", b'{"error": ' + FLAT + b"}", FACTS),
    ("", b'{"error": ' + FLAT + b"}", FACTS),
    ("message", b'{"error": ' + FLAT + b"}", FACTS),
    ("", b'{"event": "error", "data": ' + FLAT + b"}", FACTS),
    ("", b'{"event": "error", "data": {"error": ' + FLAT + b"}}", FACTS),
    ("", b'{"error": "Broken"}', ("Broken", None, None, None)),
    ("error", b'"Broken"', ("Broken", None, None, None)),
    ("error", b"Broken\nin two", ("Broken in two", None, None, None)),
    ("error", b'{"detail": "Broken"}', ("Broken", None, None, None)),
    ("error", b'{"code": 500, "message": "Broken"}', ("Broken", "500", None, None)),
    ("error", b"", ("no error text", None, None, None)),
    ("error", b"null", ("null", None, None, None)),
    ("error", b"use Bearer auth", ("use Bearer auth", None, None, None)),
]


@pytest.mark.parametrize(("name", "data", "facts"), FAULTS)
def test_error_event_is_raised(name: str, data: bytes, facts: tuple[str | None, ...]) -> None:
    """Flat, nested, bare, in an envelope or without a name: the same few facts."""
    with pytest.raises(StreamFault) as caught:
        read(name, data)

    fault = caught.value
    assert (fault.message, fault.code, fault.param, fault.type) == facts
    assert str(fault) == fault.message


def test_error_event_keeps_its_body() -> None:
    """The JSON of the error is there as it was sent; None where it was none."""
    with pytest.raises(StreamFault) as caught:
        read("error", FLAT)
    assert caught.value.body == msgspec.json.decode(FLAT)

    with pytest.raises(StreamFault) as caught:
        read("error", b"Broken")
    assert caught.value.body is None


UNREADABLE = [
    ("thread.run.completed", b'{"id": "run_1"}', "missing required field `thread_id`"),
    ("thread.run.completed", b"[]", "Expected `object`"),
    ("thread.message.delta", b'{"id": "msg_1"}', "missing required field `delta`"),
    ("thread.message.completed", b'{"id": "msg_1", "content": "Hi"}', "$.content"),
    ("thread.run.step.created", b'{"id": "step_1"', "truncated"),
    ("thread.created", b"\xff", ""),
    ("thread.created", b"[" * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("name", "data", "problem"), UNREADABLE)
def test_known_event_with_hopeless_data_is_an_error(name: str, data: bytes, problem: str) -> None:
    """It is not passed over: the error names the event and its problem, and shows the data."""
    with pytest.raises(UnreadableEvent) as caught:
        read(name, data)

    assert caught.value.event == name
    assert problem in caught.value.problem
    assert caught.value.excerpt in str(caught.value)
    assert len(str(caught.value)) < 500


def test_unreadable_event_hides_keys() -> None:
    """What looks like a key is masked in what the error shows."""
    with pytest.raises(UnreadableEvent) as caught:
        read("thread.run.completed", b'{"id": 5, "api_key": "sk-1234567890abcdef"}')

    assert "sk-1234567890abcdef" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_unreadable_part_of_a_delta_costs_only_itself() -> None:
    """A part of an unknown kind stands among those that are known."""
    parts = [
        {"index": 0, "type": "text", "text": {"value": "Hi"}},
        {"index": 1, "type": "audio", "audio": {}},
    ]
    data = msgspec.json.encode({"id": "msg_1", "delta": {"content": parts}})

    event = read("thread.message.delta", data)

    assert isinstance(event, MessageDeltaEvent)
    assert event.data.text == "Hi"
    assert isinstance((event.data.delta.content or [])[1], UnknownContentDelta)


def test_data_on_several_lines_is_one_event_again() -> None:
    """JSON that a server has spread over lines is read, and written in a way that is read."""
    (frame,) = SSEParser().feed(
        b'event: thread.created\ndata: {\ndata:   "id": "thread_1"\ndata: }\n\n'
    )

    event = read_event(frame)

    assert isinstance(event, ThreadEvent)
    assert SSEParser().feed(encode(event.event, event.json)) == [frame]


@pytest.mark.parametrize("name", STREAMS)
def test_streams_of_other_servers_are_read(name: str) -> None:
    """Nothing in them is unknown to us, comments and line ends included."""
    events = events_of(raw(name))

    assert {type(event) for event in events} & {UnknownEvent, type(None)} == set()
    assert events[-1].data.object in {"thread.run", "thread.message.delta"}


@pytest.mark.parametrize("text", DESCRIBED, ids=range(len(DESCRIBED)))
def test_streams_of_the_description_are_read(text: bytes) -> None:
    """All events of the vendor's examples are known; `[DONE]` comes last."""
    events = events_of(text)

    assert {type(event) for event in events[:-1]} & {UnknownEvent, type(None)} == set()
    assert isinstance(events[-2], RunEvent)
    assert events[-1] is None
