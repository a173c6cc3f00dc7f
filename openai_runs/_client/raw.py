"""Requests that have no method: described by the caller, sent like all others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from openai_runs._client.arguments import CallOptions
from openai_runs._client.encoding import plain
from openai_runs._protocol.lenient import decoder_for
from openai_runs._protocol.spec import QueryValue, RequestSpec, Retry, encode_body, encode_query

__all__ = ["raw_request"]

_FREE: Final = frozenset({"GET", "DELETE"})
_PATH: Final = r"(?a:(?:/(?:[\w\-.~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*)+\Z)"
"""RFC 3986 section 3.3, absolute."""


def raw_request(
    method: str,
    path: str,
    *,
    query: Mapping[str, QueryValue],
    body: Mapping[str, Any] | None,
    options: CallOptions,
    into: Any,
) -> RequestSpec[Any]:
    """Return the request; what creates or changes something is guarded as in the table.

    Raises:
        ValueError: The path could lead elsewhere, or the method is no word.
    """
    if not re.match(_PATH, path) or {".", ".."} & set(unquote(path).split("/")):
        message = f"path must begin with '/', be quoted, and hold no query or dots, got {path!r}"
        raise ValueError(message)
    if not (method.isascii() and method.isalpha()):
        message = f"method must be a word such as 'GET', got {method!r}"
        raise ValueError(message)
    extra_body = options.get("extra_body")
    if extra_body:
        body = {**(body or {}), **extra_body}
    return RequestSpec(
        operation=f"{method.upper()} {path}",
        method=method.upper(),
        path=path,
        query=encode_query({**query, **(options.get("extra_query") or {})}),
        body=None if body is None else encode_body(plain(body)),
        decode=decoder_for(into).decode,
        retry=Retry.FREELY if method.upper() in _FREE else Retry.GUARDED,
    )
