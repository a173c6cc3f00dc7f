"""A request as tests look at it, without credentials: a failing test may print it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

import msgspec

__all__ = ["ReceivedRequest", "decoded", "without_credentials"]

_CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization", "api-key", "cookie"})


class ReceivedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request as the server received it."""

    method: str
    path: str
    """Below `/v1`, such as `/threads/thread_1/runs`."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case; without credentials."""
    json: Any
    """The decoded body; None if it was empty or no JSON."""

    def matches(self, method: str | None, path: str | None) -> bool:
        """Return whether this is such a request.

        Args:
            method: Such as `GET`; None: any.
            path: As in `Which`; None: any.
        """
        if method is not None and method.upper() != self.method:
            return False
        return path is None or PurePosixPath(self.path).match(path)


def without_credentials(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers that may be shown, their names in lower case."""
    named = {name.lower(): value for name, value in headers}
    return {name: value for name, value in named.items() if name not in _CREDENTIALS}


def decoded(body: bytes) -> Any:
    """Return what the JSON says; None if it is none."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
