"""Tool calls in all shapes of the field: what is read is what was meant.

One generator makes calls, another writes them in a shape, and the answer is fed in pieces.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from openai_runs.server.backends.base import ModelEvent, ToolCallDelta
from openai_runs.server.backends.chat.failures import AttemptFailed
from openai_runs.server.backends.chat.reader import AnswerReader, Ending

Call = tuple[str, dict[str, Any]]

INDEXES = (
    "right",
    "text",
    "float",
    "from one",
    "far apart",
    "null",
    "missing",
    "shared",
    "text word",
    "counts pieces",
)
TRUE_INDEXES = ("right", "text", "float", "from one", "far apart")
IDS = ("first", "each", "numbers", "empty", "null", "missing", "shared", "new each time")
NAMES = ("first", "each")
ARGUMENTS = (
    *("whole", "fragments", "halves", "cumulative"),
    *("empty first", "object", "repeated", "blank end"),
)
BUNDLES = ("no", "each call", "all")

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=6) | st.just('{"a":'),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)
objects = st.dictionaries(st.sampled_from(["a", "city", "😀", '"']), values, max_size=3)
calls_meant = st.lists(
    st.tuples(st.sampled_from(["f", "g", "weather"]), objects), min_size=1, max_size=4
)


class Shape(msgspec.Struct, frozen=True):
    """How an endpoint writes its calls."""

    index: str
    ids: str
    names: str
    arguments: str
    ascii: bool
    spaced: bool
    bundled: str
    flat: bool
    nulls: bool
    interleaved: bool


shapes = st.builds(
    Shape,
    index=st.sampled_from(INDEXES),
    ids=st.sampled_from(IDS),
    names=st.sampled_from(NAMES),
    arguments=st.sampled_from(ARGUMENTS),
    ascii=st.booleans(),
    spaced=st.booleans(),
    bundled=st.sampled_from(BUNDLES),
    flat=st.booleans(),
    nulls=st.booleans(),
    interleaved=st.booleans(),
)


def is_ambiguous(calls: list[Call], shape: Shape) -> bool:
    """Tell whether no reader could know what is meant."""
    has_index = shape.index in TRUE_INDEXES
    has_ids = shape.ids in ("first", "each", "numbers")
    if shape.interleaved and not (has_index or shape.ids == "each"):
        return True
    if shape.ids == "shared" and not has_index:
        return True
    if shape.index == "counts pieces" and shape.names == "each":
        return True
    if shape.ids == "new each time" and (not has_index or shape.names == "each"):
        return True
    if has_index and shape.names == "first":
        return False
    if not has_ids and shape.names == "each" and shape.arguments in ("empty first", "repeated"):
        return True
    pairs = list(zip(calls, calls[1:], strict=False))
    return not has_ids and any(
        one[0] == two[0] and (one == two or not one[1]) for one, two in pairs
    )


def write_arguments(draw: st.DataObject, arguments: dict[str, Any], shape: Shape) -> list[Any]:
    """Return the pieces of a call's arguments."""
    separators = None if shape.spaced else (",", ":")
    text = json.dumps(arguments, ensure_ascii=shape.ascii, separators=separators)
    if shape.arguments == "object":
        return [arguments]
    if shape.arguments == "repeated":
        return [text, text]
    if shape.arguments == "blank end":
        return [text, "", " "]
    if shape.arguments == "whole":
        return ["", text]
    places = st.lists(st.integers(1, max(1, len(text) - 1)), max_size=4, unique=True)
    cuts = [0, *sorted(draw.draw(places)), len(text)]
    if shape.arguments == "cumulative":
        return [text[:end] for end in cuts[1:]]
    if shape.arguments == "halves":
        units = text.encode("utf-16-le")
        pairs = zip(cuts, [*cuts[1:-1], len(units) // 2], strict=False)
        return [units[2 * a : 2 * b].decode("utf-16-le", "surrogatepass") for a, b in pairs]
    fragments = [text[one:two] for one, two in zip(cuts, cuts[1:], strict=False)]
    return ["{}", *fragments] if shape.arguments == "empty first" else fragments


def write_call(
    draw: st.DataObject, number: int, call: Call, shape: Shape, written: int
) -> Iterator[dict[str, Any]]:
    """Yield the pieces of one call, before which so many were written."""
    index: Any = {
        "right": number,
        "text": str(number),
        "float": float(number),
        "from one": number + 1,
        "far apart": number * 1000 - 7,
        "null": None,
        "shared": 0,
        "text word": "x",
    }.get(shape.index, ...)
    for count, arguments in enumerate(write_arguments(draw, call[1], shape)):
        if shape.index == "counts pieces":
            index = written + count
        call_id: Any = {
            "first": f"call_{number}" if count == 0 else ...,
            "each": f"call_{number}",
            "numbers": number + 1,
            "empty": "",
            "null": None,
            "shared": "call",
            "new each time": f"call_{number}_{count}",
        }.get(shape.ids, ...)
        is_named = shape.names == "each" or count == 0
        function = {"name": call[0] if is_named else (None if shape.nulls else ...)}
        function["arguments"] = arguments
        function = present(function)
        piece = {"index": index, "id": call_id}
        yield present({**piece, **function} if shape.flat else {**piece, "function": function})
    if shape.nulls:
        yield present({"index": index, "function": None})


def present(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are written."""
    return {name: value for name, value in fields.items() if value is not ...}


def write(draw: st.DataObject, calls: list[Call], shape: Shape) -> list[list[dict[str, Any]]]:
    """Return the `tool_calls` of each chunk."""
    written: list[list[dict[str, Any]]] = []
    for number, one in enumerate(calls):
        written.append(list(write_call(draw, number, one, shape, sum(map(len, written)))))
    if shape.interleaved:
        rounds = max(map(len, written))
        pieces = [one[at] for at in range(rounds) for one in written if at < len(one)]
    else:
        pieces = [piece for one in written for piece in one]
    if shape.bundled == "all":
        return [pieces]
    if shape.bundled == "each call" and not shape.interleaved:
        return written
    return [[piece] for piece in pieces]


def feed(
    chunks: list[Any], cuts: list[int], *, finish: str | None = "tool_calls"
) -> list[ModelEvent]:
    """Return the events of an answer that is fed in pieces."""
    lines = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in chunks]
    lines.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    body = b"".join(b"data: " + json.dumps(line).encode() + b"\n\n" for line in lines)
    return feed_bytes(body, cuts)


def feed_bytes(body: bytes, cuts: list[int]) -> list[ModelEvent]:
    """Return the events of these bytes, fed in pieces of these sizes in turn."""
    reader, events, at, turn = AnswerReader(), list[ModelEvent](), 0, 0
    while at < len(body):
        size = cuts[turn % len(cuts)]
        events += reader.feed(body[at : at + size])
        at, turn = at + size, turn + 1
    return [*events, *reader.finish(Ending.CLEAN)]


def read_calls(events: list[ModelEvent]) -> list[tuple[str, str]]:
    """Return name and arguments of each call, in the order in which they begin."""
    found: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            read = found.setdefault(event.index, ["", ""])
            read[0] = read[0] or event.name
            read[1] += event.arguments
    assert list(found) == list(range(len(found)))
    return [(name, text) for name, text in found.values()]


@settings(max_examples=max(300, settings().max_examples), suppress_health_check=list(HealthCheck))
@given(calls_meant, shapes, st.sampled_from([[1 << 20], [1], [7, 1, 64]]), st.data())
def test_what_is_read_is_what_was_meant(
    calls: list[Call], shape: Shape, cuts: list[int], draw: st.DataObject
) -> None:
    """Whatever the shape: no two calls in one, none split, and the arguments as they were."""
    assume(not is_ambiguous(calls, shape))
    chunks = [{"tool_calls": pieces} for pieces in write(draw, calls, shape)]

    read = read_calls(feed(chunks, cuts))

    assert [name for name, _ in read] == [name for name, _ in calls]
    assert [json.loads(text) for _, text in read] == [arguments for _, arguments in calls]


ODD: dict[str, list[Any]] = {
    "an object in place of the list": [{"tool_calls": {"id": "a", "function": {"name": "f"}}}],
    "the form of before tool calls": [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{"}},
        {"function_call": {"arguments": "}"}},
    ],
    "a function that is its name": [{"tool_calls": [{"function": "f", "arguments": "{}"}]}],
    "items that are none": [{"tool_calls": [None, 7, {"index": 0, "function": {"name": "f"}}]}],
    "null in words": [
        {"tool_calls": [{"id": "null", "function": {"name": "f", "arguments": "null"}}]}
    ],
    "the index later": [
        {"tool_calls": [{"id": "a", "function": {"name": "f"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
    ],
    "the name later": [
        {"tool_calls": [{"index": 0, "id": "a", "function": {"arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]},
    ],
    "the id later": [
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "id": "a", "function": {"arguments": "{}"}}]},
    ],
    "a blank name later": [
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}]},
        {"tool_calls": [{"index": 0, "id": "", "function": {"name": "", "arguments": "}"}}]},
    ],
}


@pytest.mark.parametrize("how", ODD)
def test_odd_pieces_are_one_call(how: str) -> None:
    """One call of `f` without arguments."""
    assert read_calls(feed(ODD[how], [1 << 20])) == [("f", "{}")]


def piece(name: str | None = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    """Return a piece of the call `a`."""
    function = {"name": name, "arguments": arguments, **more}
    return {"tool_calls": [{"index": 0, "id": "a", "function": function}]}


ALMOST: dict[str, list[Any]] = {
    "the name after arguments": [piece(None, '{"a":'), piece("f", "1}")],
    "the name after all arguments": [piece(None, '{"a":1}'), piece("f")],
    "an empty text first": [piece("f", '""'), piece(None, '{"a":1}')],
    "closed twice": [piece("f", '{"a":1}'), piece(None, "}")],
    "closed twice in fragments": [piece("f", '{"a"'), piece(None, ":1}"), piece(None, "\n}]")],
    "all of it once more": [piece("f", '{"a"'), piece(None, ":1}"), piece(None, '{"a":1}')],
    "all of it once more, written anew": [
        piece("f", '{"a"'),
        piece(None, ":1}"),
        {"tool_calls": [{"id": None, "index": 0, "function": {"arguments": '{ "a": 1 }'}}]},
    ],
    "parameters": [piece("f", parameters={"a": 1})],
    "an input as text": [piece("f", input='{"a":1}')],
}


@pytest.mark.parametrize("cuts", [[1], [1 << 20]], ids=["byte by byte", "whole"])
@pytest.mark.parametrize("how", ALMOST)
def test_arguments_are_read_wherever_they_stand(how: str, cuts: list[int]) -> None:
    """One call of `f` with `a`, which nothing repeats or breaks."""
    assert read_calls(feed(ALMOST[how], cuts)) == [("f", '{"a":1}')]


@pytest.mark.parametrize("finish", ["tool_calls", None])
def test_call_that_is_never_named_fails_the_model_call(finish: str | None) -> None:
    """It is not left out in silence."""
    with pytest.raises(AttemptFailed, match="without a name"):
        feed([piece(None, '{"a":1}'), {"content": "Let me see."}], [99], finish=finish)


def test_calls_of_a_whole_answer_are_told_apart() -> None:
    """Equal ones too, and those that share an id: each item of the list is a call."""
    item = {"id": "a", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    message = {"role": "assistant", "content": None, "tool_calls": [item, item, item]}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]})

    assert read_calls(feed_bytes(body.encode(), [1])) == [("f", '{"a":1}')] * 3


def test_id_that_comes_later_is_the_calls() -> None:
    """The first event of a call waits for it, so that it goes back as it came."""
    first, *_ = [e for e in feed(ODD["the id later"], [99]) if isinstance(e, ToolCallDelta)]

    assert (first.id, first.name) == ("a", "f")


KEYS = (
    *("choices", "delta", "message", "content", "tool_calls", "function", "index", "id", "name"),
    *("arguments", "usage", "error", "type", "finish_reason", "object", "text", "refusal", "code"),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=max(300, settings().max_examples), suppress_health_check=list(HealthCheck))
@given(json_values, json_values, st.sampled_from(["chunk", "choice", "delta", "calls", "call"]))
def test_any_json_is_an_answer_or_a_failure(one: Any, two: Any, where: str) -> None:
    """A value of another type in any place raises nothing else, and what is read can be written."""
    lines = []
    for value in (one, two):
        value = [value] if where == "call" else value
        value = {"tool_calls": value} if where in ("call", "calls") else value
        value = {"delta": value} if where in ("call", "calls", "delta") else value
        lines.append({"choices": [value]} if where != "chunk" else value)
    reader, events = AnswerReader(), list[ModelEvent]()
    with suppress(AttemptFailed):
        for line in lines:
            events += reader.feed(b"data: " + json.dumps(line).encode() + b"\n\n")
        events += reader.finish(Ending.CLEAN)
    for event in events:
        msgspec.json.encode(event)
