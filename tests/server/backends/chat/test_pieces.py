"""Pieces of tool calls, as endpoints send them: whose they are."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs._protocol.sse import Frame
from openai_runs.server.backends.base import ToolCallDelta
from openai_runs.server.backends.chat.reader import ChunkReader, _Arguments
from tests.server.backends.chat.test_reader import call, chunk

ECHOES: list[tuple[str, list[dict[str, Any]], list[tuple[str, str]]]] = [
    (
        "the last piece repeats the name",
        [call(name="f", arguments='{"a":1}', id="a"), call(name="f", arguments="")],
        [("f", '{"a":1}')],
    ),
    (
        "the next call of the same function is announced without arguments",
        [
            call(name="f", arguments='{"a":1}'),
            call(name="f", arguments=""),
            call(arguments='{"a":'),
            call(arguments="2}"),
        ],
        [("f", '{"a":1}'), ("f", '{"a":2}')],
    ),
    (
        "two ids take turns on one index",
        [
            call(name="f", arguments='{"a":', id="a"),
            call(name="g", arguments='{"b":', id="b"),
            call(arguments="1}", id="a"),
            call(arguments="2}", id="b"),
        ],
        [("f", '{"a":1}'), ("g", '{"b":2}')],
    ),
]


@pytest.mark.parametrize(("case", "pieces", "expected"), ECHOES, ids=[one[0] for one in ECHOES])
def test_pieces_of_tool_calls_are_put_where_they_belong(
    case: str, pieces: list[dict[str, Any]], expected: list[tuple[str, str]]
) -> None:
    """What endpoints make of parallel calls: no call is made up, and none gets another's piece."""
    reader = ChunkReader()
    calls: dict[int, list[str]] = {}
    frames = [chunk(**piece) for piece in pieces] + [chunk(finish="tool_calls")]

    for frame in frames:
        for event in reader.read(Frame("", frame.removeprefix(b"data: ").strip(), "")):
            if isinstance(event, ToolCallDelta):
                told = calls.setdefault(event.index, ["", ""])
                told[0] = told[0] or event.name
                told[1] += event.arguments

    assert [tuple(told) for told in calls.values()] == expected


@given(
    st.lists(st.text(alphabet='{}[]"\\a1:, \n', min_size=1, max_size=4), max_size=12)
    | st.recursive(st.text(alphabet='"\\{}]a', max_size=4), lambda v: st.lists(v, max_size=3)).map(
        lambda value: list(json.dumps({"a": value}))
    )
)
def test_arguments_are_whole_when_their_object_is(pieces: list[str]) -> None:
    """Told piece by piece as by reading all of it anew: strings, escapes and blanks in them."""
    arguments = _Arguments()
    for count, piece in enumerate(pieces, 1):
        arguments.add(piece)
        try:
            expected = isinstance(msgspec.json.decode("".join(pieces[:count])), dict)
        except msgspec.MsgspecError:
            expected = False
        assert arguments.is_whole is expected


def test_call_in_very_many_pieces_is_read_once() -> None:
    """An endpoint that repeats the name with each piece does not have all of them read anew."""
    reader, named = ChunkReader(), {"name": "f"}
    for text in ['{"a":"', *["b"] * 100_000, '"}']:
        piece = {"index": 0, "function": {**named, "arguments": text}}
        data = json.dumps({"choices": [{"delta": {"tool_calls": [piece]}}]}).encode()
        (event,) = reader.read(Frame("", data, ""))
        assert isinstance(event, ToolCallDelta)
        assert event.index == 0


def test_very_many_calls_are_told_apart_by_their_ids() -> None:
    """Each piece finds its call without a look at all others."""
    reader = ChunkReader()
    for number in range(40_000):
        function = {"name": "f", "arguments": '{"a":1'}
        piece = {"index": number, "id": f"call_{number}", "function": function}
        data = json.dumps({"choices": [{"delta": {"tool_calls": [piece]}}]}).encode()
        (event,) = reader.read(Frame("", data, ""))
        assert isinstance(event, ToolCallDelta)
        assert event.index == number
