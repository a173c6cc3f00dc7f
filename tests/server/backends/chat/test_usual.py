"""Chunks that say a text and nothing else are decoded by a decoder of their own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs.server.backends.base import ModelEvent
from openai_runs.server.backends.chat.reader import Ending
from tests.server.backends.chat.reading import ROLE, Read, body, delta

HALF = "\ud83d"
TEXTS = st.lists(
    st.one_of(st.text(max_size=8), st.sampled_from(["", "<think>", "</think>", "[THI", "\n"])),
    max_size=6,
)
LAST = st.sampled_from([("stop",), ("length",), ("no_such_word",), ()])


def read(chunks: list[dict[str, Any]], *, think: str, done: bool, size: int) -> Read:
    """Read a stream."""
    content = body(*chunks, *(["[DONE]"] if done else []))
    return Read(content, Ending.CLEAN, size=size, think=think)


def outcome(of: Read) -> tuple[list[ModelEvent], str]:
    """Return all that came of an answer."""
    return of.events, "" if of.failed is None else of.message


@given(
    TEXTS, LAST, st.booleans(), st.sampled_from(["keep", "strip", "separate"]), st.integers(1, 300)
)
def test_a_chunk_of_text_is_read_as_any_other_chunk(
    texts: list[str], last: tuple[str, ...], done: bool, think: str, size: int
) -> None:
    """A field that nobody knows keeps a chunk from that decoder, and changes nothing else."""
    usual = [delta(ROLE), *map(delta, texts), *(delta({}, word) for word in last)]
    other = [{**chunk, "of_the_endpoint": 1} for chunk in usual]
    one = read(usual, think=think, done=done, size=size)
    two = read(other, think=think, done=done, size=size)
    events, why = outcome(one)
    assert events == outcome(two)[0]
    assert (
        why.partition(" the endpoint sent ")[0]
        == outcome(two)[1].partition(" the endpoint sent ")[0]
    )


@pytest.mark.parametrize(
    ("chunk", "text"),
    [
        (delta("a", "stop"), "a"),
        (delta("a", usage={"prompt_tokens": 1, "completion_tokens": 1}), "a"),
        (delta({"content": "a", "refusal": "b"}), "ab"),
        (delta({"content": [{"type": "text", "text": "a"}]}), "a"),
        ({"object": "chat.completion.chunk", "choices": [{"text": "a"}]}, "a"),
        (delta("a", service_tier="default", system_fingerprint=None), "a"),
        (delta("a", error=None), "a"),
    ],
    ids=["finish", "usage", "refusal", "parts", "legacy", "tier", "no_error"],
)
def test_nothing_else_that_a_chunk_says_is_lost(chunk: dict[str, Any], text: str) -> None:
    """What says more than a text is read in full."""
    assert Read(body(chunk, delta({}, "stop"), "[DONE]")).text == text


@pytest.mark.parametrize(
    "more", [{"error": {"message": "The GPU is gone"}}, {"error": "The GPU is gone"}]
)
def test_an_error_beside_a_text_is_an_error(more: dict[str, Any]) -> None:
    """A chunk with a text that also says that the call failed fails it."""
    found = Read(body(delta("Half an", **more)))
    assert found.failed is not None
    assert "The GPU is gone" in found.message


def test_a_character_in_halves_is_one_in_chunks_of_text() -> None:
    """No strict decoder takes half of a character, and none is lost by that."""
    halves = [json.dumps(delta(HALF)), json.dumps(delta("\ude00!"))]
    assert Read(body(*halves, delta({}, "stop"), "[DONE]")).text == "😀!"
