"""Request specs: what is sent where, and how its answer is decoded.

Ids and header values are checked here, before any request, so that none can change
which endpoint is called or smuggle a header in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from inspect import isawaitable
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from openai_runs.config import MAX_ID_CHARS
from openai_runs.errors import ConfigError

__all__ = [
    "QueryValue",
    "RequestSpec",
    "Retry",
    "check_header",
    "check_id",
    "check_text",
    "encode_body",
    "encode_query",
    "forgotten_await",
    "merge_headers",
]

T = TypeVar("T")

QueryValue = str | int | float | bool | Sequence[str] | None
"""A query value; a sequence is sent as `name[]=a&name[]=b`, None is left out."""

_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,255}\Z")
_BAD_ID: Final = r"[\x00-\x20\x7f-\x9f/\\?#%\ud800-\udfff]"
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
"""A token, as RFC 9110 section 5.1 asks."""
_HALF: Final = re.compile(r"[\ud800-\udfff]")
"""Half of a surrogate pair."""
_BAD_HEADER: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Retry(Enum):
    """How a request may be repeated."""

    IDEMPOTENT = "idempotent"
    """It reads or deletes: it may be repeated any number of times."""
    NOT_IDEMPOTENT = "not idempotent"
    """It creates or changes something: see `retry` and docs/pages/guides/errors.md."""


class RequestSpec(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One request, ready to be sent."""

    operation: str
    """The OpenAPI operation id, for messages."""
    method: str
    path: str
    """Below the base URL; ids are quoted."""
    query: str = ""
    """Encoded, without the question mark."""
    body: bytes | None = None
    decode: Callable[[bytes], T]
    """Decodes the answer; of an `AnswerDecoder`."""
    retry: Retry = Retry.IDEMPOTENT
    deleted_body: bytes = b""
    """The answer to a repeated DELETE whose first attempt had worked."""
    thread_id: str | None = None
    run_id: str | None = None
    stream: bool = False
    """Whether the answer is asked for as server-sent events."""


def check_id(name: str, value: object) -> str:
    """Return `value`, quoted for a path, if it can be an id.

    >>> check_id("run_id", "run_abc")
    'run_abc'

    Raises:
        TypeError: `value` is no text.
        ValueError: `value` is empty, too long, or could change the path.
    """
    if not isinstance(value, str):
        message = f"{name} must be a string, got {type(value).__name__}{_instead(value)}"
        raise TypeError(message)
    if _PLAIN_ID.match(value):
        return value
    if not value:
        message = f"{name} must not be empty"
        raise ValueError(message)
    if len(value) > MAX_ID_CHARS:
        message = f"{name} has {len(value)} characters; at most {MAX_ID_CHARS} are allowed"
        raise ValueError(message)
    if value in {".", ".."} or re.search(_BAD_ID, value):
        message = (
            f"{name}={value!r} cannot be an id: it holds a character that would change the URL"
        )
        raise ValueError(message)
    return quote(value, safe="")


def forgotten_await(value: object) -> str:
    """Return the question for what should have been awaited; empty for all else."""
    return "; was an await forgotten?" if isawaitable(value) else ""


def _instead(value: object) -> str:
    """Return what may have been meant by an object in place of its id."""
    if isinstance(getattr(value, "id", None), str):
        return "; pass its .id"
    return forgotten_await(value)


def check_header(name: str, value: object) -> str:
    """Return `value` if it may stand in the header `name`; a rejected value is not shown.

    >>> check_header("X-Trace", "a b")
    'a b'

    Raises:
        TypeError: `value` is no text.
        ValueError: `name` is no header's name, or `value` holds a control character.
    """
    if not _HEADER_NAME.match(name):
        message = f"{name!r} cannot be the name of a header"
        raise ValueError(message)
    if not isinstance(value, str):
        message = f"header {name!r} must be a string, got {type(value).__name__}"
        raise TypeError(message)
    if _BAD_HEADER.search(value):
        message = f"header {name!r} holds a control character"
        raise ValueError(message)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        message = f"header {name!r} holds a character that cannot be sent"
        raise ValueError(message) from None
    return value


def merge_headers(headers: dict[str, str], extra: Mapping[str, str]) -> None:
    """Put `extra` into `headers`; the case of a name does not matter.

    >>> headers = {"OpenAI-Beta": "assistants=v2"}
    >>> merge_headers(headers, {"openai-beta": "assistants=v1"})
    >>> headers
    {'OpenAI-Beta': 'assistants=v1'}
    """
    names = {name.lower(): name for name in headers}
    for name, value in extra.items():
        headers[names.setdefault(name.lower(), name)] = value


def encode_query(values: Mapping[str, QueryValue]) -> str:
    """Return the query string; None is left out.

    Raises:
        ConfigError: A value holds half of a surrogate pair.

    >>> encode_query({"limit": 2, "after": None, "include": ["a[*]"]})
    'limit=2&include%5B%5D=a%5B%2A%5D'
    """
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, (str, int, float)):
            pairs.append((name, _query_text(value)))
        else:
            pairs.extend((f"{name}[]", item) for item in value)
    try:
        return urlencode(pairs) if pairs else ""
    except UnicodeEncodeError:
        raise _unsendable(values) from None


def _query_text(value: str | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def encode_body(values: Mapping[str, Any]) -> bytes:
    """Return the JSON text of a body; Structs inside it are written as they are on the wire.

    Raises:
        TypeError: A value cannot be written as JSON.
        ConfigError: A text holds half of a surrogate pair.
    """
    try:
        return msgspec.json.encode(values)
    except UnicodeEncodeError:
        raise _unsendable(values) from None


def check_text(name: str, value: object) -> None:
    """Raise if the value, or one within it, is a text that cannot be sent.

    Args:
        name: The argument's, for the error.
        value: Whatever can be written as JSON.

    Raises:
        ConfigError: A text holds half of a surrogate pair.
    """
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        raise _unsendable({name: value}) from None


def _unsendable(values: Mapping[str, Any]) -> ConfigError:
    """Return the error for values of which a text cannot be encoded; it names the first."""
    where, half = next(_halves("", msgspec.to_builtins(values)), ("a text", "?"))
    message = (
        f"{where} holds half of a surrogate pair ({half!a}), which cannot be sent; "
        "text.encode('utf-8', 'replace').decode() replaces it"
    )
    return ConfigError(message)


def _halves(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield where each half of a surrogate pair is in the value."""
    if isinstance(value, str):
        found = _HALF.search(value)
        if found is not None:
            yield where, found[0]
    elif isinstance(value, dict):
        for name, part in value.items():
            shown = name.encode("utf-8", "backslashreplace").decode()
            inside = f"{where}.{shown}" if where else shown
            yield from ((f"a name in {where or 'the body'}", half) for _, half in _halves("", name))
            yield from _halves(inside, part)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _halves(f"{where}[{number}]", part)
