"""Truncation: which messages are left out when the endpoint says that its context is full. Pure.

A thread is a list of exchanges: what users say, and what is answered. The oldest whole exchanges
are left out; the last user message, what came after it, and the run's own turns never are, so no
round of tools is cut in two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from openai_runs.types.messages import Message

__all__ = ["is_context_full", "kept_share", "without_oldest"]

_FULL: Final = re.compile(
    r"context[_ -]?(?:length|window|size|limit)[_ ]?(?:is |was |has been )?exceed"
    r"|exceed\w*.{0,60}\bcontext|exceed_context"
    r"|(?:maximum|max|model'?s?|available|supported).{0,20}context (?:length|window|size)"
    r"|context.{0,40}(?:is full|too (?:small|short)|overflow|exceed|limit reached)"
    r"|(?:prompt|input|messages?|request|conversation) .{0,40}too (?:long|many tokens)"
    r"|too many (?:input |prompt )?tokens|input token count.{0,40}exceed"
    r"|(?:prompt|inputs?\b).{0,30}tokens?.{0,40}(?:exceed|greater|longer|more than|over|<=)"
    r"|reduce (?:the length|your (?:prompt|message))|(?:string|array)_above_max_length"
    r"|(?:prompt|input)_too_long",
    re.IGNORECASE,
)
"""How endpoints say that the context is full."""
_LIMIT: Final = re.compile(
    r"(?:context (?:length|window|size)[^\d|]{0,30}|n_ctx\D{0,5}|maximum\D{0,30}|> ?|limit\D{0,20})"
    r"(\d{3,})",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"\d{3,}")
_MARGIN: Final = 0.9
"""Share of what should fit that is kept: other messages have other tokens to a character."""
_HALF: Final = 0.5


def is_context_full(status: int, text: str) -> bool:
    """Tell whether an error says that the request does not fit into the model's context."""
    return status in {400, 413, 422, 500} and _FULL.search(text) is not None


def kept_share(text: str) -> float:
    """Return which share of the messages to keep: by the numbers in the error, else half.

    >>> round(kept_share("maximum context length is 4000 tokens, you requested 9000"), 2)
    0.4
    """
    limit = _LIMIT.search(text)
    sizes = [int(number) for number in _NUMBER.findall(text)]
    if limit is None or max(sizes) <= int(limit[1]):
        return _HALF
    return _MARGIN * int(limit[1]) / max(sizes)


def without_oldest(messages: Sequence[Message], share: float) -> list[Message] | None:
    """Return the newest messages, about this share of their bytes; None if none can be left out.

    Args:
        messages: The thread before the run, oldest first.
        share: Between 0 and 1.
    """
    starts = _exchanges(messages)
    if len(starts) < 2:
        return None
    sizes = [len(msgspec.json.encode(message.content)) for message in messages]
    left = share * sum(sizes)
    for start in starts[1:]:
        if sum(sizes[start:]) <= left:
            return list(messages[start:])
    return list(messages[starts[-1] :])


def _exchanges(messages: Sequence[Any]) -> list[int]:
    """Return where each exchange begins: at a user message that follows none."""
    return [
        index
        for index, message in enumerate(messages)
        if index == 0 or (message.role == "user" and messages[index - 1].role != "user")
    ]
