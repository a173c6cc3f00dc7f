"""JSON that a strict decoder rejects is read all the same, and only the value itself is lost."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openai_runs._protocol.json_repair import (
    PieceRepair,
    object_in,
    read_json,
    repaired,
    whole_text,
    write_json,
)
from openai_runs._protocol.sse import Frame

DAMAGED: dict[str, tuple[bytes, Any]] = {
    "first half": (rb'{"text": "a \ud83d"}', {"text": "a \ufffd"}),
    "second half": (rb'{"text": "\ude00 a"}', {"text": "\ufffd a"}),
    "halves the wrong way round": (rb'["\ude00\ud83d"]', ["\ufffd\ufffd"]),
    "half in a name": (rb'{"\uD83D": 1}', {"\ufffd": 1}),
    "half before a backslash": (rb'["\ud83d\\"]', ["\ufffd\\"]),
    "escaped backslash before a half": (rb'["\\ud83d\ude00"]', ["\\ud83d\ufffd"]),
    "pair as bytes of three each": (b'["\xed\xa0\xbd\xed\xb8\x80"]', ["\U0001f600"]),
    "half as bytes": (b'["a \xed\xa0\xbd"]', ["a \ufffd"]),
    "byte that is no UTF-8": (b'["a\xff"]', ["a\ufffd"]),
    "raw line break": (b'["a\nb\tc"]', ["a\nb\tc"]),
    "byte order mark": (b"\xef\xbb\xbf[1]", [1]),
    "not a number": (b'{"score": NaN, "all": [-Infinity]}', {"score": None, "all": [None]}),
    "number out of range": (b'{"score": 1e999}', {"score": None}),
    "digits without end": (b"[" + b"9" * 5000 + b"]", [None]),
}


@pytest.mark.parametrize(("text", "value"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_value_costs_only_itself(text: bytes, value: Any) -> None:
    """The text is JSON again, with the same values around the one that was damaged."""
    assert read_json(text) == value
    assert msgspec.json.decode(repaired(text)) == value


NO_JSON = {
    "nothing": b"",
    "cut off": b'{"a": "b',
    "two": b"{}{}",
    "a page": b"<html>",
    "too deep": b"[" * 100_000,
    "not UTF-8": b"\xff",
}


@pytest.mark.parametrize("text", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_is_not_repaired(text: bytes) -> None:
    """Nothing is guessed about what is missing."""
    assert repaired(text) == b""
    assert read_json(text) is None


@given(st.text(st.characters(codec=None, exclude_categories=())))
@example("\ud83d\ude00\ud83d")
def test_any_text_survives_as_whole_characters(text: str) -> None:
    """All but lone halves stay as they are, and what comes out can be sent."""
    assert read_json(json.dumps([text]).encode()) == [whole_text(text)]
    whole_text(text).encode()


def delta(*parts: dict[str, Any], id: str = "msg_1") -> Frame:
    """Return an event with these pieces, as Python's `json` writes it."""
    data = {"id": id, "object": "thread.message.delta", "delta": {"content": parts}}
    return Frame("thread.message.delta", json.dumps(data).encode(), "")


def text(value: str, index: int = 0) -> dict[str, Any]:
    """Return a piece of a text."""
    return {"index": index, "type": "text", "text": {"value": value}}


def end(id: str = "msg_1") -> Frame:
    """Return the event of a message's end."""
    return Frame("thread.message.completed", json.dumps({"id": id}).encode(), "")


def texts(*frames: Frame) -> dict[tuple[str, int], str]:
    """Return the texts that the pieces in these frames amount to, by message and part."""
    found: dict[tuple[str, int], str] = {}
    repair = PieceRepair()
    for frame in frames:
        for one in repair.repair(frame):
            wire = msgspec.json.decode(one.data)
            wire = wire.get("data", wire)
            for part in wire.get("delta", {}).get("content", ()):
                key = (wire["id"], part["index"])
                found[key] = found.get(key, "") + part["text"]["value"]
    return found


def test_halves_in_two_pieces_are_the_character() -> None:
    """Also where pieces of other texts come between them, and three pairs follow each other."""
    frames = [
        delta(text("Hi \ud83d"), text("b \ud83d", 1)),
        delta(text("other \ud83d"), id="msg_2"),
        delta(text("\ude01!", 1)),
        delta(text("\ude00 \ud83d")),
        delta(text("\ude02"), id="msg_2"),
        delta(text("\ude03\ud83d")),
        delta(text("\ude04")),
    ]

    assert texts(*frames) == {
        ("msg_1", 0): "Hi \U0001f600 \U0001f603\U0001f604",
        ("msg_1", 1): "b \U0001f601!",
        ("msg_2", 0): "other \U0001f602",
    }


def test_half_without_the_other_is_a_replacement_character() -> None:
    """Before the next piece, before the message's end, and where a piece begins with one."""
    assert texts(delta(text("a\ud83d")), delta(text("b"))) == {("msg_1", 0): "a\ufffdb"}
    assert texts(delta(text("a\ud83d")), end()) == {("msg_1", 0): "a\ufffd"}
    assert texts(delta(text("a")), delta(text("\ude00b")), end()) == {("msg_1", 0): "a\ufffdb"}
    assert texts(delta(text("a\ud83d")), end("msg_2"), delta(text("\ude00"))) == {
        ("msg_1", 0): "a\U0001f600"
    }


