"""What to do next where the answer is an error: of this API, of a proxy, or of another service."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from openai_runs._protocol.advice.pages import is_page

__all__ = ["Rejected", "advice_for", "page_advice"]

_NO_PATH: Final = r"(?i)(?:404\W*)?(?:page )?not found\W*\Z|method not allowed\W*\Z"
"""What servers say that do not know a path, and know nothing of objects."""
_SEEN: Final = r"\A\s*Invalid URL \([A-Z]+ (?P<path>/[^\s)]*)\)"
"""How servers of this API name the path that they do not have."""
_WANTS_TLS: Final = r"(?i)http request (?:was sent )?to (?:an )?https (?:server|port)"
_GATEWAYS: Final = frozenset({502, 503, 504})
_MODEL_COMMAND: Final = "openai-runs serve --model-url"
_PROXY: Final = "http://USER:PASSWORD@HOST:PORT"


class Rejected(NamedTuple):
    """An error answer, and the request that it answers."""

    status: int
    message: str
    """In the server's words."""
    code: str
    content: bytes
    location: str
    """Where a redirect leads."""
    base_url: str
    path: str
    """Of the request, below the base URL."""
    has_key: bool
    """Whether a key was sent."""


def advice_for(rejected: Rejected) -> str:
    """Return what to do next; empty where there is nothing to say.

    >>> gone = "Invalid URL (POST /threads)"
    >>> to = ("http://127.0.0.1:8080", "/threads", False)
    >>> advice_for(Rejected(404, gone, "unknown_url", b"{}", "", *to))
    "is the path /v1 missing? Try base_url='http://127.0.0.1:8080/v1'"
    """
    if re.search(_WANTS_TLS, rejected.message) or _adds_tls(rejected):
        return "write https:// in base_url"
    match rejected.status:
        case 401:
            sent = "is api_key= or OPENAI_API_KEY the key of this server?"
            return sent if rejected.has_key else "pass api_key= or set OPENAI_API_KEY"
        case 404 | 405:
            return _unknown_path(rejected)
        case 407:
            return f"the proxy wants credentials in its URL: {_PROXY}"
        case status if 300 <= status < 400:
            return _redirected(rejected)
        case status if status in _GATEWAYS and is_page(rejected.content):
            return "a proxy answers: is the server behind it running?"
    return page_advice(rejected.base_url) if is_page(rejected.content) else ""


def page_advice(base_url: str) -> str:
    """Return what to do where a web page came in place of an answer of the API."""
    missing = _missing_prefix(base_url)
    return missing or f"another service answers there: is base_url={base_url!r} right?"


def _unknown_path(rejected: Rejected) -> str:
    seen = re.match(_SEEN, rejected.message)
    if rejected.code == "unknown_url":
        return _right_prefix(rejected, "" if seen is None else seen["path"])
    if is_page(rejected.content):
        return page_advice(rejected.base_url)
    if re.match(_NO_PATH, rejected.message) is None:
        return ""
    asked = f"is it a model's endpoint? `{_MODEL_COMMAND} {rejected.base_url}` serves this API"
    return _missing_prefix(rejected.base_url) or asked


def _missing_prefix(base_url: str) -> str:
    """Return the URL to try where this one has no path at all."""
    if urlsplit(base_url).path.strip("/"):
        return ""
    return f"is the path /v1 missing? Try base_url='{base_url}/v1'"


def _right_prefix(rejected: Rejected, seen: str) -> str:
    """Return the URL to try before a server of this API, by the path that it has seen."""
    prefix = seen.removesuffix(rejected.path) if seen.endswith(rejected.path) else ""
    right = f"{rejected.base_url.removesuffix(prefix)}/v1"
    if right == rejected.base_url:
        return ""
    is_missing = "v1" not in urlsplit(rejected.base_url).path.split("/")
    is_asked = is_missing and "/v1 missing?" not in rejected.message
    return (
        f"is the path /v1 missing? Try base_url={right!r}"
        if is_asked
        else f"try base_url={right!r}"
    )


def _redirected(rejected: Rejected) -> str:
    target = rejected.location
    if urlsplit(target).scheme and target.endswith(rejected.path):
        return f"if you trust it, set base_url={target.removesuffix(rejected.path)!r}"
    return "set base_url to the address it names if you trust it"


def _adds_tls(rejected: Rejected) -> bool:
    """Return whether this is a redirect to the same place in TLS."""
    here = f"{rejected.base_url}{rejected.path}"
    return here.startswith("http:") and rejected.location == f"https{here.removeprefix('http')}"
