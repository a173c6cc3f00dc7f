"""Parsing a request: its body, its query, its headers. Refuses what cannot be parsed.

What may not live here: anything that depends on what is stored.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.lowlevel
import msgspec
from aiohttp import web

from openai_runs.config import MAX_HOLD, MAX_JSON_DEPTH
from openai_runs.server.api_errors import Refusal, invalid, several_keys, too_large
from openai_runs.server.http import foreign_requests
from openai_runs.server.http.decompression import broken, content_encoding, inflate
from openai_runs.server.store import Once, PageQuery, Position
from openai_runs.types.base import ADOPTION_KEY

if TYPE_CHECKING:
    from multidict import MultiMapping

__all__ = [
    "decode_body",
    "is_left_unread",
    "last_event",
    "once_for",
    "page_query",
    "preferred_wait",
    "presented_key",
    "read_body",
]

B = TypeVar("B")

MAX_LIMIT: Final = 100
"""Items of a page at most (OpenAPI: listRuns, `limit`)."""
MAX_KEY_CHARS: Final = 255
"""Characters of an `Idempotency-Key`; Stripe: 255."""

_SKIPPED_BYTES: Final = 64 * 1024
"""Bytes of a body nobody wants that are skipped, to keep the connection."""
_TEXT: Final = web.RequestKey("text", bytes)
"""The text of a compressed body."""

_NO_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_PATH: Final = re.compile(r" - at `(?:key` in `)?\$\.?(?P<path>[^`]*)`\Z")
_FIELD: Final = re.compile(r"\AObject (missing required|contains unknown) field `([^`]*)`")
_STRING: Final = re.compile(rb'(?s)"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)')
"""A string, or the rest of the text where none ends: so each byte is read once."""
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""One level down, and one up, as signed bytes."""
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_NUMBER: Final = re.compile(r"[0-9]{1,9}\Z")
_EVENT_ID: Final = re.compile(r"([0-9]{1,15})-([0-9]{1,15})\Z")


async def read_body(request: web.Request, max_bytes: int, timeout: float) -> bytes:
    """Return the body, of at most `max_bytes`, if it comes within `timeout` seconds.

    Raises:
        Refusal: It is too large, takes too long to come, is compressed in an unknown
            way, or cannot be decompressed.
    """
    if not request.body_exists:
        return b""
    if _TEXT in request:
        return request[_TEXT]
    encoding = content_encoding(request.headers.getall("content-encoding", ()))
    declared = request.content_length
    if declared is not None and declared > max_bytes:
        raise too_large(max_bytes)
    try:
        if request.content.is_eof():  # it came with its headers
            text = await request.read()
        else:
            with anyio.fail_after(timeout):
                text = await _received(request, max_bytes)
    except web.HTTPRequestEntityTooLarge:
        raise too_large(max_bytes) from None
    except web.RequestPayloadError as error:  # badly compressed, badly chunked
        raise broken() from error
    except TimeoutError:
        message = "The request body took too long to arrive."
        raise Refusal(message, status_code=408) from None
    if encoding is None:
        return text
    if not is_inflated(request):
        text = await inflate(text, encoding, max_bytes)
    # aiohttp's own place for it, so that middlewares read the same text.
    request._read_bytes = request[_TEXT] = text
    return text


async def _received(request: web.Request, max_bytes: int) -> bytes:
    if not is_inflated(request):
        # aiohttp's own reading: bounded by client_max_size, and kept for middlewares.
        return await request.read()
    # The same in small steps: aiohttp's own inflates up to `client_max_size` in one.
    text = bytearray()
    while piece := await request.content.readany():
        text += piece
        if len(text) > max_bytes:
            raise too_large(max_bytes)
        await anyio.lowlevel.checkpoint()
    request._read_bytes = bytes(text)
    return request._read_bytes


def is_inflated(request: web.Request) -> bool:
    """Return whether the runner inflates the body, as `LocalServer`'s does not."""
    return request.content.total_compressed_bytes is not None


def is_left_unread(request: web.Request) -> bool:
    """Return whether so much of the body is to come that it should not even be skipped.

    aiohttp skips what is left of a body for up to ten seconds, and inflates it on the way.
    """
    if request.content.is_eof():
        return False
    declared = request.content_length
    return declared is None or declared > _SKIPPED_BYTES or is_inflated(request)


def decode_body(kind: type[B], text: bytes) -> B:
    """Return the body as the Struct of its operation; an empty one is an empty object.

    Raises:
        Refusal: It is no JSON, is nested too deeply, or does not fit; `param` names the field.
    """
    _check_depth(text)
    try:
        return msgspec.json.decode(text or b"{}", type=kind)
    except msgspec.ValidationError as error:
        refusal = _misfit(str(error))
        if not foreign_requests.may_be_empty(kind, refusal.param):
            raise foreign_requests.explain(kind, refusal) from None
    except _NO_JSON as error:
        raise _no_json(error) from None
    return decode_body(kind, _without_empty(text))


def _without_empty(text: bytes) -> bytes:
    try:
        body = msgspec.json.decode(text)
    except _NO_JSON as error:  # further on in the text
        raise _no_json(error) from None
    return msgspec.json.encode(foreign_requests.drop_empty(body))


