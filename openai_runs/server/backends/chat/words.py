"""The words of endpoints: how they say that a model is done, and that they are busy. Pure."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, Final

__all__ = [
    "Verdict",
    "finish_word",
    "is_loading",
    "is_passing",
    "is_rate_limit",
    "is_unspecified",
    "verdict",
]


class Verdict(Enum):
    """What a finish reason says about the answer; a later one is worse."""

    DONE = 1
    LENGTH = 2
    FILTER = 3
    UNKNOWN = 4
    """A failure, or a word that nobody knows."""


_DONE: Final = frozenset(
    {
        "stop",  # OpenAI, Gemini, most others
        "toolcalls",
        "toolcall",  # Cohere
        "functioncall",
        "functioncalls",
        "tooluse",  # Anthropic, Bedrock
        "endturn",
        "stopsequence",  # Anthropic, Cohere, TGI
        "complete",  # Cohere
        "completed",
        "eos",  # Together
        "eostoken",  # TGI, watsonx
        "eosfound",
        "endoftext",  # AI21
        "endofturn",
        "eot",
        "stopped",
        "stoptoken",
        "stopword",
        "finish",
        "finished",
        "done",
        "end",
        "normal",
        "success",
        "endofsequence",
        "eosid",
        "stopstring",
        "stopstr",
    }
)
_LENGTH: Final = frozenset(
    {
        "length",  # OpenAI, Ollama, most others
        "maxlength",
        "maxtokens",  # Anthropic, Cohere, Gemini, watsonx
        "maxtoken",
        "maxnewtokens",
        "maxtokensreached",
        "maxoutputtokens",  # the Responses API
        "maxcompletiontokens",
        "modellength",  # Mistral
        "tokenlimit",  # watsonx
        "limit",  # llama.cpp
        "lengthlimit",
        "contextlength",
        "contextlengthexceeded",
        "maxcontextlength",
        "contextwindowexceeded",
        "modelcontextwindowexceeded",  # Anthropic, Bedrock
        "truncated",
        "maximumtokens",  # Aleph Alpha
        "maxtokensexceeded",
        "maxlengthreached",
        "tokenlimitreached",
        "outputlimit",
        "outputtokenlimit",
        "contextlimit",
        "contextwindow",
    }
)
_FILTER: Final = frozenset(
    {
        "contentfilter",  # OpenAI
        "contentfiltered",  # Bedrock
        "contentfiltering",
        "guardrailintervened",
        "safety",  # Gemini, and the next five
        "imagesafety",
        "recitation",
        "blocklist",
        "prohibitedcontent",
        "spii",
        "refusal",  # Anthropic
        "sensitive",  # Zhipu
        "errortoxic",  # Cohere
        "moderation",
        "blocked",
        "modelarmor",  # Gemini, and the next one
        "imageprohibitedcontent",
        "safetyfilter",
    }
)
_NONE: Final = frozenset({"null", "none", "nil", "undefined", "notfinished", "inprogress"})
"""What stands where a finish reason would, as long as there is none."""
_VERDICTS: Final = {
    **dict.fromkeys(_DONE, Verdict.DONE),
    **dict.fromkeys(_LENGTH, Verdict.LENGTH),
    **dict.fromkeys(_FILTER, Verdict.FILTER),
}
_RATE_LIMIT: Final = re.compile(
    r"rate.?limit|too.?many.?requests|resource.?exhausted|throttl|rate exceeded|\b429\b"
    r"|qps|slow.?down|(?:requests|tokens).per.(?:second|minute)|request.limit|concurrency.{0,20}limit"
    r"|limit.{0,20}concurren|并发|频繁|限流|限速",
    re.I,
)
_PASSING: Final = re.compile(
    r"server.?error|internal.?(?:server.?)?error|time.?out|timed.?out|unavailable|upstream"
    r"|bad.?gateway|connection.?(?:reset|error|closed|lost)",
    re.I,
)
"""What an error without a status says that another attempt may not meet."""
_BUSY: Final = (
    "warming up", "warmup", "starting up", "startup", "is starting", "cold start", "coldstart",
    "overload", "try again later", "try again in", "at capacity",
    "temporarily unavailable", "temporarily exceeded", "high demand", "too busy", "server busy",
    "cold boot", "is busy", "queue is full", "please retry", "retry later", "no free slot",
    "no slot available", "繁忙", "过载", "稍后再试", "稍后重试",
)  # fmt: skip
"""What an endpoint says that will answer later."""
_LOADING: Final = ("loading", "not ready", "downloading", "not yet loaded", "not loaded yet")
"""What it says of a model that will."""
_BROKEN: Final = ("fail", "error", "unable", "cannot", "can't", "could not")
"""What an endpoint says whose model will never be loaded."""


def _normalised(word: str) -> str:
    plain = "".join(one for one in word.lower() if one.isalnum())
    return plain.removeprefix("finishreason")  # the names of enums hold that of their type


def finish_word(sent: Any) -> str:
    """Return the word of a finish reason, whatever its type; empty where there is none.

    >>> finish_word("stop"), finish_word({"type": "length"}), finish_word("null")
    ('stop', 'length', '')
    """
    if isinstance(sent, dict):
        kind, words = sent.get("type") or sent.get("reason") or sent.get("name"), sent
        sent = f"{kind}: {words['message']}" if kind and _says_why(kind, words) else kind
    if sent is None or sent is False or sent in ([], {}):
        return ""
    word = (sent if isinstance(sent, str) else str(sent)).strip()
    return "" if word not in _VERDICTS and _normalised(word) in _NONE else word


def _says_why(kind: Any, words: dict[str, Any]) -> bool:
    """Tell whether a finish reason comes with a message, which counts where it is a failure."""
    message = words.get("message")
    return isinstance(message, str) and message != "" and verdict(str(kind)) == Verdict.UNKNOWN


def verdict(word: str) -> Verdict:
    """Return what a word says; case and separators are ignored.

    >>> verdict("MAX_TOKENS"), verdict("end_turn"), verdict("weather")
    (<Verdict.LENGTH: 2>, <Verdict.DONE: 1>, <Verdict.UNKNOWN: 4>)
    """
    return _VERDICTS.get(word) or _VERDICTS.get(_normalised(word), Verdict.UNKNOWN)


def is_unspecified(word: str) -> bool:
    """Return whether a word says that the reason is not known: any other one says more.

    >>> is_unspecified("FINISH_REASON_UNSPECIFIED"), is_unspecified("OTHER")
    (True, False)
    """
    return _normalised(word) == "unspecified"


def is_rate_limit(text: str) -> bool:
    """Return whether an error text or code is that of a rate limit, whatever its status.

    >>> is_rate_limit("Too Many Requests"), is_rate_limit("RESOURCE_EXHAUSTED")
    (True, True)
    """
    return _RATE_LIMIT.search(text) is not None


def is_passing(text: str) -> bool:
    """Return whether an error text is of a fault that another attempt may not meet.

    >>> is_passing("502 Bad Gateway"), is_passing("The worker died")
    (True, False)
    """
    return _PASSING.search(text) is not None


def is_loading(text: str) -> bool:
    """Return whether an error text says that the endpoint is not ready yet.

    >>> is_loading("Loading model"), is_loading("Failed to load the model: loading model failed")
    (True, False)
    """
    words = " ".join(text.lower().replace("-", " ").replace("_", " ").split())
    if any(word in words for word in _BROKEN):
        return False
    of_model = "model" in words and any(word in words for word in _LOADING)
    return of_model or any(word in words for word in _BUSY)
