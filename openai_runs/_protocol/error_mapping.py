"""Error mapping: an HTTP error answer as one of our exceptions.

Servers of this protocol write their errors in many forms, which
docs/pages/explain/protocol.md lists; all of them are parsed here to the same few facts. The API
gives errors about runs no code of their own, so they are recognized by their text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from openai_runs._protocol.advice.answers import Rejected, advice_for
from openai_runs._protocol.advice.pages import is_page, page_text
from openai_runs._protocol.hosts import is_azure_openai_host, is_vendor_host
from openai_runs._protocol.json_repair import read_json
from openai_runs._protocol.lifecycle import needs_no_cancel
from openai_runs._protocol.masking import mask, mask_value, widest
from openai_runs.errors import (
    ActiveRunError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UnprocessableEntityError,
)
from openai_runs.types.http import request_id_of

__all__ = [
    "blocking_run_id",
    "ended_status",
    "error_facts",
    "excerpt",
    "masked_json",
    "status_error",
    "value_facts",
]

_CLASSES: Final[dict[int, type[APIStatusError]]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}
# Patterns of rare paths are compiled where they are first needed, and kept by `re`.
_THREAD_IS_BUSY: Final = r"Thread \S+ already has an active run (?P<run>[\w\-]+)"
_NO_MESSAGE_NOW: Final = r"Can't add messages to \S+ while a run (?P<run>[\w\-]+) is active"
_NO_CANCEL: Final = r"(?i)cannot cancel run with status\W{1,3}(?P<status>\w+)"
_NO_RUN: Final = r"(?i)\bno (?:run|thread) found\b"
_MAX_MESSAGE_CHARS: Final = 500
_MAX_ERROR_BYTES: Final = 2**20
"""Bytes of an error body that are read: masking keys in more would block the event loop."""
_MAX_ERRORS: Final = 8
"""Items of a list of errors that are read."""
_MAX_PAGE_BYTES: Final = 4096
_MAX_TITLE_CHARS: Final = 100
_SHUTDOWN: Final = (
    "OpenAI switched the Assistants endpoints off on 2026-08-26; point base_url at a server that "
    "still speaks the protocol, or use AsyncClient.local()"
)
_AZURE_SHUTDOWN: Final = (
    "Azure OpenAI switched the Assistants endpoints off on 2026-08-26; use AsyncClient.azure() "
    "with a project of Azure AI Foundry (classic), a server that still speaks the protocol, or "
    "AsyncClient.local()"
)


def status_error(
    status: int,
    headers: Mapping[str, str],
    content: bytes,
    *,
    host: str = "",
    base_url: str = "",
    path: str = "",
    secrets: Collection[str] = (),
) -> APIStatusError:
    """Return the exception for an error answer.

    Args:
        status: HTTP status, 300 or above.
        headers: By case-insensitive or lower-case name.
        content: The body, of any kind.
        host: The server's; a 404 of the vendor and of Azure OpenAI is explained.
        base_url: The client's, of which the advice says what is wrong; empty: it says nothing.
        path: That of the request, below the base URL.
        secrets: Credentials of the request, masked in the error.
    """
    headers = {name.lower(): mask(value, secrets) for name, value in headers.items()}
    content = content[:_MAX_ERROR_BYTES]
    body = masked_json(content, secrets)
    facts = _bounded_facts(body)
    said = excerpt(content, secrets=secrets)
    words = _page_message(content, secrets) if is_page(content) else said
    message = facts.get("message") or words or "no error text"
    blocking = blocking_run_id(message) if status == 400 else None
    error = _class_of(status, blocking)(
        _explained(message, status, headers, host),
        status_code=status,
        code=facts.get("code"),
        param=facts.get("param"),
        type=facts.get("type"),
        request_id=request_id_of(headers),
        body=body if body is not None else said,
        headers=headers,
    )
    if isinstance(error, ActiveRunError):
        error.blocking_run_id = blocking
        error.advice = "wait for that run, or pass on_active_run='wait' or 'cancel'"
    elif base_url and not _is_switched_off(status, host):
        code, target = facts.get("code", ""), _target(headers)
        error.advice = advice_for(
            Rejected(status, message, code, content, target, base_url, path, bool(secrets))
        )
    return error


def _class_of(status: int, blocking: str | None) -> type[APIStatusError]:
    if blocking is not None:
        return ActiveRunError
    return InternalServerError if status >= 500 else _CLASSES.get(status, APIStatusError)


def _is_switched_off(status: int, host: str) -> bool:
    return status == 404 and (is_vendor_host(host) or is_azure_openai_host(host))


def _explained(message: str, status: int, headers: Mapping[str, str], host: str) -> str:
    """Return what happened, where the server's own words do not say it."""
    if 300 <= status < 400:
        return _redirect_text(headers)
    if _is_switched_off(status, host):
        return f"{message}; {_SHUTDOWN if is_vendor_host(host) else _AZURE_SHUTDOWN}"
    return message


