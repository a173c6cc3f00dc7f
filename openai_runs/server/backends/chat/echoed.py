"""Echoed fields: what an endpoint wants back with an assistant message in the next model call.

Reasoning models read again what they thought, some with a signature, and answer 400 where it
is missing. Nobody else needs these fields, so they are collected here as they come, stored with
the turn, and sent back as the same JSON value; a field that was not sent is never made up.

Theory of operation. Of the message, `MESSAGE_FIELDS` and what the operator adds are kept. Of a
call, each field that is not null and not known otherwise is kept, since endpoints put their
signatures there under names of their own. Answers come in pieces, and a rule says how the pieces
of a field become its value: they are appended, merged by index, or the last one counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from openai_runs.errors import ConfigError
from openai_runs.server.backends.base import Echoed

__all__ = ["MESSAGE_FIELDS", "EchoCollector", "Rule", "echo_rules"]


class Rule:
    """How the pieces of a field become its value."""

    APPEND = "append"
    """Texts are put together, lists too."""
    INDEX = "index"
    """A list; items of the same `index` are one item, whose texts are put together."""
    LAST = "last"
    """The last one that is not empty."""
    NEVER = "never"
    """The field is not sent back."""


MESSAGE_FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "reasoning_content": Rule.APPEND,  # DeepSeek, Kimi, GLM, Qwen, vLLM, SGLang, llama.cpp
        "reasoning": Rule.APPEND,  # OpenRouter, vLLM, Ollama
        "reasoning_text": Rule.APPEND,  # GitHub
        "reasoning_details": Rule.INDEX,  # OpenRouter, MiniMax
        "reasoning_opaque": Rule.LAST,  # GitHub
        "reasoning_signature": Rule.LAST,
        "encrypted_content": Rule.LAST,  # xAI
        "thinking": Rule.APPEND,  # Ollama
        "thinking_blocks": Rule.INDEX,  # LiteLLM
        "thinking_signature": Rule.LAST,
        "thought_signature": Rule.LAST,
        "signature": Rule.LAST,
        "extra_content": Rule.LAST,  # Gemini
        "provider_specific_fields": Rule.LAST,  # LiteLLM
        "id": Rule.LAST,  # of the message, where an endpoint gives one to it
    }
)
"""Fields of an assistant message that some endpoint wants back, and how their pieces merge."""

_CALL_FIELDS: Final = frozenset({"index", "id", "type", "function", "name", "arguments"})
_SENT_ANYWAY: Final = frozenset({"role", "content", "tool_calls"})
_FUNCTION_FIELDS: Final = frozenset({"name", "arguments"})
_APPENDED: Final = frozenset({"text", "summary", "thinking"})
"""Fields of an item of a list that come in pieces."""
_CLOSING: Final = ("signature", "data")
"""Fields that end an item without index: what comes next is another item."""
_RULES: Final = (Rule.APPEND, Rule.INDEX, Rule.LAST, Rule.NEVER)

_Fields: TypeAlias = dict[str, "_Value"]


def echo_rules(more: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """Return the rule of each field of a message, with those that an operator adds or changes.

    Raises:
        ConfigError: A rule is none.
    """
    for name, rule in (more or {}).items():
        if rule not in _RULES:
            message = f"echo: {name!r} must be one of {', '.join(_RULES)}, got {rule!r}"
            raise ConfigError(message)
        if name in _SENT_ANYWAY:
            message = f"echo: {name!r} is sent in any case, and not as it came"
            raise ConfigError(message)
    return {**MESSAGE_FIELDS, **(more or {})}


class _Text(list[str]):
    """A text in pieces, put together once."""


class _Value:
    """A field, as far as it has come."""

    def __init__(self, rule: str) -> None:
        self._rule = rule
        self._value: Any = None
        self._items: dict[tuple[Any, Any], dict[str, Any]] = {}
        """The last item by its index and type."""

    def add(self, piece: Any) -> None:
        """Add one piece that is not null."""
        value = self._value
        if self._rule == Rule.INDEX and isinstance(piece, list):
            self._add_items(piece)
        elif self._rule == Rule.INDEX and isinstance(piece, dict) and isinstance(value, list):
            self._add_items([piece])
        elif self._rule == Rule.APPEND and isinstance(piece, str):
            if not isinstance(value, _Text):
                self._value = value = _Text()
            value.append(piece)
        elif self._rule == Rule.APPEND and isinstance(piece, list) and type(value) is list:
            value.extend(piece)
        elif value is None or not _is_empty(piece):
            self._value = list(piece) if isinstance(piece, list) else piece

    def _add_items(self, items: list[Any]) -> None:
        if not isinstance(self._value, list):
            self._value = []
        before = dict(self._items)  # items of one piece are different items
        for item in items:
            if not isinstance(item, Mapping):
                self._value.append(item)
                continue
            index, kind = _key(item.get("index")), _key(item.get("type"))
            kept = before.get((index, kind))
            if kept is None or not _continues(kept, item):
                kept = {}
                self._value.append(kept)
            for name, part in item.items():
                _merge(kept, name, part)
            self._items[index, kind] = self._items[index, None] = kept

    @property
    def value(self) -> Any:
        """Return the value so far."""
        return _whole(self._value)


def _key(value: Any) -> str | int | None:
    return value if isinstance(value, str | int) else None


def _continues(kept: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    """Tell whether an item of the same index and type is more of the one there is."""
    mine, other = kept.get("id"), item.get("id")
    if mine is not None and other is not None and mine != other:
        return False
    return item.get("index") is not None or not any(kept.get(name) for name in _CLOSING)


def _merge(kept: dict[str, Any], name: str, part: Any) -> None:
    if name in _APPENDED and isinstance(part, str):
        text = kept.get(name)
        if not isinstance(text, _Text):
            text = kept[name] = _Text()
        text.append(part)
    elif kept.get(name) is None or not _is_empty(part):
        kept[name] = part


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


def _whole(value: Any) -> Any:
    """Return the value with its texts put together, also a character that came in halves."""
    if isinstance(value, _Text):
        return _whole("".join(value))
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, Mapping):
        return {_whole(name): _whole(item) for name, item in value.items()}
    return value


class EchoCollector:
    """Collects the echoed fields of one answer, piece by piece.

    Args:
        rules: The rule of each field of a message; see `echo_rules`.
    """

    def __init__(self, rules: Mapping[str, str] = MESSAGE_FIELDS) -> None:
        """Start with nothing."""
        self._rules = rules
        self._message: _Fields = {}
        self._calls: dict[int, _Fields] = {}
        self._functions: dict[int, _Fields] = {}
        self._ids: dict[int, str | int] = {}

    def add_message(self, delta: Mapping[str, Any]) -> None:
        """Add a piece of the message, or the whole.

        Args:
            delta: Its fields, as JSON values.
        """
        for name in delta.keys() & self._rules.keys():
            self._add(self._message, name, delta[name], self._rules[name])

    def add_call(self, index: int, call: Mapping[str, Any]) -> None:
        """Add a piece of a call, or the whole.

        Args:
            index: Our index of the call.
            call: Its fields, as JSON values.
        """
        call_id = call.get("id")
        if isinstance(call_id, str | int) and call_id != "":
            self._ids.setdefault(index, call_id)
        self._add_unknown(self._calls.setdefault(index, {}), call, _CALL_FIELDS)
        function = call.get("function")
        if isinstance(function, Mapping):
            fields = self._functions.setdefault(index, {})
            self._add_unknown(fields, function, _FUNCTION_FIELDS)

    def _add_unknown(self, fields: _Fields, piece: Mapping[str, Any], known: Iterable[str]) -> None:
        for name, value in piece.items():
            if name not in known:
                self._add(fields, name, value, self._rules.get(name, Rule.LAST))

    def _add(self, fields: _Fields, name: str, value: Any, rule: str) -> None:
        if value is not None and rule != Rule.NEVER:
            fields.setdefault(name, _Value(rule)).add(value)

    def result(self) -> Echoed | None:
        """Return what the endpoint wants back; None if that is nothing."""
        calls = {index: self._call(index) for index in self._calls}
        echoed = Echoed(
            message=_values(self._message),
            calls={index: call for index, call in calls.items() if call},
        )
        return echoed if echoed.message or echoed.calls else None

    def _call(self, index: int) -> dict[str, Any]:
        call = _values(self._calls[index])
        if index in self._ids:
            call = {"id": _whole(self._ids[index]), **call}
        function = _values(self._functions.get(index, {}))
        return {**call, "function": function} if function else call


def _values(fields: _Fields) -> dict[str, Any]:
    return {_whole(name): field.value for name, field in fields.items()}
