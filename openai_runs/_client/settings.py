"""The settings of a client: addresses, credentials, defaults. Checked once, then frozen."""

from __future__ import annotations

import asyncio
import inspect
import platform
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from os import urandom
from random import random
from typing import Any, Final, NoReturn, Protocol, SupportsIndex
from urllib.parse import urlsplit

import anyio
import msgspec

from openai_runs._aio import is_cancelled
from openai_runs._protocol.hosts import is_loopback, is_vendor_host
from openai_runs._protocol.spec import check_header, merge_headers
from openai_runs._tracing import ClientTracing
from openai_runs.config import (
    ASSISTANTS_VERSION,
    CANCEL_GRACE,
    MAX_STREAM_BYTES,
    REQUEST_TIMEOUT,
    VERSION,
    PollPolicy,
    RetryPolicy,
    check_count,
)
from openai_runs.errors import APIConnectionError, APITimeoutError, ConfigError

__all__ = [
    "AsyncCredential",
    "Credential",
    "Runtime",
    "Settings",
    "check_base_url",
    "no_base_url",
]

AZURE_SCOPE: Final = "https://ai.azure.com/.default"
"""The scope of a token for Azure AI Foundry."""
_TLS_ONLY: Final = (".openai.com", ".azure.com", ".azure.us", ".azure.cn")


class AccessToken(Protocol):
    """What an Azure credential returns."""

    @property
    def token(self) -> str:
        """Return the bearer token."""
        ...


class AsyncCredential(Protocol):
    """A credential of `azure.identity.aio`; it keeps and renews its tokens itself."""

    async def get_token(self, *scopes: str) -> AccessToken:
        """Return a token that is valid now."""
        ...


Credential = str | Callable[[], str | Awaitable[str]] | AsyncCredential
"""A key, a callable called before each request, or an Azure credential."""


