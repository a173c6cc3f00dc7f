"""What an answer is worth: bytes in, events of the model call out. Pure.

Theory of operation. An answer, streamed or whole, is read as JSON values (`wrapping`), whose texts
and tool calls are passed on as they come. What it is worth is decided once, at its end, by this
table; a finish reason alone ends nothing, as some endpoints send one with each piece.

| the finish reasons | how it ended | the model call |
|---|---|---|
| mean done | `[DONE]`, cleanly, or silently | is finished |
| one means a length limit | likewise | is finished, for `length` |
| one means a filter | likewise | is finished, for `content_filter` |
| one means a failure, or nobody knows it | likewise | fails, and the word is named |
| none | `[DONE]` | is finished |
| none | cleanly | is finished if it consists of whole calls; else it fails |
| any | the connection was lost | fails |
| none | silently | fails |

Where nothing was said at all, the answer was empty, and another attempt is made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import Enum, auto
from typing import Any, Final, Literal

import msgspec

from openai_runs._protocol.error_mapping import excerpt
from openai_runs._protocol.masking import mask
from openai_runs.server.backends.base import (
    Finish,
    FinishReason,
    ModelEvent,
    ModelFailure,
    TextDelta,
)
from openai_runs.server.backends.chat.calls import Calls
from openai_runs.server.backends.chat.echoed import EchoCollector
from openai_runs.server.backends.chat.failures import (
    EXCERPT_CHARS,
    AttemptFailed,
    error_inside,
    error_of,
    words_of,
    written,
)
from openai_runs.server.backends.chat.pieces import Halves, Thoughts
from openai_runs.server.backends.chat.words import (
    Verdict,
    finish_word,
    is_loading,
    is_passing,
    is_rate_limit,
    is_unspecified,
    verdict,
)
from openai_runs.server.backends.chat.wrapping import DONE, Payload, Unreadable, Unwrapper
from openai_runs.types.runs import Usage

__all__ = ["AnswerReader", "Ending"]

_MAX_WORD: Final = 160
"""Characters of a finish reason that are shown."""
_MAX_COUNT: Final = 2**53 - 1
"""Tokens; a count that is larger than JSON numbers are exact is none."""
_REASONS: Final = {
    Verdict.DONE: FinishReason.STOP,
    Verdict.LENGTH: FinishReason.LENGTH,
    Verdict.FILTER: FinishReason.CONTENT_FILTER,
}
_CHUNK: Final = "chat.completion.chunk"
_THOUGHTS: Final = ("thinking", "reasoning", "thought", "redacted_thinking")
"""Types of parts of a content that are no text."""
_HARMLESS: Final = frozenset({"choices", "usage", "type", "event", "timings", "status"})
"""A JSON object with none of these is no chunk, unless it says nothing."""
_METADATA: Final = frozenset({"id", "object", "created", "model", "provider", "system_fingerprint"})
_SAID: Final = frozenset({"delta", "message", "text", "error"})
_BESIDE: Final = frozenset({"index", "finish_reason", "logprobs", "usage"})
"""What a choice may consist of that says nothing."""
_REASON_NAMES: Final = ("finish_reason", "finishReason")
_OTHER_REASONS: Final = frozenset({"finishReason", "stop_reason", "native_finish_reason"})
_REASON_KEYS: Final = _OTHER_REASONS | {"finish_reason"}
_COUNTS: Final = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))


class Ending(Enum):
    """How an answer ended."""

    CLEAN = auto()
    """The endpoint ended it, with `[DONE]` or without."""
    SILENT = auto()
    """Nothing more came for so long that it was given up."""
    LOST = auto()
    """The connection was lost."""


class _TextDelta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str
    role: str | None = None


class _TextChoice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    delta: _TextDelta
    index: int = 0
    finish_reason: None = None
    logprobs: Any = None


class _TextChunk(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A chunk that says a piece of text and nothing else, as most chunks do."""

    choices: tuple[_TextChoice]
    object: Literal["chat.completion.chunk"]
    id: Any = None
    created: Any = None
    model: Any = None
    system_fingerprint: Any = None
    service_tier: Any = None
    usage: None = None


_TEXT_CHUNKS: Final = msgspec.json.Decoder(_TextChunk)


