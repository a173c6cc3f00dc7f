"""What the answer of a chat-completions endpoint means. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec

from openai_runs._protocol.error_mapping import error_facts
from openai_runs._protocol.masking import mask
from openai_runs.server.backends.base import (
    Finish,
    FinishReason,
    ModelEvent,
    ModelFailure,
    TextDelta,
    ToolCallDelta,
)
from openai_runs.types.runs import Usage

__all__ = [
    "EXCERPT_CHARS",
    "explain_status",
    "finish_reason",
    "joined",
    "read_answer",
    "usage",
]

EXCERPT_CHARS: Final = 200
"""Characters of an endpoint's words that are shown."""
_FINISH: Final = {
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class _Function(msgspec.Struct):
    name: str = ""
    arguments: str | dict[str, Any] | None = None


class _ToolCall(msgspec.Struct):
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Message(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    usage: Any = None


_DECODER: Final = msgspec.json.Decoder(_Answer)


def read_answer(content: bytes, secrets: Collection[str] = ()) -> list[ModelEvent]:
    """Return the events that a 200's body stands for; a failure repeats no secret.

    Raises:
        ModelFailure: It is no whole answer; nothing of it may be taken for one.
    """
    try:
        answer = _DECODER.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        problem = mask(f"The model endpoint sent no chat completion: {error}.", secrets)
        raise ModelFailure(problem[:EXCERPT_CHARS]) from None
    if not answer.choices:
        problem = "The model endpoint sent a chat completion without choices."
        raise ModelFailure(problem)
    choice = answer.choices[0]
    finish = Finish(
        reason=finish_reason(choice.finish_reason),
        usage=usage(answer.usage),
    )
    events: list[ModelEvent] = [TextDelta(text) for text in [_text(choice.message)] if text]
    events += [
        ToolCallDelta(
            index=index,
            id=call.id or "",
            name=call.function.name,
            arguments=_arguments(call.function.arguments),
        )
        for index, call in enumerate(choice.message.tool_calls or [])
    ]
    if not events and choice.message.content is None and finish.reason == FinishReason.STOP:
        problem = "The model endpoint sent a chat completion without content."
        raise ModelFailure(problem)
    return [*events, finish]


def _text(message: _Message) -> str:
    return joined(message.content) or message.refusal or ""


def joined(content: str | list[dict[str, Any]] | None) -> str:
    """Return the text of a content, which may come in parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content)
    return content or ""


def finish_reason(sent: str | None) -> str:
    """Return why the model stopped; what is not known counts as done."""
    return _FINISH.get(sent or "", FinishReason.STOP)


def _arguments(sent: str | dict[str, Any] | None) -> str:
    if isinstance(sent, dict):  # some endpoints send the object itself
        return msgspec.json.encode(sent).decode()
    return sent or "{}"


def usage(sent: Any) -> Usage | None:
    """Return the tokens of a call, as far as the endpoint tells them."""
    if not isinstance(sent, dict):
        return None
    counts = [_count(sent.get(name)) for name in ("prompt_tokens", "completion_tokens")]
    if counts == [None, None]:
        return None
    prompt, completion = (max(0, count or 0) for count in counts)
    return Usage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )


def _count(sent: object) -> int | None:
    """Return a number of tokens; what is none is as good as not told."""
    try:
        return msgspec.convert(sent, int, strict=False)
    except msgspec.ValidationError:
        return None


def explain_status(status: int, content: bytes, secrets: Collection[str] = ()) -> ModelFailure:
    """Return the failure that an error status stands for, without the secrets it quotes."""
    if status in {401, 403}:
        return ModelFailure(f"The model endpoint refused the server's key (HTTP {status}).")
    said = error_facts(content, secrets).get("message", "")[:EXCERPT_CHARS]
    sentence = f"The model endpoint answered HTTP {status}{f': {said}' if said else '.'}"
    if status == 429:
        return ModelFailure(sentence, code="rate_limit_exceeded")
    if status in {400, 413, 422}:
        return ModelFailure(sentence, code="invalid_prompt")
    return ModelFailure(sentence)