def test_halves_in_envelopes_and_in_arguments_are_joined() -> None:
    """Whatever the piece is of, and however its event is wrapped."""

    def wrapped(value: str) -> Frame:
        call = {"index": 0, "type": "function", "function": {"arguments": value}}
        details = {"type": "tool_calls", "tool_calls": [call]}
        data = {"id": "step_1", "delta": {"step_details": details}}
        return Frame("", json.dumps({"event": "thread.run.step.delta", "data": data}).encode(), "")

    repair = PieceRepair()
    pieces = [
        msgspec.json.decode(one.data)["data"]["delta"]["step_details"]["tool_calls"][0]
        for value in ('{"a": "\ud83d', '\ude00"}')
        for one in repair.repair(wrapped(value))
    ]

    assert "".join(piece["function"]["arguments"] for piece in pieces) == '{"a": "\U0001f600"}'


def test_whole_pieces_are_left_as_they_are() -> None:
    """Not a byte of them changes, escaped pairs included."""
    repair = PieceRepair()
    for frame in (delta(text("\U0001f600 é \ud55c")), end(), Frame("done", b"[DONE]", "")):
        assert list(repair.repair(frame)) == [frame]


@given(st.text(min_size=1, max_size=8), st.data())
def test_text_cut_anywhere_is_the_text(whole: str, data: st.DataObject) -> None:
    """As a server that counts UTF-16 units cuts it, also between two halves."""
    units = whole.encode("utf-16-le")
    cuts = sorted(data.draw(st.sets(st.integers(1, len(units) // 2))))
    edges = [0, *cuts, len(units) // 2]
    pieces = [
        units[2 * a : 2 * b].decode("utf-16-le", "surrogatepass")
        for a, b in zip(edges, edges[1:], strict=False)
    ]

    assert texts(*(delta(text(piece)) for piece in pieces), end()) == {("msg_1", 0): whole}


ONE_READING: dict[str, tuple[str, dict[str, Any]]] = {
    "raw line breaks": (
        '{"text": "line 1\nline 2\r\n\tline 3"}',
        {"text": "line 1\nline 2\r\n\tline 3"},
    ),
    "fence": ('```json\n{"text": "a"}\n```', {"text": "a"}),
    "fence without a name": (' ```\n{"text": "a"}```\n', {"text": "a"}),
    "fence on one line": ('```json {"text": "a"} ```', {"text": "a"}),
    "fence around a fence": ('```json\n{"text": "```py```"}\n```', {"text": "```py```"}),
    "comma after the last": ('{"a": [1, 2,], "b": {"c": 3 ,\n},}', {"a": [1, 2], "b": {"c": 3}}),
    "comma in a text": ('{"a": ",}\n", "b": [",]",],}', {"a": ",}\n", "b": [",]"]}),
    "encoded twice": (json.dumps('{"text": "a"}'), {"text": "a"}),
    "encoded twice, in a fence": (f"```\n{json.dumps(json.dumps({'a': 1}))}\n```", {"a": 1}),
    "all at once": ('```json\n{"text": "a\nb",}\n```', {"text": "a\nb"}),
    "byte order mark": ('\ufeff{"a": 1}', {"a": 1}),
    "fraction": ('{"a": 1.5,}', {"a": 1.5}),
}


@pytest.mark.parametrize(("text", "value"), ONE_READING.values(), ids=ONE_READING)
def test_object_is_read_where_there_is_one_way_to_read_it(text: str, value: Any) -> None:
    """What models write around or within their JSON by mistake is no reason to ask again."""
    assert msgspec.json.decode(object_in(text)) == value


AMBIGUOUS = {
    "two objects": '{"a": 1}{"b": 2}',
    "two fences": '```json\n{"a": 1}\n```\n```json\n{"b": 2}\n```',
    "words before a fence": 'Here it is: ```json\n{"a": 1}\n```',
    "words after the object": '{"a": 1} I hope this helps',
    "a name twice": '{"a": 1, "a": 2,}',
    "two commas": '{"a": [1,,]}',
    "a comma alone": '{"a": [,]}',
    "cut off": '{"text": "a',
    "a quote within a text": '{"text": "say "hi""}',
    "single quotes": "{'text': 'a'}",
    "no number": '{"a": NaN, "b": "\n"}',
    "number out of range": '{"a": 1e999}',
    "no object": '"Oslo"',
    "encoded four times": json.dumps(json.dumps(json.dumps('{"a": 1}'))),
    "a list": "[1,]",
    "too deep": '{"a":' * 100_000,
    "nothing": "",
}


@pytest.mark.parametrize("text", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_object_is_not_guessed(text: str) -> None:
    """Where a part is missing, or there are two readings, there is none."""
    assert object_in(text) == b""


@given(st.text(alphabet='{}[]",:`\\ \nja1', max_size=40))
def test_anything_is_read_or_not_and_never_an_exception(text: str) -> None:
    """What comes out is an object, whatever was written."""
    found = object_in(text)
    assert not found or isinstance(msgspec.json.decode(found), dict)


def test_value_that_is_too_deep_is_no_text() -> None:
    """It was never read from one either."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]

    assert write_json(value) == b""


def test_deeply_nested_event_is_left_to_the_decoder() -> None:
    """Nobody's text is that deep, and no hostile event ends the program."""
    for levels in (40, 300, 600, 100_000):
        data = b'{"id":"msg_1","delta":' + b"[" * levels + b'"\\ud83d"' + b"]" * levels + b"}"
        frame = Frame("thread.message.delta", data, "")
        assert list(PieceRepair().repair(frame)) == [frame]
        read_json(data)
