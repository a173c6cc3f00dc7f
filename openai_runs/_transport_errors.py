"""aiohttp's exceptions, and the system's, in words: what happened, and why.

For the transport alone. Nothing that is said holds a secret of the request.
"""

from __future__ import annotations

import os
import socket
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import aiohttp

from openai_runs._protocol.advice.connecting import Cause, certificate_cause, tls_cause
from openai_runs._protocol.error_mapping import excerpt
from openai_runs._protocol.masking import mask, quotes
from openai_runs.errors import ConfigError

__all__ = ["NEVER_SENT", "Lost", "cause_of", "reason_of", "unusable", "unused_proxy"]

_TLS_RECORD: Final = r"\x15\x03"
"""How aiohttp quotes the beginning of a TLS alert."""
NEVER_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""Failures before the first byte of the request: no connection was made."""


class Lost(aiohttp.ClientError):
    """The connection was lost under a request that may have arrived."""

    def __init__(self, reason: str, cause: Cause) -> None:
        """Keep what happened, and why."""
        super().__init__(reason)
        self.cause = cause


def cause_of(error: Exception, secrets: tuple[str, ...]) -> Exception | None:
    """Return the error as a cause to be shown; None if it holds a key, its own or a quoted one."""
    is_open = isinstance(error, aiohttp.ClientResponseError)  # with the request's headers
    return None if is_open or quotes(error, secrets) else error


def unusable(error: Exception, shown: str, secrets: tuple[str, ...]) -> ConfigError | None:
    """Return the error of a URL that cannot be requested; None: it can be."""
    # Also a port out of range, or a label too long for DNS.
    is_url = isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError))
    if not is_url and isinstance(error, (aiohttp.ClientError, OSError)):
        return None
    said = mask(str(error), secrets) or type(error).__name__
    return ConfigError(f"{shown!r} cannot be requested: {said}")


def reason_of(error: Exception, secrets: tuple[str, ...] = ()) -> tuple[str, Cause]:
    """Return what happened, in the words of the system, and why."""
    if isinstance(error, aiohttp.ClientResponseError):
        return _no_answer(error, excerpt(error.message.encode(), secrets=secrets))
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
        return _no_connection(error)
    if isinstance(error, Lost):
        return mask(str(error), secrets), error.cause
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without an answer", Cause.OTHER
    # aiohttp quotes what it could not parse, in many lines
    inner = getattr(error.__cause__, "message", "") if _is_cut(error) else str(error)
    said = excerpt(str(inner).rstrip(".").encode(), secrets=secrets)
    kind = "" if _is_cut(error) else f"{type(error).__name__}: "
    return f"the connection was lost: {kind}{said}", Cause.OTHER


def _is_cut(error: Exception) -> bool:
    """Return whether an answer ended before its end, and aiohttp says where."""
    is_said = bool(getattr(error.__cause__, "message", ""))
    return isinstance(error, aiohttp.ClientPayloadError) and is_said


def _no_answer(error: aiohttp.ClientResponseError, said: str) -> tuple[str, Cause]:
    """Return what happened where what came is no answer of the server."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        is_unknown = error.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
        cause = Cause.PROXY_CREDENTIALS if is_unknown else Cause.PROXY_REJECTED
        return f"the proxy rejected it with HTTP {error.status}: {said}", cause
    return f"no proper HTTP: {said}", Cause.TLS if _TLS_RECORD in error.message else Cause.NO_HTTP


def _no_connection(
    error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError,
) -> tuple[str, Cause]:
    """Return what happened before the request was sent."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        problem = error.certificate_error
        said = getattr(problem, "verify_message", "") or str(problem)
        why = certificate_cause(getattr(problem, "verify_code", 0))
        return f"the server's certificate is not trusted: {said.rstrip('.')}", why
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        said = _words_of(error.os_error)
        return f"the host name {error.host!r} cannot be resolved: {said}", Cause.UNRESOLVED
    host = f"[{error.host}]" if ":" in error.host else error.host
    where = f"{host}:{error.port}"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        tls = getattr(error.os_error, "reason", None) or str(error.os_error)
        return f"no TLS with {where}: {tls.lower().replace('_', ' ')}", tls_cause(tls)
    said = _words_of(error.os_error)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"no connection to the proxy {where}: {said}", Cause.NO_PROXY
    if isinstance(error.os_error, ConnectionResetError):
        return f"no TLS with {where}: it closed the connection", Cause.NO_HANDSHAKE
    return f"no connection to {where}: {said}", Cause.UNREACHABLE


def _words_of(error: OSError) -> str:
    """Return what the system says, without the words of libraries around it."""
    if isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    number = error.errno
    return os.strerror(number) if number else str(error) or type(error).__name__


def unused_proxy(url: str) -> str:
    """Return the environment variable that names a proxy for this URL; empty: there is none."""
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return ""
    names = (f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper())
    return next((name for name in names if os.environ.get(name)), "")