class _Secret(str):
    """A key that no `repr` shows, such as that of a traceback's local variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, part: SupportsIndex | slice) -> str:
        return _Secret(super().__getitem__(part))


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """What tests replace: sleep, clocks, random numbers, new keys and the one fixed timeout."""

    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    monotonic: Callable[[], float] = time.monotonic
    """Seconds that only go forward; every deadline is measured with it."""
    wall: Callable[[], float] = time.time
    """Unix seconds; only for a `Retry-After` date of a server that sends no `Date`."""
    chance: Callable[[], float] = random
    """A number from 0 to 1, for jitter."""
    new_key: Callable[[], str] = lambda: urandom(16).hex()
    cancel_grace: float = CANCEL_GRACE
    """Seconds of real time by which undoing may delay a cancellation."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a client that can differ between its copies."""

    base_url: str | None
    """Without a slash at the end; None until the embedded server is started."""
    credential: Credential | None = None
    key_header: str | None = None
    """Header for a plain key where it is not `Authorization: Bearer` (Azure: `api-key`)."""
    organization: str | None = None
    project: str | None = None
    request_timeout: float = REQUEST_TIMEOUT
    max_stream_bytes: int = MAX_STREAM_BYTES
    retry: RetryPolicy = RetryPolicy()
    poll: PollPolicy = PollPolicy()
    default_headers: Mapping[str, str] = {}
    default_query: Mapping[str, Any] = {}
    assistants_version: str = ASSISTANTS_VERSION
    runtime: Runtime = Runtime()
    tracing: ClientTracing | None = None
    """What makes spans; None: nothing does."""

    def __post_init__(self) -> None:
        """Reject what cannot be sent."""
        check_count("max_stream_bytes", self.max_stream_bytes)
        for name, value in self.default_headers.items():
            check_header(name, value)
        for policy, kind in ((self.retry, RetryPolicy), (self.poll, PollPolicy)):
            if not isinstance(policy, kind):
                msg = f"expected a {kind.__name__}, got {policy!r}"
                raise TypeError(msg)
        if self.tracing is not None and not isinstance(self.tracing, ClientTracing):
            msg = f"tracing must be an openai_runs.otel.Tracing, got {self.tracing!r}"
            raise TypeError(msg)
        for name, text in (
            ("OpenAI-Organization", self.organization),
            ("OpenAI-Project", self.project),
            ("OpenAI-Beta", self.assistants_version),
        ):
            if text is not None:
                check_header(name, text)
        if isinstance(self.credential, str):
            if self.credential != self.credential.strip():
                msg = (
                    "api_key begins or ends with blanks, which no header can hold; use its .strip()"
                )
                raise ConfigError(msg)
            check_header(self.key_header or "Authorization", self.credential)
            if not self.credential:
                msg = "api_key must not be empty; api_key=None sends no key"
                raise ConfigError(msg)
            msgspec.structs.force_setattr(self, "credential", _Secret(self.credential))

    def __repr__(self) -> str:
        """Show no credential and no header value."""
        return f"Settings(base_url={self.base_url!r}, retry={self.retry!r}, poll={self.poll!r})"

    def __reduce__(self) -> NoReturn:
        """Raise: a client cannot be pickled, and its key stays in this process."""
        msg = "a client cannot be pickled; make a new one where it is needed"
        raise TypeError(msg)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show rich's tracebacks no more than `repr` does; msgspec's own shows all."""
        return [("base_url", self.base_url), ("retry", self.retry), ("poll", self.poll)]

    def headers(self) -> dict[str, str]:
        """Return the headers of all requests, without the credentials."""
        headers = {**_fixed_headers(), "OpenAI-Beta": f"assistants={self.assistants_version}"}
        if self.organization is not None:
            headers["OpenAI-Organization"] = self.organization
        if self.project is not None:
            headers["OpenAI-Project"] = self.project
        merge_headers(headers, self.default_headers)
        return headers

    @property
    def has_dynamic_credentials(self) -> bool:
        """Return whether a callable or a credential provides the key, once for each request."""
        return not (self.credential is None or isinstance(self.credential, str))

    def known_credentials(self) -> dict[str, str]:
        """Return the headers of a fixed key; none without one."""
        source = self.credential
        if not isinstance(source, str):
            return {}
        if self.key_header is not None:
            return {self.key_header: _Secret(source)}
        return {"Authorization": _Secret(f"Bearer {source}")}

    async def credentials(self) -> dict[str, str]:
        """Return the headers with the credentials; a callable is called each time."""
        source = self.credential
        if source is None or isinstance(source, str):
            return self.known_credentials()
        if callable(source):
            found = source()
            key = await found if inspect.isawaitable(found) else found
        else:
            key = (await source.get_token(AZURE_SCOPE)).token
        if not isinstance(key, str) or not key:
            msg = f"api_key must give a non-empty string, got {type(key).__name__}"
            raise ConfigError(msg)
        check_header("Authorization", key)
        return {"Authorization": _Secret(f"Bearer {key}")}

    async def credentials_within(self, timeout: float) -> dict[str, str]:
        """Return `credentials()` within `timeout` seconds.

        Raises:
            APITimeoutError: It took longer; nothing was sent.
            APIConnectionError: What it awaited was cancelled, though this call is not.
        """
        try:
            with anyio.move_on_after(timeout):
                return await self.credentials()
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            what = "the callable that gives the key awaited something that was cancelled"
            raise APIConnectionError(what, sent=False) from None
        what = f"the callable that gives the key took longer than {timeout:.3g} s"
        error = APITimeoutError(what, sent=False)
        error.retryable = False  # calling the same callable again would hang again
        raise error


def check_base_url(text: str) -> str:
    """Return `text` as a base URL without a slash at the end.

    Raises:
        ConfigError: It is no absolute http(s) URL, carries credentials, a query or a
            fragment, or would send a key to the vendor or to Azure in the clear.
    """
    try:
        parts = urlsplit(text)
        host, _ = (parts.hostname or "").lower().rstrip("."), parts.port
        secrets = parts.username is not None or parts.password is not None
    except (ValueError, AttributeError, TypeError):
        msg = "base_url is no URL"
        raise ConfigError(msg) from None
    if secrets:
        msg = "base_url must not carry credentials; use api_key or default_headers"
        raise ConfigError(msg)
    shown = text.partition("?")[0].partition("#")[0]  # what follows may hold a key
    if parts.scheme not in {"http", "https"} or not host:
        msg = f"base_url must begin with http:// or https:// and name a host, got {shown!r}"
        raise ConfigError(msg)
    if "?" in text or "#" in text:
        msg = f"base_url must end before the query, after {shown!r}; use default_query"
        raise ConfigError(msg)
    if not text.isascii() or any(c.isspace() or not c.isprintable() or c == "\\" for c in text):
        msg = f"base_url {text!r} holds a character that must be encoded"
        raise ConfigError(msg)
    if parts.scheme == "http" and not is_loopback(host):
        if is_vendor_host(host) or host.endswith(_TLS_ONLY):
            msg = f"base_url {text!r} would send the key in the clear; use https://"
            raise ConfigError(msg)
        warnings.warn(
            f"base_url {text!r} is not encrypted: the key and all messages can be read on the way",
            UserWarning,
            stacklevel=_callers_level(),
        )
    return text.rstrip("/")


def no_base_url() -> ConfigError:
    """Return the error of a client without an address."""
    return ConfigError(
        "no base_url was given and OPENAI_BASE_URL is not set. OpenAI switched its own Assistants "
        "endpoints off on 2026-08-26, so there is no default: pass base_url= of a server that "
        "speaks the protocol, use AsyncClient.azure(...) for Azure AI Foundry (classic), or "
        "AsyncClient.local() for the embedded server"
    )


def _callers_level() -> int:
    """Return the `stacklevel` of the first caller outside of this package."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").startswith("openai_runs."):
        frame, level = frame.f_back, level + 1
    return level


@cache
def _fixed_headers() -> dict[str, str]:
    return {
        "Accept": "application/json",
        "User-Agent": f"openai_runs/{VERSION} Python/{platform.python_version()}",
    }
