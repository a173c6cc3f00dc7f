"""When the context is full, the oldest whole exchanges are left out, and nothing else."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs.config import MAX_TRUNCATIONS
from openai_runs.server.backends.base import ModelFailure
from openai_runs.server.backends.chat.forms import Refusal
from openai_runs.server.backends.chat.negotiation import KnownForms, Negotiation
from openai_runs.server.backends.chat.truncation import (
    is_context_full,
    kept_share,
    shortened,
)
from tests.server.backends.chat.asked import asked, message, turn
from tests.server.backends.chat.test_forms import LEARNT, LEFT_ALONE, error

S19 = json.dumps(
    {
        "error": {
            "code": 400,
            "message": "the request exceeds the available context size, try increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 9000,
            "n_ctx": 8192,
        }
    }
).encode()
FULL: dict[str, tuple[int, bytes, float]] = {
    "S19-llama-cpp": (400, S19, 0.82),
    "openai": (
        400,
        error(
            "This model's maximum context length is 8192 tokens. However, your messages resulted "
            "in 16384 tokens. Please reduce the length of the messages.",
            code="context_length_exceeded",
        ),
        0.45,
    ),
    "code-alone": (400, error("Bad request", code="context_length_exceeded"), 0.5),
    "vllm": (
        400,
        error(
            "This model's maximum context length is 4096 tokens. However, you requested 8192 "
            "tokens (8000 in the messages, 192 in the completion)."
        ),
        0.45,
    ),
    "anthropic": (400, error("prompt is too long: 400000 tokens > 200000 maximum"), 0.45),
    "gemini": (
        400,
        b"["
        + error("The input token count (2097152) exceeds the maximum number of tokens (1048576).")
        + b"]",
        0.45,
    ),
    "mistral": (
        400,
        error(
            "Prompt contains 65536 tokens, too large for model with 32768 maximum context length"
        ),
        0.45,
    ),
    "vllm-prompt": (
        400,
        error(
            "The decoder prompt (length 9000) is longer than the maximum model length of 8192. "
            "Make sure that `max_model_len` is no smaller than the number of text tokens."
        ),
        0.82,
    ),
    "vllm-input": (
        400,
        error("Input length (9000) exceeds the maximum of 8192 of this model."),
        0.82,
    ),
    "tgi": (
        422,
        error("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096"),
        0.5,
    ),
    "bedrock": (400, error("Input is too long for requested model."), 0.5),
    "lm-studio": (
        400,
        error("Trying to keep the first 9000 tokens when context the overflows"),
        0.5,
    ),
    "xai": (
        400,
        error(
            "This model's maximum prompt length is 131072 but the request contains 262144 tokens."
        ),
        0.45,
    ),
    "moonshot": (400, error("Your request exceeded model token limit: 8192"), 0.5),
    "zhipu": (400, error("Prompt exceeds max length", code="1261"), 0.5),
    "zhipu-in-chinese": (400, error("Prompt \u8d85\u957f", code="1261"), 0.5),
    "in-chinese": (
        400,
        error("\u8f93\u5165\u8d85\u8fc7\u6a21\u578b\u4e0a\u4e0b\u6587\u957f\u5ea6"),
        0.5,
    ),
    "dashscope": (400, error("Range of input length should be [1, 30720]"), 0.5),
    "mlc": (
        400,
        error(
            "Request prompt has 9000 tokens in total, larger than the model input length "
            "limit 8192."
        ),
        0.82,
    ),
    "tabby": (422, b'{"detail": "Prompt length 9000 is greater than max_seq_len 4096"}', 0.5),
    "koboldcpp": (400, b'{"detail": {"msg": "Your prompt is larger than the context"}}', 0.5),
    "tgi-messages": (
        422,
        error("Input validation error: `inputs` must have less than 4095 tokens. Given: 5234"),
        0.5,
    ),
    "llama-cpp-in-mid-answer": (500, error("context shift is disabled"), 0.5),
    "openai-tokens-per-minute": (
        429,
        error(
            "Request too large for m on tokens per min (TPM): Limit 30000, Requested 60000. The "
            "input or output tokens must be reduced in order to run successfully."
        ),
        0.45,
    ),
    "groq": (413, error("Request too large for model; please reduce your message size"), 0.5),
    "proxy": (413, b"<html>Request Entity Too Large</html>", 0.5),
    "plain-text": (400, b"context window exceeded", 0.5),
}


@pytest.mark.parametrize("case", FULL)
def test_full_context_is_recognized_in_its_spellings(case: str) -> None:
    """And so is how much is too much, where the error has both numbers."""
    status, content, share = FULL[case]
    text = Refusal(status, content).text

    assert is_context_full(status, text)
    assert kept_share(text) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("case", [*LEARNT, *LEFT_ALONE])
def test_other_refusals_are_no_full_context(case: str) -> None:
    """A thread loses nothing over them."""
    status, content = LEARNT[case][:2] if case in LEARNT else LEFT_ALONE[case]

    assert not is_context_full(status, Refusal(status, content).text)


def thread(exchanges: int) -> list[Any]:
    """Return a thread of so many exchanges and a last question."""
    pairs = [(message("user", f"q{n}"), message("assistant", f"a{n}")) for n in range(exchanges)]
    return [*(each for pair in pairs for each in pair), message("user", "last")]


def refused_when_above(limit: int, call: Negotiation, content: bytes = S19) -> list[int]:
    """Return how many messages each request of a call has, before an endpoint with a limit."""
    sent = []
    while True:
        messages = call.build()["messages"]
        sent.append(len(messages))
        if len(messages) <= limit or not call.refused(400, content):
            return sent


def test_oldest_exchanges_are_left_out_until_it_fits(caplog: pytest.LogCaptureFixture) -> None:
    """S19: 41 messages before an endpoint that takes 11."""
    caplog.set_level(logging.INFO)
    turns = [turn(("a", "{}", "1"))]
    request = asked(*thread(20), turns=turns, instructions="Be brief.")
    call = Negotiation(request, "m", KnownForms("https://models.example/v1"))

    sent = refused_when_above(11, call)
    messages = call.build()["messages"]

    assert sent[0] == 44
    assert 4 < sent[-1] <= 11
    assert len(sent) <= 4
    assert messages[0] == {"role": "system", "content": "Be brief."}
    assert messages[1]["role"] == "user"
    assert messages[-3]["content"] == "last"
    assert [each["role"] for each in messages[-2:]] == ["assistant", "tool"]
    assert "run run_1: the model's context is full; the oldest " in caplog.text
    assert len(caplog.messages) == len(sent) - 1


def test_thread_that_never_fits_ends_with_what_helps() -> None:
    """The last question and the turns stay; the error names `last_messages`."""
    request = asked(*thread(3000), turns=[turn(("a", "{}", "1"))])
    call = Negotiation(request, "m", KnownForms("https://models.example/v1"))

    sent = refused_when_above(0, call)
    failure = call.explained(ModelFailure("HTTP 400: too long"))

    assert len(sent) <= MAX_TRUNCATIONS + 1
    assert sent == sorted(set(sent), reverse=True)
    assert sent[-1] == 3
    assert "'last_messages'" in failure.message
    assert failure.code == "invalid_prompt"


def test_oldest_rounds_of_tools_are_left_out_once_nothing_else_is_there() -> None:
    """Each with its calls and all its outputs; the last one stays, and so does the question."""
    turns = [turn((f"a{n}", "{}", "1"), (f"b{n}", "{}", f"out{n}")) for n in range(9)]
    request = asked(*thread(3), turns=turns, instructions="Be brief.")
    call = Negotiation(request, "m", KnownForms("https://models.example/v1"))

    sent = refused_when_above(8, call, error("context_length_exceeded"))
    messages = call.build()["messages"]
    roles = [each["role"] for each in messages]

    assert sent[-1] == 8
    assert roles == ["system", "user", *(["assistant", "tool", "tool"] * 2)]
    assert messages[1]["content"] == "last"
    assert [messages[4]["content"], messages[7]["content"]] == ["out7", "out8"]


def test_run_that_chose_its_messages_keeps_them() -> None:
    """With `last_messages`, nothing is left out."""
    strategy = {"type": "last_messages", "last_messages": 41}
    request = asked(*thread(20), truncation_strategy=strategy)
    call = Negotiation(request, "m", KnownForms("https://models.example/v1"))

    assert refused_when_above(11, call) == [41]


def test_other_failures_are_shown_as_they_are() -> None:
    """No advice where the context was not full."""
    call = Negotiation(asked(*thread(2)), "m", KnownForms("https://models.example/v1"))
    failure = ModelFailure("no")

    assert not call.refused(404, error("no such model"))
    assert call.explained(failure) is failure


@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=50))),
    st.floats(0, 1),
)
def test_what_is_left_out_is_whole_exchanges(thread: list[Any], share: float) -> None:
    """The rest is the end of the thread, begins with a user, and holds the last one's message."""
    messages = [message(role, text) for role, text in thread]
    users = [index for index, each in enumerate(messages) if each.role == "user"]

    request = shortened(asked(*messages), share)

    if request is not None:
        kept = request.messages
        left_out = len(messages) - len(kept)
        assert 0 < left_out <= users[-1]
        assert kept == messages[left_out:]
        assert kept[0].role == "user"
        assert messages[left_out - 1].role == "assistant"