def _page_message(content: bytes, secrets: Collection[str]) -> str:
    """Return the title of a web page, and that it is one."""
    page = excerpt(content[:_MAX_PAGE_BYTES], _MAX_PAGE_BYTES, secrets=secrets)
    title = _one_line(page_text(page))[:_MAX_TITLE_CHARS]
    return f"a web page in place of an answer of the API: {title!r}"


def error_facts(content: bytes, secrets: Collection[str] = ()) -> dict[str, str]:
    """Return what an error body says: message, code, param and type, as far as it has them.

    None of them repeats a secret.

    >>> error_facts(b'{"detail": [{"msg": "field required"}]}')
    {'message': 'field required'}
    """
    return _bounded_facts(masked_json(content, secrets))


def value_facts(value: Any, secrets: Collection[str] = ()) -> dict[str, str]:
    """Return what an error says that is a JSON value already; see `error_facts`."""
    try:
        return _facts(mask_value(value, secrets))
    except RecursionError:  # a hostile body
        return {}


def blocking_run_id(message: str) -> str | None:
    """Return the id of the active run that an error text names.

    >>> blocking_run_id("Thread thread_1 already has an active run run_2.")
    'run_2'
    """
    found = re.search(_THREAD_IS_BUSY, message) or re.search(_NO_MESSAGE_NOW, message)
    return None if found is None else found["run"]


def ended_status(rejection: APIStatusError) -> str | None:
    """Return the status of the run that a rejected cancel names; None where it may go on.

    >>> text = "Cannot cancel run with status 'completed'."
    >>> ended_status(APIStatusError(text, status_code=400))
    'completed'
    """
    if rejection.status_code == 404:
        return "deleted" if re.search(_NO_RUN, rejection.message) else None
    found = re.search(_NO_CANCEL, rejection.message)
    return found["status"] if found is not None and needs_no_cancel(found["status"]) else None


def excerpt(content: bytes, limit: int = 200, *, secrets: Collection[str] = ()) -> str:
    """Return the beginning of a body on one line, with each secret and key masked."""
    margin = widest(secrets)  # a secret that is cut in two is not masked
    seen = content[: limit * 4 + 2 * margin]
    text = mask(seen.decode("utf-8", "replace"), secrets)
    if len(seen) < len(content) and margin:
        text = text[:-margin]
    return _one_line(text[: limit * 4])[:limit]


def masked_json(content: bytes, secrets: Collection[str]) -> Any:
    """Return the JSON value without the secrets; None if there is none."""
    try:
        return mask_value(read_json(content), secrets) if content else None
    except RecursionError:
        return None


def _bounded_facts(body: Any) -> dict[str, str]:
    try:
        return _facts(body)
    except RecursionError:  # a hostile body
        return {}


def _facts(body: Any) -> dict[str, str]:
    """Return message, code, param and type, from whichever form the server uses."""
    if isinstance(body, str):
        inner = read_json(body.encode("utf-8", "replace"))  # encoded twice
        return _facts(inner) if isinstance(inner, dict) else {"message": _text(body)}
    if isinstance(body, list):  # Google wraps its errors in one
        items = (item for item in body[:_MAX_ERRORS] if isinstance(item, dict))
        return next(filter(None, map(_facts, items)), {})
    if not isinstance(body, dict):
        return {}
    error = body.get("error", body.get("errors", body))
    if isinstance(error, str) or (isinstance(error, list) and _holds_objects(error)):
        error = {**body, "message": error}
    elif not isinstance(error, dict):
        error = body
    if "message" not in error and "detail" in error:  # FastAPI
        error = {**error, "message": error["detail"]}
    facts = {name: _text(error.get(name)) for name in ("message", "code", "param", "type")}
    return {name: text for name, text in facts.items() if text}


def _holds_objects(items: list[Any]) -> bool:
    return any(isinstance(item, dict) for item in items[:_MAX_ERRORS])


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        text = "; ".join(_text(item) for item in value)
    elif isinstance(value, dict):
        text = _text(value.get("msg") or value.get("message")) or _json(value)
    else:
        text = str(value)
    return _one_line(text[: _MAX_MESSAGE_CHARS * 4])[:_MAX_MESSAGE_CHARS]


def _one_line(text: str) -> str:
    printable = "".join(one if one.isprintable() else " " for one in text)
    return " ".join(printable.split())


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _redirect_text(headers: Mapping[str, str]) -> str:
    return f"the server redirects to {_target(headers)!r}, and redirects are never followed"


def _target(headers: Mapping[str, str]) -> str:
    return headers.get("location", "").partition("?")[0][:200]  # the query may hold a key
