"""What an endpoint wants back is collected from its pieces as the value that it sent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs.errors import ConfigError
from openai_runs.server.backends.base import Echoed
from openai_runs.server.backends.chat.echoed import MESSAGE_FIELDS, EchoCollector, Rule, echo_rules

MESSAGES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "text": (
        [{"reasoning_content": "first "}, {"reasoning_content": "thought"}, {"content": "x"}],
        {"reasoning_content": "first thought"},
    ),
    "two-names-for-it": (
        [{"reasoning": "a", "reasoning_content": "a"}, {"reasoning": "b"}],
        {"reasoning": "ab", "reasoning_content": "a"},
    ),
    "nulls": ([{"reasoning_content": None, "content": "x"}, {"reasoning": None}], {}),
    "empty-is-what-was-sent": ([{"reasoning_content": ""}], {"reasoning_content": ""}),
    "halves-of-a-character": (
        [{"reasoning": "\ud83d"}, {"reasoning": "\ude00!"}, {"reasoning": "\ud83d"}],
        {"reasoning": "\U0001f600!\ufffd"},
    ),
    "items-by-index": (
        [
            {"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "th"}]},
            {
                "reasoning_details": [
                    {"type": "reasoning.text", "index": 0, "text": "ink", "signature": None}
                ]
            },
            {"reasoning_details": [{"type": "reasoning.text", "index": 0, "signature": "c2ln"}]},
            {"reasoning_details": [{"type": "reasoning.encrypted", "index": 0, "data": "ZGF0"}]},
            {"reasoning_details": [{"type": "reasoning.summary", "index": 1, "summary": "s"}]},
        ],
        {
            "reasoning_details": [
                {"type": "reasoning.text", "index": 0, "text": "think", "signature": "c2ln"},
                {"type": "reasoning.encrypted", "index": 0, "data": "ZGF0"},
                {"type": "reasoning.summary", "index": 1, "summary": "s"},
            ]
        },
    ),
    "items-of-one-piece-stay-apart": (
        [{"reasoning_details": [{"index": 0, "text": "a"}, {"index": 0, "text": "b"}, 7]}],
        {"reasoning_details": [{"index": 0, "text": "a"}, {"index": 0, "text": "b"}, 7]},
    ),
    "items-of-other-ids-stay-apart": (
        [
            {"reasoning_details": [{"index": 0, "id": "a", "text": "a"}]},
            {"reasoning_details": [{"index": 0, "id": "b", "text": "b"}]},
        ],
        {
            "reasoning_details": [
                {"index": 0, "id": "a", "text": "a"},
                {"index": 0, "id": "b", "text": "b"},
            ]
        },
    ),
    "blocks-without-index-end-with-their-signature": (
        [
            {"thinking_blocks": [{"type": "thinking", "thinking": "a", "signature": None}]},
            {"thinking_blocks": [{"type": "thinking", "thinking": "b", "signature": None}]},
            {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "s1"}]},
            {"thinking_blocks": [{"type": "thinking", "thinking": "c", "signature": "s2"}]},
        ],
        {
            "thinking_blocks": [
                {"type": "thinking", "thinking": "ab", "signature": "s1"},
                {"type": "thinking", "thinking": "c", "signature": "s2"},
            ]
        },
    ),
    "odd-index": (
        [{"reasoning_details": [{"index": [1], "text": "a"}]}, {"reasoning_details": {"text": 1}}],
        {"reasoning_details": [{"index": [1], "text": 1}]},
    ),
    "last-that-is-not-empty": (
        [{"extra_content": {"a": 1}}, {"extra_content": {"a": 2}}, {"extra_content": {}}],
        {"extra_content": {"a": 2}},
    ),
    "own-id": ([{"id": "msg_1"}, {"content": "x"}], {"id": "msg_1"}),
    "field-that-nobody-wants-back": ([{"annotations": [], "audio": {"id": 1}}], {}),
    "added-by-the-operator": ([{"mine": [1]}, {"mine": [2]}], {"mine": [1, 2]}),
    "excluded-by-the-operator": ([{"thinking": "a"}], {}),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_field_of_a_message_is_merged_by_its_rule(case: str) -> None:
    """Pieces become the value; what was null or is not in the table is not there."""
    deltas, expected = MESSAGES[case]
    collector = EchoCollector(echo_rules({"mine": "append", "thinking": "never"}))

    for delta in deltas:
        collector.add_message(delta)

    assert collector.result() == (Echoed(message=expected) if expected else None)


CALLS: dict[str, tuple[list[tuple[int, dict[str, Any]]], dict[int, dict[str, Any]]]] = {
    "signature-of-a-call": (
        [(0, {"id": "a", "extra_content": {"google": {"thought_signature": "c2ln"}}})],
        {0: {"id": "a", "extra_content": {"google": {"thought_signature": "c2ln"}}}},
    ),
    "in-a-later-piece": (
        [
            (1, {"index": 1, "id": "b", "function": {"name": "f"}, "extra": None}),
            (1, {"index": 1, "id": "", "function": {"arguments": "{}"}, "extra": [1]}),
            (1, {"index": 1, "id": None, "extra": []}),
        ],
        {1: {"id": "b", "extra": [1]}},
    ),
    "within-the-function": (
        [(0, {"function": {"name": "f", "provider_specific_fields": {"s": "x"}}})],
        {0: {"function": {"provider_specific_fields": {"s": "x"}}}},
    ),
    "first-id-counts": ([(0, {"id": "a"}), (0, {"id": "b"})], {0: {"id": "a"}}),
    "nothing-unknown": ([(0, {"index": 0, "type": "function", "function": {"name": "f"}})], {}),
    "odd-shapes": (
        [(0, {"id": {}, "function": "f", "n": 0}), (0, {"id": 7})],
        {0: {"id": 7, "n": 0}},
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_field_of_a_call_is_kept_when_nobody_knows_it(case: str) -> None:
    """Its own id too; the fields that everybody knows are not repeated."""
    pieces, expected = CALLS[case]
    collector = EchoCollector()

    for index, call in pieces:
        collector.add_call(index, call)

    assert collector.result() == (Echoed(calls=expected) if expected else None)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from(sorted(MESSAGE_FIELDS)), VALUES), VALUES)
def test_whole_value_comes_back_as_it_was_also_when_stored(
    message: dict[str, Any], value: Any
) -> None:
    """An answer in one piece: the same JSON value, whatever it is; nulls are no values."""
    collector = EchoCollector()
    collector.add_message(message)
    collector.add_call(0, {"extra": value})

    found = collector.result() or Echoed()
    again = msgspec.json.decode(msgspec.json.encode(found), type=Echoed)

    assert found.message == {name: each for name, each in message.items() if each is not None}
    assert found.calls == ({} if value is None else {0: {"extra": value}})
    assert again == found


def test_long_thoughts_in_small_pieces_are_put_together_once() -> None:
    """A million pieces are no hold-up, in a text or in an item of a list."""
    collector = EchoCollector()
    piece = {"reasoning": "x", "reasoning_details": [{"index": 0, "text": "x"}]}
    for _ in range(100_000):
        collector.add_message(piece)

    found = collector.result()

    assert found is not None
    assert len(found.message["reasoning"]) == 100_000
    assert len(found.message["reasoning_details"][0]["text"]) == 100_000


def test_unknown_rule_is_refused_with_the_field() -> None:
    """The operator reads which ones there are."""
    with pytest.raises(ConfigError, match="echo: 'mine' must be one of append, index, last, never"):
        echo_rules({"mine": "first"})
    assert echo_rules({"mine": Rule.LAST})["mine"] == "last"
