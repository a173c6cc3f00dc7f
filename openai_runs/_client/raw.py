"""Requests that have no method: described by the caller, sent like all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openai_runs._client.arguments import CallOptions
from openai_runs._protocol.mending import decoder_for
from openai_runs._protocol.spec import QueryValue, RequestSpec, Retry, encode_body, encode_query

__all__ = ["raw_request"]

_FREE = frozenset({"GET", "HEAD", "DELETE"})


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
        ValueError: The path could lead elsewhere.
    """
    dotted = {".", ".."} & set(path.split("/"))
    if not path.startswith("/") or "?" in path or "#" in path or dotted:
        message = f"path must begin with '/' and hold no query and no dots, got {path!r}"
        raise ValueError(message)
    extra_body = options.get("extra_body")
    if extra_body:
        body = {**(body or {}), **extra_body}
    return RequestSpec(
        operation=f"{method.upper()} {path}",
        method=method.upper(),
        path=path,
        query=encode_query({**query, **(options.get("extra_query") or {})}),
        body=None if body is None else encode_body(body),
        decoder=decoder_for(into),
        retry=Retry.FREELY if method.upper() in _FREE else Retry.GUARDED,
    )
