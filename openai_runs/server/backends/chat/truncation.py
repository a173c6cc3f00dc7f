"""Truncation: which messages are left out when the endpoint says that its context is full. Pure.

A thread is a list of exchanges: what users say, and what is answered. The oldest whole exchanges
are left out first, then the oldest turns of the run itself, each with all its outputs. The last
user message with what came after it and the last turn never are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec

from openai_runs.server.backends.base import ModelRequest
from openai_runs.server.backends.chat.forms import plain
from openai_runs.types.messages import Message

__all__ = ["is_context_full", "kept_share", "shortened"]

_FULL: Final = (
    ("context", "exceed"), ("context", "overflow"), ("context", " full "),
    ("context", "too small"), ("context", "too short"), ("context length",), ("context window",),
    ("context size",), ("context limit",), ("prompt is too long",), ("prompt too long",),
    ("input is too long",), ("input too long",), ("request is too long",),
    ("conversation is too long",), ("messages are too long",),
    ("too many tokens",), ("too many input tokens",), ("too many prompt tokens",),
    ("token count", "exceed"), (" input", " tokens ", "exceed"), ("prompt", " tokens ", "exceed"),
    ("inputs tokens", "must be"), ("reduce the length",), ("reduce your prompt",),
    ("reduce your message",), ("string_above_max_length",), ("array_above_max_length",),
    ("prompt_too_long",), ("input_too_long",), ("longer than the maximum",),
    ("maximum prompt length",), ("exceeded model token limit",), ("exceeds max length",),
    ("range of input length",), ("larger than the context",), ("larger than", "length limit"),
    ("prompt length", "greater than"), ("max_seq_len",), ("inputs must have less than",),
    ("context shift is disabled",),
    ("maximum model length",), ("max_model_len",), (" length ", "exceeds", "maximum"),
)  # fmt: skip
"""How endpoints say that the context is full: words that stand together in their error."""
_TOO_LARGE: Final = ("request too large", "tokens must be reduced")
"""How a rate limit says that one request is more than a whole minute allows."""
_LIMITS: Final = ("context", "maximum", "limit", "n_ctx")
"""Words near the number of tokens that a model takes."""
_REACH: Final = 4
"""Words after these within which that number stands."""
_SMALLEST: Final = 128
"""Tokens; a lesser number in an error is another number."""
_WORD: Final = re.compile(r"[a-z0-9_]+")
_MARGIN: Final = 0.9
"""Share of what should fit that is kept: other messages have other tokens to a character."""
_HALF: Final = 0.5


def is_context_full(status: int, text: str) -> bool:
    """Tell whether an error says that the request does not fit into the model's context."""
    words = plain(text)
    if status == 429 and any(each in words for each in _TOO_LARGE):
        return True  # no waiting makes it fit
    return status == 413 or (
        status in {400, 422, 500}
        and any(all(each in words for each in phrases) for phrases in _FULL)
    )


def kept_share(text: str) -> float:
    """Return which share of the messages to keep: by the numbers in the error, else half.

    >>> round(kept_share("maximum context length is 4000 tokens, you requested 9000"), 2)
    0.4
    """
    words = _WORD.findall(text.lower())
    sizes = {n: int(w) for n, w in enumerate(words) if w.isascii() and w.isdigit() and len(w) < 12}
    sizes = {n: size for n, size in sizes.items() if size >= _SMALLEST}
    limit = next((size for n, size in sizes.items() if _is_limit(words, n)), None)
    if limit is None or max(sizes.values()) <= limit:
        return _HALF
    return _MARGIN * limit / max(sizes.values())


def _is_limit(words: Sequence[str], place: int) -> bool:
    """Tell whether the number at this place is the size of the context."""
    before = words[max(0, place - _REACH) : place]
    return words[place + 1 : place + 2] == ["maximum"] or any(w in _LIMITS for w in before)


def shortened(request: ModelRequest, share: float) -> ModelRequest | None:
    """Return the model call without its oldest exchanges, or turns; None if there are none.

    Args:
        request: The model call.
        share: Between 0 and 1: of the bytes of the thread, or of the turns, what to keep.
    """
    messages, turns = _without_oldest(request.messages, share), request.turns
    if messages is not None:
        return msgspec.structs.replace(request, messages=messages)
    if len(turns) < 2:
        return None
    kept = max(1, min(len(turns) - 1, int(share * len(turns))))
    return msgspec.structs.replace(request, turns=turns[-kept:])


def _without_oldest(messages: Sequence[Message], share: float) -> list[Message] | None:
    starts = _exchanges(messages)
    if len(starts) < 2:
        return None
    sizes = [len(msgspec.json.encode(message.content)) for message in messages]
    rest, limit = sum(sizes), share * sum(sizes)
    for before, start in pairwise(starts):
        rest -= sum(sizes[before:start])
        if rest <= limit:
            return list(messages[start:])
    return list(messages[starts[-1] :])


def _exchanges(messages: Sequence[Any]) -> list[int]:
    """Return where each exchange begins: at a user message that follows none."""
    return [
        index
        for index, message in enumerate(messages)
        if index == 0 or (message.role == "user" and messages[index - 1].role != "user")
    ]