class AnswerReader:
    """Reads one answer.

    Args:
        secrets: What no failure repeats.
        think: What is done with thoughts in the text: `keep`, `strip` or `separate`.
        echo: Collects what the endpoint wants back.
    """

    def __init__(
        self,
        secrets: Collection[str] = (),
        *,
        think: str = "keep",
        echo: EchoCollector | None = None,
    ) -> None:
        """Begin an answer."""
        self._secrets = secrets
        self._echo = echo or EchoCollector()
        self._separates = think == "separate"
        self._unwrapper = Unwrapper(usual=_TEXT_CHUNKS)
        self._halves = Halves()
        self._thoughts = Thoughts(think)
        self._calls = Calls()
        self._usage: dict[str, Any] = {}
        self._events: list[ModelEvent] = []
        """What was read and is not passed on yet."""
        self._word = ""
        self._verdict: Verdict | None = None
        self._spoke = False
        self._is_empty_text = False
        """Whether the model has said an empty text, which is an answer if it also says so."""
        self._is_stream = False
        self._texts: list[str] = []
        """The pieces of text that came, as they came."""
        self._length = 0
        """Characters of them."""
        self.is_done = False
        """Whether the endpoint has said `[DONE]`."""
        self.has_begun = False
        """Whether the model has said anything, thoughts included."""
        self.progress = 0
        """Counts what was said; what only keeps the connection alive does not count."""

    @property
    def is_within(self) -> bool:
        """Whether a chunk or an answer has begun to come."""
        return self.has_begun or self._unwrapper.is_within

    @property
    def has_reason(self) -> bool:
        """Whether a finish reason has come, after which more may come all the same."""
        return self._verdict is not None or self._unwrapper.is_complete

    def feed(self, piece: bytes) -> Iterator[ModelEvent]:
        """Return the events that the bytes complete; they are read as they are taken.

        Raises:
            AttemptFailed: They are no answer, or say that the call failed.
        """
        return iter(()) if self.is_done else self._guarded(self._unwrapper.feed(piece))

    def finish(self, ending: Ending, why: str = "", cause: str = "") -> Iterator[ModelEvent]:
        """Yield the last events, a `Finish` if the answer is whole.

        Args:
            ending: How it ended.
            why: What is said of a connection that was lost or fell silent.
            cause: What is logged of it, without anything that came from the endpoint.

        Raises:
            AttemptFailed: It is not whole.
        """
        cut = AttemptFailed(ModelFailure(why), again=True, cause=cause)
        if ending == Ending.LOST and not self.progress:
            raise cut
        try:
            if not self.is_done:
                yield from self._guarded(self._unwrapper.finish())
        except AttemptFailed:
            if ending == Ending.CLEAN:
                raise
            # What was cut off is of less interest than what has cut it off.
            raise cut from None
        self._flush()
        yield from self._passed_on()
        failure = self._failure(ending, cut)
        if failure is not None:
            raise failure
        yield from self._calls.finish()
        reason = _REASONS[self._verdict or Verdict.DONE]
        yield Finish(
            reason=reason, usage=_usage(self._usage), echoed=self._echo.result(), word=self._word
        )

    def _guarded(self, payloads: Iterator[Payload]) -> Iterator[ModelEvent]:
        """Yield what payloads say; before a failure, what was held back."""
        try:
            for payload in payloads:
                self._read(payload)
                if self._events:
                    yield from self._passed_on()
                if self.is_done:
                    return
        except (Unreadable, RecursionError) as error:
            self._flush()
            yield from self._passed_on()
            content = error.content if isinstance(error, Unreadable) else self._unwrapper.head
            raise self._unreadable(content) from None
        except AttemptFailed:
            self._flush()
            yield from self._passed_on()
            raise

    def _passed_on(self) -> list[ModelEvent]:
        """Return the events that were read since the last call."""
        events, self._events = self._events, []
        return events

    def _read(self, payload: Payload) -> None:
        value = payload.value
        if isinstance(value, _TextChunk):
            self._read_text(value.choices[0].delta.content)
        elif value is DONE:
            self.is_done = True
        elif isinstance(value, list):
            for one in value:
                self._read_value(payload.event, one)
        else:
            self._read_value(payload.event, value)

    def _read_text(self, text: str) -> None:
        self._is_stream = True
        if text:
            self.has_begun = True
            self.progress += 1
            self._take_text(text)
        else:
            self._is_empty_text = True

    def _read_value(self, event: str, value: Any) -> None:
        """Read a chunk, a whole answer, or an error in its place."""
        if value is None or value == "":
            return
        error = error_of(value)
        if error is None and event == "error":
            error = value
        if error is not None:
            if isinstance(error, bytes):
                error = words_of(error, self._secrets)
            raise error_inside(error, self._secrets, in_stream=self.has_begun)
        if not isinstance(value, dict) or not _is_chunk(value):
            raise Unreadable(written(value))
        self._add_usage(value.get("usage"))
        is_piece = value.get("object") == _CHUNK
        for choice in _choices_of(value):
            self._read_choice(choice, is_chunk=is_piece)
        if not _REASON_KEYS.isdisjoint(value):
            self._add_word(_reason_of(value))

    def _read_choice(self, choice: dict[str, Any], *, is_chunk: bool) -> None:
        if choice.get("error"):
            raise error_inside(choice, self._secrets, in_stream=self.has_begun)
        self._add_usage(choice.get("usage"))
        delta, message, text = choice.get("delta"), choice.get("message"), choice.get("text")
        is_repeated = self._is_stream and not is_chunk  # all of it once more, at the end
        if isinstance(delta, dict) and (delta or not message):
            self._is_stream = True
            self._say(delta, whole=False)
        elif isinstance(message, dict) and not is_repeated:
            self._say(message, whole=not is_chunk, may_repeat=self._is_stream)
        elif isinstance(text, str):
            self._say({"content": text}, whole=False)
        self._add_word(_reason_of(choice))

    def _say(self, delta: dict[str, Any], *, whole: bool, may_repeat: bool = False) -> None:
        self._echo.add_message(delta)
        for name, value in delta.items():
            if value and name != "role":
                self.has_begun = True
                self.progress += 1
                break
        content = delta.get("content")
        text = f"{_text_of(content)}{_text_of(delta.get('refusal'))}"
        self._is_empty_text = self._is_empty_text or (content is not None and not text)
        if may_repeat:
            text = self._without_repeated(text)
        if text:
            self._take_text(text)
        pieces = delta.get("tool_calls") or _legacy_call(delta.get("function_call"))
        if pieces:
            self._add_calls(pieces, whole=whole)

    def _add_calls(self, pieces: Any, *, whole: bool) -> None:
        for number, item, events in self._calls.add(pieces, whole=whole):
            self._echo.add_call(number, item)
            self._spoke = True
            self._events += events

    def _take_text(self, text: str) -> None:
        self._texts.append(text)
        self._length += len(text)
        self._add_text(self._thoughts.add(self._halves.add(text)))

    def _without_repeated(self, text: str) -> str:
        """Return what a message adds to the pieces before it, all of which it may repeat."""
        return text if len(text) < self._length else text.removeprefix("".join(self._texts))

    def _add_text(self, parts: Iterable[tuple[bool, str]]) -> None:
        for is_thought, text in parts:
            if not is_thought:
                self._spoke = True
                self._events.append(TextDelta(text))
            elif self._separates:
                self._echo.add_message({"reasoning_content": text})

    def _flush(self) -> None:
        """Read the text that was held back."""
        rest = self._halves.finish()
        if rest:
            self._add_text(self._thoughts.add(rest))
        self._add_text(self._thoughts.finish())

    def _add_word(self, word: str) -> None:
        if not word or (self._word and is_unspecified(word)):
            return
        self.progress += self._verdict is None
        found = verdict(word)
        if (
            self._verdict is None
            or is_unspecified(self._word)
            or found.value >= self._verdict.value
        ):
            self._verdict = found
            is_known = found != Verdict.UNKNOWN
            self._word = (word if is_known else mask(word, self._secrets))[:_MAX_WORD]

    def _add_usage(self, sent: Any) -> None:
        if isinstance(sent, dict):
            counts = {name: count for name, count in sent.items() if count is not None}
            self.progress += any(self._usage.get(name) != counts[name] for name in counts)
            self._usage |= counts

    def _failure(self, ending: Ending, cut: AttemptFailed) -> AttemptFailed | None:
        """Return why the answer is not whole; None: it is."""
        if ending == Ending.LOST and not self.is_done:
            return cut
        if self._verdict == Verdict.UNKNOWN:
            said = f"The model stopped with {self._word!r}, which is no word for a whole answer."
            return AttemptFailed(ModelFailure(said), cause="an unknown finish reason")
        if not self._calls.are_named and self._verdict in (None, Verdict.DONE):
            said = "The model called a tool without a name."
            return AttemptFailed(ModelFailure(said), cause=said)
        if self._verdict is None and ending == Ending.SILENT and not self.is_done:
            return cut
        if not self._spoke and (
            self._verdict is None or (self._verdict == Verdict.DONE and not self._is_empty_text)
        ):
            return self._empty()
        if self._verdict is None and not self.is_done and not self._is_called:
            said = "The model's answer ended without a reason, so it may be cut short."
            return AttemptFailed(ModelFailure(said), cause=said)
        return None

    @property
    def _is_called(self) -> bool:
        return len(self._calls) > 0 and self._calls.are_whole

    def _empty(self) -> AttemptFailed:
        said = excerpt(self._unwrapper.head, EXCERPT_CHARS // 2, secrets=self._secrets)
        what = f"; the endpoint sent {said!r}" if said else ""
        sentence = f"The model said nothing: the answer was empty{what}."
        return AttemptFailed(ModelFailure(sentence), again=True, cause="the answer was empty")

    def _unreadable(self, content: bytes) -> AttemptFailed:
        said = words_of(content, self._secrets) or excerpt(content, secrets=self._secrets)
        is_limit = is_rate_limit(said)
        is_busy = not self._is_stream and (is_limit or is_loading(said))
        sentence = f"The model endpoint sent no chat completion, but {said[:EXCERPT_CHARS]!r}."
        code = "rate_limit_exceeded" if is_busy and is_limit else "server_error"
        return AttemptFailed(
            ModelFailure(sentence, code=code),
            again=is_busy or (not self._is_stream and is_passing(said)),
            is_busy=is_busy,
            cause="it sent no chat completion",
        )


def _is_chunk(value: dict[str, Any]) -> bool:
    """Tell a chunk or an answer from what is none; some chunks only keep a connection alive."""
    return value.keys() <= _METADATA or not _HARMLESS.isdisjoint(value)


def _choices_of(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the choices that are pieces of the first one.

    Raises:
        Unreadable: One of them is none.
    """
    choices = value.get("choices")
    items = [choices] if isinstance(choices, dict) else choices
    if items is not None and not isinstance(items, list):
        raise Unreadable(written(value))
    found = [item for item in items or () if item is not None]
    is_called = False
    for choice in found:
        if not isinstance(choice, dict):
            raise Unreadable(written(value))
        if _SAID.isdisjoint(choice) and not _reason_of(choice):
            if any(
                name not in _BESIDE and not name.startswith("content_filter") for name in choice
            ):
                raise Unreadable(written(value))
            continue
        is_first = choice is found[0] or choice.get("index") == found[0].get("index")
        if is_first or (not is_called and _calls_alone(choice)):
            is_called = is_called or (len(found) > 1 and bool(_said_in(choice).get("tool_calls")))
            yield choice


def _said_in(choice: dict[str, Any]) -> dict[str, Any]:
    """Return the message of a choice, or the piece of one."""
    said = choice.get("delta") or choice.get("message")
    return said if isinstance(said, dict) else {}


def _calls_alone(choice: dict[str, Any]) -> bool:
    """Tell a choice of calls and no text: some endpoints put the calls of an answer there."""
    said = _said_in(choice)
    return bool(said.get("tool_calls")) and not said.get("content")


def _reason_of(said: dict[str, Any]) -> str:
    """Return the finish reason of a choice, wherever it stands; of two, the worse one.

    >>> _reason_of({"finish_reason": "stop", "native_finish_reason": "MAX_TOKENS"})
    'MAX_TOKENS'
    """
    inner = said.get("delta") or said.get("message")
    inner = inner if isinstance(inner, dict) else {}
    if _OTHER_REASONS.isdisjoint(said) and _REASON_KEYS.isdisjoint(inner):  # as nearly always
        return finish_word(said.get("finish_reason"))
    found = [finish_word(place.get(name)) for place in (said, inner) for name in _REASON_NAMES]
    if not any(name in said for name in _REASON_NAMES):
        found.append(finish_word(said.get("stop_reason")))
    native = finish_word(said.get("native_finish_reason"))
    if verdict(native) in (Verdict.LENGTH, Verdict.FILTER):
        found.append(native)
    words = [word for word in found if word]
    return max(words, key=lambda word: verdict(word).value, default="")


def _text_of(content: Any) -> str:
    """Return the text of a content, which may come in parts."""
    if content is None or isinstance(content, bool):
        return ""
    if isinstance(content, list):
        return "".join(map(_text_of, content))
    if isinstance(content, dict):
        if content.get("type") in _THOUGHTS:
            return ""
        return _text_of(content.get("text") or content.get("content") or content.get("refusal"))
    return str(content)


def _legacy_call(call: Any) -> Any:
    """Return the form of before tool calls as a piece of one."""
    return {"index": 0, "function": call} if isinstance(call, dict) else None


def _usage(sent: Mapping[str, Any]) -> Usage | None:
    """Return the tokens of a call, as far as the endpoint names them."""
    counts = [
        next((n for name in names if (n := _count(sent.get(name))) is not None), None)
        for names in _COUNTS
    ]
    if counts == [None, None]:
        return None
    prompt, completion = (max(0, count or 0) for count in counts)
    return Usage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )


def _count(sent: object) -> int | None:
    """Return a number of tokens; what cannot be one is as good as not sent."""
    if sent is None:
        return None
    try:
        count = msgspec.convert(sent, int, strict=False)
    except (msgspec.ValidationError, ValueError, OverflowError):
        return None
    return count if count <= _MAX_COUNT else None
