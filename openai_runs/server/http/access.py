"""Who may send requests: this machine only where there is no key, else the holders of the key.

Each check is a plain function that raises the refusal; `answering` calls them before all else.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeAlias

from aiohttp import web

from openai_runs._protocol.hosts import is_loopback_authority, is_loopback_origin
from openai_runs.server.api_errors import foreign, unauthorized
from openai_runs.server.http.request_parsing import presented_key

__all__ = ["Check", "check_local", "checking_key"]

Check: TypeAlias = Callable[[web.Request], None]

_KNOWN_HOSTS: Final = 64
"""Values of such a header that are remembered; clients send the same ones all the time."""
_LOCAL: Final[tuple[tuple[str, list[str], Callable[[str], bool]], ...]] = (
    ("Host", [""], lru_cache(_KNOWN_HOSTS)(is_loopback_authority)),
    ("Origin", [], lru_cache(_KNOWN_HOSTS)(is_loopback_origin)),
)
"""Header, what stands for it where it is missing, and whether its value is this machine."""


def check_local(request: web.Request) -> None:
    """Let only requests to and from this machine in.

    A page whose name was rebound to 127.0.0.1 sends that name as `Host`; a page of another
    site that posts across, which needs no preflight for `text/plain`, sends its `Origin`.

    Raises:
        Refusal: A header names another host.
    """
    for name, missing, is_ours in _LOCAL:
        for value in request.headers.getall(name, missing):
            if not is_ours(value):
                raise foreign(name, value)


def checking_key(api_key: str, is_public: Callable[[web.Request], bool]) -> Check:
    """Return the check that lets only the holders of the key in, but for what is public."""
    expected = api_key.encode()

    def check_key(request: web.Request) -> None:
        if is_public(request):
            return
        presented = presented_key(request.headers)
        sent = presented.encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(sent, expected):
            raise unauthorized(presented)

    return check_key
