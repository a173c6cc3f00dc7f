"""What to do next where no answer came.

The transport says what happened, in the system's words; this says what its cause may be, and which
setting of `AsyncClient` mends it.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final
from urllib.parse import urlsplit

from openai_runs._protocol.hosts import is_loopback
from openai_runs.config import SERVE_PORT

__all__ = ["Cause", "advice", "certificate_cause", "tls_cause"]


class Cause(Enum):
    """Why there was no answer."""

    UNREACHABLE = auto()
    """Refused, or not answered, before anything was sent."""
    UNRESOLVED = auto()
    """The host's name has no address."""
    UNTRUSTED = auto()
    """Its certificate is of an authority that is not trusted."""
    OTHER_NAME = auto()
    """Its certificate is for another name."""
    OUT_OF_DATE = auto()
    """Its certificate has expired, or is not valid yet."""
    NO_TLS = auto()
    """It was spoken to in TLS, and answered without."""
    TLS = auto()
    """It was spoken to without TLS, and answered in it."""
    NO_HTTP = auto()
    """It answered in another protocol."""
    CLOSED = auto()
    """It closed a new connection in place of an answer."""
    NO_HANDSHAKE = auto()
    """It closed the connection where it was to answer in TLS."""
    NO_PROXY = auto()
    """The proxy cannot be reached."""
    PROXY_CREDENTIALS = auto()
    """The proxy wants to know who asks."""
    PROXY_REJECTED = auto()
    """The proxy does not pass the request on."""
    OTHER = auto()
    """Nothing that a setting mends."""


_EXPIRED: Final = frozenset({9, 10})
_WRONG_NAME: Final = frozenset({62, 64})
"""Of X509_V_ERR_*: a host name, an IP address."""
_NO_TLS: Final = frozenset(
    {
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "UNKNOWN_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)
"""What OpenSSL calls an answer that is no TLS."""
_AUTHORITY: Final = "trust its authority: set SSL_CERT_FILE"
_BY_CAUSE: Final = {
    Cause.OTHER_NAME: "base_url must name the host as its certificate does",
    Cause.OUT_OF_DATE: "renew the certificate, or set the clock of this machine right",
    Cause.NO_TLS: "it answers without TLS: write http:// in base_url, or use another port",
    Cause.TLS: "it answers in TLS: write https:// in base_url",
    Cause.NO_HTTP: "another kind of server answers there: is the port right?",
    Cause.CLOSED: "did it stop, or does it want https://?",
    Cause.NO_HANDSHAKE: "does it answer without TLS? Then write http:// in base_url",
    Cause.NO_PROXY: "is the address of the proxy right, in proxy= or HTTPS_PROXY?",
    Cause.PROXY_CREDENTIALS: "it wants credentials in its URL: http://USER:PASSWORD@HOST:PORT",
    Cause.PROXY_REJECTED: "does the proxy allow this host?",
}


def advice(cause: Cause, url: str, *, uses_environment: bool = False, unused: str = "") -> str:
    """Return what to do next; empty where there is nothing to say.

    Args:
        cause: Why there was no answer.
        url: What was requested.
        uses_environment: Whether the environment's settings are used (`trust_env=True`).
        unused: The environment variable that names a proxy which was not used.

    >>> advice(Cause.UNREACHABLE, "http://127.0.0.1:8080/v1")
    'is it running? `openai-runs serve` starts one'
    >>> advice(Cause.TLS, "http://models.example/v1")
    'it answers in TLS: write https:// in base_url'
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if cause is Cause.UNREACHABLE and is_loopback(host):
        if parts.scheme != "http":
            return "is it running?"
        port = "" if parts.port == SERVE_PORT else f" --port {parts.port or 80}"
        return f"is it running? `openai-runs serve{port}` starts one"
    if cause is Cause.UNREACHABLE:
        return f"is it running, and the port right? {_proxy(uses_environment, unused)}"
    if cause is Cause.UNRESOLVED:
        return f"is the name right? {_proxy(uses_environment, unused)}"
    if cause is Cause.UNTRUSTED:
        code = "" if uses_environment else ", or pass ssl=ssl.create_default_context(cafile=...)"
        return f"{_AUTHORITY}{code}"
    return _BY_CAUSE.get(cause, "")


def _proxy(uses_environment: bool, unused: str) -> str:
    if uses_environment:
        return "Behind a proxy, set HTTPS_PROXY"
    if unused:
        return f"{unused} is set and not used: pass trust_env=True to use it"
    return "Behind a proxy, pass proxy= or trust_env=True"


def certificate_cause(code: int) -> Cause:
    """Return why a certificate was refused, by OpenSSL's `verify_code`."""
    if code in _WRONG_NAME:
        return Cause.OTHER_NAME
    return Cause.OUT_OF_DATE if code in _EXPIRED else Cause.UNTRUSTED


def tls_cause(reason: str) -> Cause:
    """Return why there is no TLS connection, by OpenSSL's reason.

    >>> tls_cause("WRONG_VERSION_NUMBER"), tls_cause("TLSV1_ALERT_PROTOCOL_VERSION")
    (<Cause.NO_TLS: 6>, <Cause.OTHER: 14>)
    """
    return Cause.NO_TLS if reason in _NO_TLS else Cause.OTHER
