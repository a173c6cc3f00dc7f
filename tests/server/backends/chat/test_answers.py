"""What an answer is worth: the table of `reader`, and every wrapping it comes in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs.server.backends.base import Finish, FinishReason, ModelEvent, TextDelta
from openai_runs.server.backends.chat.failures import AttemptFailed
from openai_runs.server.backends.chat.reader import AnswerReader, Ending
from openai_runs.server.backends.chat.words import finish_word, is_loading, is_rate_limit

ROLE = {"role": "assistant", "content": ""}
WHOLE_CALL = {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"a":1}'}}
HALF_CALL = {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"a":'}}
SILENT = "it fell silent"
LOST = "it was lost"


def delta(said: Any = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    """Return a chunk."""
    fields = {"content": said} if isinstance(said, str) else said or {}
    choice = {"index": 0, "delta": fields, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "choices": [choice], **more}


def event(value: Any) -> bytes:
    """Return an event of a stream."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"data: {text}\n\n".encode()


def body(*values: Any) -> bytes:
    """Return the bytes of a stream."""
    return b"".join(map(event, values))


class Read:
    """What came of an answer."""

    def __init__(
        self,
        content: bytes,
        ending: Ending = Ending.CLEAN,
        *,
        size: int = 1 << 20,
        why: str = "",
        think: str = "keep",
        secrets: tuple[str, ...] = (),
    ) -> None:
        reader = AnswerReader(secrets, think=think)
        self.events: list[ModelEvent] = []
        self.failed: AttemptFailed | None = None
        try:
            for at in range(0, len(content), size):
                if not reader.is_done:
                    self._take(reader.feed(content[at : at + size]))
            self._take(reader.finish(ending, why))
        except AttemptFailed as failed:
            self.failed = failed

    def _take(self, events: Any) -> None:
        for one in events:  # also those before a failure
            self.events.append(one)

    @property
    def text(self) -> str:
        """The text that was passed on."""
        return "".join(one.text for one in self.events if isinstance(one, TextDelta))

    @property
    def finish(self) -> Finish | None:
        """The last event, where the answer is whole."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, Finish) else None

    @property
    def message(self) -> str:
        """What the run would show."""
        assert self.failed is not None
        return self.failed.failure.message


DONE_WORDS = (
    *("stop", "STOP", "end_turn", "eos", "EOS", "eos_token", "tool_calls", "function_call"),
    *("stop_sequence", "STOP_SEQUENCE", "complete", "COMPLETE", "tool_use", "TOOL_CALL"),
    *("tool-calls", "endTurn", "Stop", "stop_token", "toolUse", "finished"),
)
LENGTH_WORDS = (
    *("length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length", "maxTokens"),
    *("token_limit", "max-completion-tokens", "Length", "model_context_window_exceeded"),
)
FILTER_WORDS = ("content_filter", "SAFETY", "RECITATION", "sensitive", "PROHIBITED_CONTENT")
OTHER_WORDS = (
    *("error", "ERROR", "abort", "MALFORMED_FUNCTION_CALL", "insufficient_system_resource"),
    *("network_error", "weather", "cancelled", "OTHER", "###", "停止", "pause_turn"),
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


STREAM = [delta(ROLE), delta("Hello "), delta("back."), delta(finish="stop")]
PRETTY = json.dumps({"choices": [{"message": {"content": "Hello back."}}]}, indent=1)
WRAPPED: dict[str, bytes] = {
    "events": body(*STREAM, "[DONE]"),
    "no last blank line": body(*STREAM).rstrip(b"\n"),
    "no blank lines": b"".join(b"data: " + json.dumps(v).encode() + b"\n" for v in STREAM),
    "carriage returns": body(*STREAM, "[DONE]").replace(b"\n", b"\r\n"),
    "only carriage returns": body(*STREAM, "[DONE]").replace(b"\n", b"\r"),
    "no space after the colon": body(*STREAM).replace(b"data: ", b"data:"),
    "a byte order mark": b"\xef\xbb\xbf" + body(*STREAM),
    "names, ids, comments, pings": b": hi\n\nretry: 3\n\n"
    + b"id: 1\nevent: completion\n".join([b"", *map(event, STREAM)])
    + b'event: ping\ndata: {"type": "ping"}\n\ndata:\n\n: bye',
    "one JSON value a line": b"".join(json.dumps(v).encode() + b"\n" for v in STREAM),
    "one JSON value behind the other": b"".join(json.dumps(v).encode() for v in STREAM),
    "a list of chunks": json.dumps(STREAM).encode(),
    "events of several lines": b"".join(
        b"data: " + json.dumps(v, indent=1).replace("\n", "\ndata: ").encode() + b"\n\n"
        for v in STREAM
    ),
    "[DONE] in quotes": body(delta("Hello back."), '"[DONE]"'),
    "an event that is a whole answer": event(
        {"choices": [{"message": {"content": "Hello back."}, "finish_reason": "stop"}]}
    ),
    "several choices of one index": event(
        {"choices": [*delta("Hello ")["choices"], *delta("back.", "stop")["choices"]]}
    ),
    "another choice beside": event(
        {
            "choices": [
                *delta("Hello back.", "stop")["choices"],
                {"index": 1, "delta": {"content": "x"}},
            ]
        }
    ),
    "a choice that is no list": event({"choices": delta("Hello back.", "stop")["choices"][0]}),
    "parts": body(delta({"content": [{"type": "text", "text": "Hello "}, "back."]}, "stop")),
    "a raw line feed in a text": event(
        '{"choices": [{"delta": {"content": "Hello back."}, "x": "\t"}]}'
    )
    + event(delta(finish="stop")),
    "whole, with errors that are none": json.dumps(
        {
            "error": None,
            **delta(),
            "choices": [{"message": {"content": "Hello back."}, "finish_reason": "stop"}],
        }
    ).encode(),
    "whole, over many lines": PRETTY.replace(
        '"message"', '"finish_reason": "stop", "message"'
    ).encode(),
    "the whole once more at the end": body(
        *STREAM[:-1],
        {
            "object": "chat.completion",
            "choices": [{"message": {"content": "Hello back."}, "finish_reason": "stop"}],
        },
    ),
}


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("how", WRAPPED)
def test_no_wrapping_loses_the_answer(how: str, size: int) -> None:
    """Whatever it is called and however it is cut."""
    read = Read(WRAPPED[how], size=size)

    assert read.failed is None
    assert read.text == "Hello back."
    assert read.finish is not None
    assert read.finish.reason == FinishReason.STOP


ERRORS: dict[str, tuple[bytes, str, str, bool]] = {
    "a body": (b'{"error": {"message": "no such model"}}', "no such model", "server_error", False),
    "a list": (
        b'[{"error": {"code": 400, "message": "missing a thought_signature."}}]',
        "missing a thought_signature.",
        "invalid_prompt",
        False,
    ),
    "a 429 by its code": (
        b'{"error": {"message": "worker limit reached", "type": "rate_limit", "code": 429}}',
        "worker limit reached",
        "rate_limit_exceeded",
        True,
    ),
    "a 429 as text": (
        b'{"error": {"message": "wait", "code": "429"}}',
        "wait",
        "rate_limit_exceeded",
        True,
    ),
    "a 429 by its status": (
        b'{"error": {"message": "quota", "status": "RESOURCE_EXHAUSTED", "code": 429}}',
        "quota",
        "rate_limit_exceeded",
        True,
    ),
    "a 429 by its words": (
        b'data: {"error": "Too many requests, slow down"}\n\n',
        "slow down",
        "rate_limit_exceeded",
        True,
    ),
    "a 429 on a page": (
        b"<html><title>429 Too Many Requests</title></html>",
        "429 Too Many Requests",
        "rate_limit_exceeded",
        True,
    ),
    "a quota": (
        b'{"error": {"message": "pay", "code": "insufficient_quota", "status": 429}}',
        "pay",
        "rate_limit_exceeded",
        False,
    ),
    "a 503 in a 200": (
        b'{"error": {"message": "down", "code": 503}}',
        "down",
        "server_error",
        True,
    ),
    "a model that loads": (
        b'{"error": "Model m is currently loading", "estimated_time": 20}',
        "currently loading",
        "server_error",
        True,
    ),
    "an object": (
        b'data: {"object": "error", "message": "cache is full", "code": 400}\n\n',
        "cache is full",
        "invalid_prompt",
        False,
    ),
    "a type": (b'data: {"type": "error", "message": "full"}\n\n', "full", "server_error", False),
    "an event": (b'event: error\ndata: {"message": "full"}\n\n', "full", "server_error", False),
    "an event in words": (
        b"event: error\ndata: it is full\n\n",
        "it is full",
        "server_error",
        False,
    ),
    "a choice": (
        b'data: {"choices": [{"delta": {}, "error": {"message": "full", "code": 502}}]}\n\n',
        "full",
        "server_error",
        True,
    ),
    "a detail": (b'{"detail": "not found"}', "not found", "server_error", False),
    "errors": (
        b'{"errors": [{"message": "one"}, {"message": "two"}]}',
        "one; two",
        "server_error",
        False,
    ),
    "a page": (b"<!doctype html><title>Sign in</title>", "Sign in", "server_error", False),
    "words": (b"upstream connect error", "upstream connect error", "server_error", False),
    "another JSON": (b'{"ok": true}', "ok", "server_error", False),
    "half a JSON": (b'{"choices": [{"mess', "mess", "server_error", False),
    "a number": (b"data: 17\n\n", "17", "server_error", False),
}


@pytest.mark.parametrize("size", [1, 1 << 20], ids=["byte by byte", "whole"])
@pytest.mark.parametrize("how", ERRORS)
def test_error_within_a_200_is_told_in_its_words(how: str, size: int) -> None:
    """With its code, and whether another attempt may help."""
    content, words, code, again = ERRORS[how]
    read = Read(content, size=size)

    assert words in read.message
    assert read.failed is not None
    assert (read.failed.failure.code, read.failed.again) == (code, again)


@pytest.mark.parametrize("how", ERRORS)
def test_error_within_an_answer_keeps_its_text(how: str) -> None:
    """What was said before is kept, and what was held back of it too."""
    read = Read(body(delta("Half <thi")) + ERRORS[how][0], think="strip")

    assert read.text == "Half <thi"
    assert read.failed is not None


@pytest.mark.parametrize("secret", ["se/cret=of-mine"])
def test_no_failure_repeats_a_secret(secret: str) -> None:
    """In an error, a word, or what is no answer."""
    contents = [
        json.dumps({"error": {"message": f"no {secret}"}}).encode(),
        body(delta("x", f"bad {secret}"), "[DONE]"),
        f"no {secret}".encode(),
        b'{"key": "' + secret.encode() + b'"}',
    ]
    for content in contents:
        assert secret not in Read(content, secrets=(secret,)).message


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Loading model", True),
        ("Model meta/x is currently loading", True),
        ("The model is not ready yet", True),
        ("server is starting up", True),
        ("Overloaded, try again later", True),
        ("error loading model: no such file", False),
        ("failed to load model", False),
        ("the weather model", False),
    ],
)
def test_loading_is_told_by_its_words(text: str, expected: bool) -> None:
    """And not taken for a model that cannot be loaded."""
    assert is_loading(text) is expected


def test_rate_limit_is_told_by_its_words() -> None:
    """In the spellings of the field."""
    words = ["rate_limit_exceeded", "Rate limit reached", "RateLimitError", "ThrottlingException"]
    assert all(map(is_rate_limit, [*words, "too_many_requests", "HTTP 429"]))
    assert not any(map(is_rate_limit, ["limit", "4290", "stop"]))


def test_word_is_read_whatever_its_type() -> None:
    """Text, an object that names it, or a number, which nobody knows."""
    assert [finish_word(x) for x in ("stop", {"type": "stop"}, None, False, "", "NULL", 7)] == [
        *("stop", "stop", "", "", "", "", "7")
    ]