def _check_depth(text: bytes) -> None:
    """Refuse a body that some encoder or decoder could not follow to its end.

    >>> _check_depth(b"[" * 128 + b"]" * 128)

    Raises:
        Refusal: It is nested more deeply than `MAX_JSON_DEPTH`.
    """
    if text.count(b"{") + text.count(b"[") <= MAX_JSON_DEPTH:
        return
    steps = memoryview(_STRING.sub(b"", text).translate(_STEPS, _NO_BRACKETS)).cast("b")
    if max(accumulate(steps), default=0) > MAX_JSON_DEPTH:
        raise _no_json(RecursionError())


def _no_json(error: Exception) -> Refusal:
    problem = str(error)
    if isinstance(error, RecursionError):
        problem = f"it is nested too deeply, at most {MAX_JSON_DEPTH} levels are read"
    return invalid(f"We could not parse the JSON body of your request: {problem}.")


def _misfit(problem: str) -> Refusal:
    """Return the refusal for what msgspec found.

    >>> _misfit("Expected `str`, got `int` - at `$.tools[0].type`").param
    'tools[0].type'
    """
    at = _PATH.search(problem)
    path = at["path"].replace("[...]", "") if at else ""
    found = problem[: at.start()] if at else problem
    field = _FIELD.match(found)
    if field is not None:
        path = f"{path}.{field[2]}" if path else field[2]
        what = "Missing required" if field[1] == "missing required" else "Unknown"
        return invalid(f"{what} parameter: '{path}'.", path)
    if not path:
        return invalid(f"Invalid request body: {_lowered(found)}.")
    return invalid(f"Invalid '{path}': {_lowered(found)}.", path)


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def page_query(query: Mapping[str, str]) -> PageQuery:
    """Return which page is asked for.

    Raises:
        Refusal: `limit` or `order` makes no sense.
    """
    order = query.get("order", "desc")
    if order not in {"asc", "desc"}:
        message = "Invalid 'order': expected 'asc' or 'desc'."
        raise invalid(message, "order")
    limit = query.get("limit", "20")
    if not (_NUMBER.match(limit) and 1 <= int(limit) <= MAX_LIMIT):
        message = f"Invalid 'limit': expected an integer from 1 to {MAX_LIMIT}."
        raise invalid(message, "limit")
    return PageQuery(
        limit=int(limit),
        ascending=order == "asc",
        after=query.get("after") or None,
        before=query.get("before") or None,
    )


def preferred_wait(headers: Iterable[str]) -> int | None:
    """Return the seconds of `Prefer: wait=N`, at most `MAX_HOLD`; junk is ignored.

    >>> preferred_wait(['respond-async, WAIT="100"; x=1', "wait=5"])
    60

    Source: RFC 7240, section 2 (the first one counts) and 4.3.
    """
    for header in headers:
        for preference in header.split(","):
            name, _, value = preference.partition(";")[0].partition("=")
            seconds = value.strip().removeprefix('"').removesuffix('"').strip()
            if name.strip().lower() == "wait" and _NUMBER.match(seconds):
                return min(int(seconds), int(MAX_HOLD))
    return None


def last_event(headers: Mapping[str, str]) -> Position | None:
    """Return the place that `Last-Event-ID` names; None if it is missing or empty.

    >>> last_event({"last-event-id": "1-12"})
    Position(epoch=1, seq=12)

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.4.

    Raises:
        Refusal: It is no id of ours.
    """
    sent = headers.get("last-event-id", "").strip()
    if not sent:
        return None
    found = _EVENT_ID.match(sent)
    if found is None:
        message = "Invalid 'Last-Event-ID': expected the id of an event, such as '1-12'."
        raise invalid(message, "Last-Event-ID")
    return Position(int(found[1]), int(found[2]))


def presented_key(headers: MultiMapping[str]) -> str:
    """Return the API key the request carries, or an empty text.

    Nothing but the space and the tab is blank in a header (RFC 9110, sections 5.6.3 and 11.4).

    Raises:
        Refusal: It carries several, so that another reader could take another one.
    """
    sent = headers.getall("authorization", ()) or ("",)
    scheme, _, key = sent[0].partition(" ")
    if scheme.lower() == "bearer":
        found = key.strip(" \t")
    else:
        sent = headers.getall("api-key", ()) or ("",)
        found = sent[0]
    if len(sent) > 1:
        raise several_keys()
    return found


def once_for(request: web.Request, text: bytes, now: int) -> Once | None:
    """Return the request's `Idempotency-Key` with what it stands for.

    Raises:
        Refusal: The key is too long, or no plain text, or the body is nested too deeply.
    """
    key = request.headers.get("idempotency-key")
    if not key:
        return None
    if len(key) > MAX_KEY_CHARS or not (key.isascii() and key.isprintable()):
        message = (
            f"Invalid 'Idempotency-Key': expected at most {MAX_KEY_CHARS} printable characters."
        )
        raise invalid(
            message,
            "Idempotency-Key",
        )
    digest = hashlib.sha256(f"{request.method} {request.path}\n".encode("utf-8", "replace"))
    digest.update(_canonical(text))
    return Once(key=key, fingerprint=digest.digest(), at=now)


def _canonical(text: bytes) -> bytes:
    """Return the body in one form, so that the order of keys makes no other request of it.

    Nor does the mark our client puts on a create until it knows that keys are remembered here.
    """
    _check_depth(text)
    try:
        body: Any = msgspec.json.decode(text or b"{}")
    except _NO_JSON:  # of an operation that reads no body
        return text
    metadata = body.get("metadata") if isinstance(body, dict) else None
    if isinstance(metadata, dict) and metadata.pop(ADOPTION_KEY, None) and not metadata:
        del body["metadata"]
    return msgspec.json.encode(body, order="sorted")
