"""Pieces of tool calls, as endpoints send them: whose they are."""

from __future__ import annotations

from typing import Any

import pytest

from openai_runs._protocol.sse import Frame
from openai_runs.server.backends.base import ToolCallDelta
from openai_runs.server.backends.chat_stream import ChunkReader
from tests.server.test_chat_stream import call, chunk

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
