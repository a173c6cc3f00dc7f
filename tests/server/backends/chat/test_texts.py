"""Texts in pieces: halves of characters, and thoughts in tags."""

from __future__ import annotations

import pytest

from openai_runs.server.backends.base import TextDelta
from tests.server.backends.chat.reading import Read, body, delta

HALVES = {
    "in two pieces": [delta("a\ud83d"), delta("\ude00b")],
    "with nothing between": [delta("a\ud83d"), delta(""), delta("\ude00b")],
    "at the beginning": [delta("a"), delta("\ud83d"), delta("\ude00"), delta("b")],
}


@pytest.mark.parametrize("how", HALVES)
def test_halves_of_a_character_are_the_character(how: str) -> None:
    """Wherever they are cut; a half without its other one is U+FFFD."""
    lone = Read(body(delta("a\ud83d"), delta("b\ude00"), delta("c\ud83d", "stop")))

    assert Read(body(*HALVES[how], delta(finish="stop"))).text == "a😀b"
    assert lone.text == "a\ufffdb\ufffdc\ufffd"


def test_halves_in_arguments_are_the_character() -> None:
    """Also where they are not escaped once more."""
    pieces = ['{"a":"\ud83d', '\ude00"}']
    deltas = [
        delta({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": p}}]})
        for p in pieces
    ]
    read = Read(body(*deltas, "[DONE]"))

    text = "".join(getattr(one, "arguments", "") for one in read.events)
    assert text == '{"a":"😀"}'


THOUGHTS: dict[str, tuple[list[str], str, str]] = {
    "one by one": (
        ["<th", "ink", ">pl", "an ", "it<", "/th", "ink", ">He", "llo"],
        "Hello",
        "plan it",
    ),
    "blanks around": (
        ["\n", "<think>", "\nplan\n", "</think>", "\n\n", "Hello"],
        "Hello",
        "\nplan\n",
    ),
    "in the middle": (["Hel", "<think>x</think>", "lo"], "Hello", "x"),
    "twice": (["<think>x</think>\n<think>y</think>\nHello"], "Hello", "xy"),
    "another tag": (["<Thinking>x < y</thinking>Hello"], "Hello", "x < y"),
    "brackets": (["[TH", "INK]x[/THI", "NK]Hello"], "Hello", "x"),
    "a tag of another word": (["<reas", "oning>x</reason", "ing>Hello"], "Hello", "x"),
    "a tag of two words": (["<seed", ":think>x</", "seed:think>Hello"], "Hello", "x"),
    "triangles": (["\u25c1th", "ink\u25b7x\u25c1/", "think\u25b7Hello"], "Hello", "x"),
    "words that become no tag": (["<seed", ">a <reason> \u25c1"], "<seed>a <reason> \u25c1", ""),
    "a tag within": (["<think>a <thinking> b</think>Hello"], "Hello", "a <thinking> b"),
    "no end": (["Hello<think>x"], "Hello", "x"),
    "no tag": (["a < b", " <", " c [", "0] <t", "h"], "a < b < c [0] <th", ""),
}


@pytest.mark.parametrize("think", ["keep", "strip", "separate"])
@pytest.mark.parametrize("how", THOUGHTS)
def test_thoughts_are_kept_stripped_or_separated(how: str, think: str) -> None:
    """No piece begins or ends within a tag; what is separated is wanted back with the turn."""
    pieces, text, thought = THOUGHTS[how]
    read = Read(body(*map(delta, pieces), delta(finish="stop")), think=think)
    said = [one.text for one in read.events if isinstance(one, TextDelta)]

    assert read.finish is not None
    assert read.text == (text if think != "keep" else "".join(pieces))
    echoed = read.finish.echoed.message if read.finish.echoed else {}
    assert echoed.get("reasoning_content", "") == (thought if think == "separate" else "")
    for piece in said if thought else []:
        assert piece.count("<") == piece.count(">") or "< y" in piece
