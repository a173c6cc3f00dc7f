"""Pieces of tool calls, as endpoints send them: whose they are."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs.server.backends.base import ToolCallDelta
from openai_runs.server.backends.chat.pieces import Arguments
from openai_runs.server.backends.chat.reader import AnswerReader, Ending
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
    reader = AnswerReader()
    calls: dict[int, list[str]] = {}
    frames = [chunk(**piece) for piece in pieces] + [chunk(finish="tool_calls")]

    for event in [*reader.feed(b"".join(frames)), *reader.finish(Ending.CLEAN)]:
        if isinstance(event, ToolCallDelta):
            read = calls.setdefault(event.index, ["", ""])
            read[0] = read[0] or event.name
            read[1] += event.arguments

    assert [tuple(calls[index]) for index in sorted(calls)] == expected
    assert list(calls) == sorted(calls)


@given(
    st.lists(st.text(alphabet='{}[]"\\a1:, \n', min_size=1, max_size=4), max_size=12)
    | st.recursive(st.text(alphabet='"\\{}]a', max_size=4), lambda v: st.lists(v, max_size=3)).map(
        lambda value: list(json.dumps({"a": value}))
    )
)
def test_arguments_are_whole_when_their_object_is(pieces: list[str]) -> None:
    """Piece by piece as by reading all of it anew: strings, escapes and blanks in them."""
    arguments = Arguments()
    for count, piece in enumerate(pieces, 1):
        arguments.add(piece)
        try:
            expected = isinstance(msgspec.json.decode("".join(pieces[:count])), dict)
        except msgspec.MsgspecError:
            expected = False
        assert arguments.is_whole or not expected


def test_call_in_very_many_pieces_is_read_once() -> None:
    """An endpoint that repeats the name with each piece does not have all of them read anew."""
    reader, named = AnswerReader(), {"name": "f"}
    for text in ['{"a":"', *["b"] * 20_000, '"}']:
        (event,) = reader.feed(chunk(**call(0, **named, arguments=text)))
        assert isinstance(event, ToolCallDelta)
        assert event.index == 0


def test_very_many_calls_are_told_apart_by_their_ids() -> None:
    """Each piece finds its call without a look at all others."""
    reader = AnswerReader()
    for number in range(10_000):
        piece = call(number, id=f"call_{number}", name="f", arguments='{"a":1')
        (event,) = reader.feed(chunk(**piece))
        assert isinstance(event, ToolCallDelta)
        assert event.index == number
