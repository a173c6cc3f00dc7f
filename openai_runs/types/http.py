"""What is known of the HTTP answer an object came in; built when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Final

import msgspec

__all__ = [
    "HTTPInfo",
    "RateLimit",
]

_MAX_DIGITS: Final = 18
"""Digits of a number that is believed; Python refuses to read more than 4300."""


class RateLimit(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """The `x-ratelimit-*` headers; None where the server sent none."""

    limit_requests: int | None = None
    limit_tokens: int | None = None
    remaining_requests: int | None = None
    remaining_tokens: int | None = None
    reset_requests: str | None = None
    """As sent: a Go duration such as `6m0s`."""
    reset_tokens: str | None = None
    """As sent: a Go duration such as `6m0s`."""

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> RateLimit:
        """Return the limits named in `headers`; values that are no numbers are skipped.

        Args:
            headers: Of an answer, by case-insensitive or lower-case name.
        """

        def number(name: str) -> int | None:
            text = headers.get(f"x-ratelimit-{name}", "")
            plain = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
            return int(text) if plain else None

        return cls(
            limit_requests=number("limit-requests"),
            limit_tokens=number("limit-tokens"),
            remaining_requests=number("remaining-requests"),
            remaining_tokens=number("remaining-tokens"),
            reset_requests=headers.get("x-ratelimit-reset-requests"),
            reset_tokens=headers.get("x-ratelimit-reset-tokens"),
        )


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the id to quote to whoever runs the server; Azure has its own names for it."""
    names = ("x-request-id", "apim-request-id", "x-ms-request-id")
    return next((headers[name] for name in names if headers.get(name)), None)


class HTTPInfo:
    """The HTTP side of one answer."""

    def __init__(
        self, status: int, headers: Mapping[str, str], content: bytes, attempts: int
    ) -> None:
        """Keep references; nothing is parsed here."""
        self.status = status
        """HTTP status."""
        self.headers = headers
        """All headers, by case-insensitive name."""
        self.content = content
        """The body, decompressed, fields that this version does not know included."""
        self.attempts = attempts
        """How often the request was sent; 1 without a retry."""

    @cached_property
    def request_id(self) -> str | None:
        """Return the id to quote to whoever runs the server."""
        return request_id_of(self.headers)

    @cached_property
    def rate_limit(self) -> RateLimit:
        """Return the allowance the server reported with this answer."""
        return RateLimit.from_headers(self.headers)

    def __repr__(self) -> str:
        """Show no header values."""
        return f"HTTPInfo(status={self.status}, request_id={self.request_id!r})"
