"""What an answer is worth: the table of `reader`, and every wrapping it comes in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs.server.backends.base import FinishReason
from openai_runs.server.backends.chat.reader import Ending
from tests.server.backends.chat.reading import ROLE, Read, body, delta, event

WHOLE_CALL = {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"a":1}'}}
HALF_CALL = {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"a":'}}
SILENT = "it fell silent"
LOST = "it was lost"


DONE_WORDS = (
    *("stop", "STOP", "end_turn", "eos", "EOS", "eos_token", "tool_calls", "function_call"),
    *("stop_sequence", "STOP_SEQUENCE", "complete", "COMPLETE", "tool_use", "TOOL_CALL"),
    *("tool-calls", "endTurn", "Stop", "stop_token", "toolUse", "finished"),
    *("FinishReason.STOP", "FINISH_REASON_STOP"),
)
LENGTH_WORDS = (
    *("length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length", "maxTokens"),
    *("token_limit", "max-completion-tokens", "Length", "model_context_window_exceeded"),
    *("FinishReason.MAX_TOKENS", "FINISH_REASON_MAX_TOKENS"),
)
FILTER_WORDS = ("content_filter", "SAFETY", "RECITATION", "sensitive", "PROHIBITED_CONTENT")
OTHER_WORDS = (
    *("error", "ERROR", "abort", "MALFORMED_FUNCTION_CALL", "insufficient_system_resource"),
    *("network_error", "weather", "cancelled", "OTHER", "###", "停止", "pause_turn"),
    "FINISH_REASON_UNSPECIFIED",
)


@pytest.mark.parametrize("word", DONE_WORDS)
@pytest.mark.parametrize("end", ["[DONE]", "clean", "silent"])
def test_word_for_done_completes_however_it_ends(word: str, end: str) -> None:
    """In any spelling; with `[DONE]`, a clean end, or silence after it."""
    content = body(delta("All"), delta(finish=word), *(["[DONE]"] if end == "[DONE]" else []))
    read = Read(content, Ending.SILENT if end == "silent" else Ending.CLEAN)

    assert read.finish is not None
    assert (read.text, read.finish.reason) == ("All", FinishReason.STOP)


@pytest.mark.parametrize("word", LENGTH_WORDS)
def test_word_for_a_length_limit_is_incomplete(word: str) -> None:
    """In any spelling, and the text is kept; also if the endpoint says later that it is done."""
    for last in (None, "stop"):
        read = Read(body(delta("Half"), delta(finish=word), delta(finish=last), "[DONE]"))
        assert read.finish is not None
        assert (read.text, read.finish.reason) == ("Half", FinishReason.LENGTH)


@pytest.mark.parametrize("word", FILTER_WORDS)
def test_word_for_a_filter_is_one(word: str) -> None:
    """And it is named."""
    read = Read(body(delta("Half"), delta(finish=word), "[DONE]"))

    assert read.finish is not None
    assert (read.finish.reason, read.finish.word) == (FinishReason.CONTENT_FILTER, word)


@pytest.mark.parametrize("word", OTHER_WORDS)
@pytest.mark.parametrize("whole", [False, True], ids=["stream", "whole"])
def test_word_for_failure_or_unknown_fails(word: str, whole: bool) -> None:
    """The word is named, and the text is kept."""
    message = {"role": "assistant", "content": "Half"}
    answer = {"choices": [{"message": message, "finish_reason": word}]}
    content = json.dumps(answer).encode()
    read = Read(content if whole else body(delta("Half"), delta(finish=word), "[DONE]"))

    assert read.text == "Half"
    assert word in read.message
    assert not read.failed.again if read.failed else False


def test_unspecified_reason_counts_where_there_is_no_other() -> None:
    """Some gateways write it into each chunk but the last; alone it is a word nobody knows."""
    unknown = "FINISH_REASON_UNSPECIFIED"
    pieces = [delta("Hello ", unknown), delta("back.", unknown)]

    assert Read(body(*pieces, delta(finish="STOP"), delta(finish=unknown))).finish is not None
    assert unknown in Read(body(*pieces, "[DONE]")).message


ENDS: dict[str, tuple[list[Any], Ending, str, str]] = {
    "no word, [DONE]": ([delta("All"), "[DONE]"], Ending.CLEAN, "All", ""),
    "no word, a whole call": ([delta({"tool_calls": [WHOLE_CALL]})], Ending.CLEAN, "", ""),
    "no word, text": ([delta("Half")], Ending.CLEAN, "Half", "ended without a reason"),
    "no word, half a call": (
        [delta({"tool_calls": [HALF_CALL]})],
        Ending.CLEAN,
        "",
        "ended without a reason",
    ),
    "no word, silence": ([delta("Half")], Ending.SILENT, "Half", SILENT),
    "no word, a whole call, silence": (
        [delta({"tool_calls": [WHOLE_CALL]})],
        Ending.SILENT,
        "",
        SILENT,
    ),
    "no word, lost": ([delta("Half")], Ending.LOST, "Half", LOST),
    "a word, lost": ([delta("Half"), delta(finish="stop")], Ending.LOST, "Half", LOST),
    "a word, [DONE], lost": ([delta("All", "stop"), "[DONE]"], Ending.LOST, "All", ""),
    "nothing": ([], Ending.CLEAN, "", "the answer was empty"),
    "nothing, lost": ([], Ending.LOST, "", LOST),
    "only a role": ([delta(ROLE)], Ending.CLEAN, "", "the answer was empty"),
    "only a role, [DONE]": ([delta(ROLE), "[DONE]"], Ending.CLEAN, "", "the answer was empty"),
    "only [DONE]": (["[DONE]"], Ending.CLEAN, "", "the answer was empty"),
    "only a word": ([delta(finish="stop"), "[DONE]"], Ending.CLEAN, "", "the answer was empty"),
    "an empty text and a word": ([delta(ROLE), delta(finish="stop")], Ending.CLEAN, "", ""),
    "a word with each piece": (
        [delta("w0 ", "stop"), delta("w1 ", "stop"), "[DONE]"],
        Ending.CLEAN,
        "w0 w1 ",
        "",
    ),
    "words that are none": (
        [delta("All", ""), delta(finish="null"), delta(finish="stop")],
        Ending.CLEAN,
        "All",
        "",
    ),
    "a word as an object": ([delta("All", {"type": "stop"})], Ending.CLEAN, "All", ""),
    "a failure, then done": (
        [delta("Half", "error"), delta(finish="stop")],
        Ending.CLEAN,
        "Half",
        "'error'",
    ),
}


@pytest.mark.parametrize("size", [1, 1 << 20], ids=["byte by byte", "whole"])
@pytest.mark.parametrize("how", ENDS)
def test_answer_is_worth_what_the_table_says(how: str, size: int) -> None:
    """Each row, with its text kept and its reason."""
    values, ending, text, words = ENDS[how]
    why = LOST if ending == Ending.LOST else SILENT
    read = Read(body(*values), ending, size=size, why=why)

    assert read.text == text
    if words:
        assert words in read.message
        assert read.finish is None
    else:
        assert read.finish is not None


COUNTS = (10**30, "9" * 5000, 1e300, -7, 2**63, float("inf"), "many", None, [1])


@pytest.mark.parametrize("count", COUNTS, ids=lambda count: str(count)[:12])
def test_count_of_any_size_costs_no_answer(count: Any) -> None:
    """Tokens that cannot be are as good as none."""
    digits = count if isinstance(count, str) and count.isdigit() else json.dumps(count)
    usage = f'{{"prompt_tokens": {digits}, "completion_tokens": 3}}'
    content = body(delta("All", "stop")) + event(f'{{"choices": [], "usage": {usage}}}')
    read = Read(content)

    assert read.finish is not None
    assert read.finish.usage is not None
    assert 0 <= read.finish.usage.total_tokens < 2**54


@given(
    st.binary(max_size=300) | st.text(max_size=100).map(str.encode), st.sampled_from([1, 5, 1000])
)
def test_random_bytes_are_never_an_answer(content: bytes, size: int) -> None:
    """There is always an end, with a reason that names what came."""
    read = Read(content, size=size)

    assert read.failed is not None
    assert read.message


WORDS = [f"w{number} " for number in range(8)]
ANSWERS = {
    "events": body(*map(delta, WORDS), delta(finish="stop"), "[DONE]"),
    "lines": b"".join(json.dumps(delta(word)).encode() + b"\n" for word in WORDS)
    + json.dumps(delta(finish="stop")).encode(),
    "whole": json.dumps(
        {"choices": [{"message": {"content": "".join(WORDS)}, "finish_reason": "stop"}]}
    ).encode(),
}
damages = st.binary(min_size=1, max_size=5).filter(lambda damage: not set(damage) & set(b":i"))
"""Bytes that make no comment and no `id` of a line."""


@pytest.mark.parametrize("how", ANSWERS)
@given(data=st.data(), ending=st.sampled_from(Ending))
def test_answer_that_is_cut_is_never_taken_for_whole(
    how: str, data: st.DataObject, ending: Ending
) -> None:
    """Wherever it is cut: finished only with all its words, else failed with a reason."""
    content = ANSWERS[how][: data.draw(st.integers(0, len(ANSWERS[how])))]
    read = Read(content, ending, why="why", size=data.draw(st.sampled_from([1, 9, 1000])))

    assert read.text == "".join(WORDS) if read.finish is not None else read.message


@pytest.mark.parametrize("how", ANSWERS)
@given(data=st.data())
def test_answer_that_is_damaged_is_never_taken_for_whole(how: str, data: st.DataObject) -> None:
    """With another beginning of a line, or a line too many."""
    lines = ANSWERS[how].splitlines(keepends=True)
    at, damage = data.draw(st.integers(0, len(lines) - 1)), data.draw(damages)
    lines[at] = damage + data.draw(st.sampled_from([lines[at][1:], b"\n" + lines[at]]))
    read = Read(b"".join(lines))

    assert read.text == "".join(WORDS) if read.finish is not None else read.message
