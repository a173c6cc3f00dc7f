"""What a host is, by its name or address alone, without DNS; and which URLs are a database's."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

__all__ = [
    "is_azure_openai_host",
    "is_database_url",
    "is_loopback",
    "is_loopback_authority",
    "is_loopback_origin",
    "is_vendor_host",
]

_VENDOR_HOST: Final = "api.openai.com"
_AZURE_OPENAI_HOSTS: Final = tuple(
    f".{service}.azure.{region}"
    for service in ("openai", "cognitiveservices")
    for region in ("com", "us", "cn")
)
_DATABASE: Final = re.compile(r"[\s'\"]*[a-z][a-z0-9+.:-]*://", re.IGNORECASE)
"""Any URL: one of another form, as of a library, must not be taken for a file and shown."""
_AUTHORITY: Final = r"(?P<host>\[[^\[\]@/?#\s]+\]|[^\[\]:@/?#\s]+)(?::[0-9]*)?"


def is_loopback(host: str) -> bool:
    """Return whether `host`, a name or an address, is this machine and no other.

    >>> is_loopback("app.localhost"), is_loopback("[::1]"), is_loopback("0.0.0.0")
    (True, True, False)

    Source: RFC 6761, section 6.3; RFC 1122, section 3.2.1.3.
    """
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    try:
        address = ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if address.version == 6 else None
    return (mapped or address).is_loopback


def is_loopback_authority(authority: str) -> bool:
    """Return whether a `Host` header, with or without a port, names this machine.

    >>> is_loopback_authority("127.0.0.1:8080"), is_loopback_authority("example.org:8080")
    (True, False)
    """
    found = re.fullmatch(_AUTHORITY, authority)
    return found is not None and is_loopback(found["host"])


def is_loopback_origin(origin: str) -> bool:
    """Return whether an `Origin` header names a page of this machine.

    >>> is_loopback_origin("http://localhost:3000"), is_loopback_origin("null")
    (True, False)
    """
    _, _, authority = origin.partition("://")
    return is_loopback_authority(authority)


def is_database_url(db: object) -> bool:
    """Return whether this names a PostgreSQL database, which processes share, and no file.

    >>> is_database_url("postgresql://db.example/runs"), is_database_url("runs.db")
    (True, False)
    """
    return isinstance(db, str) and _DATABASE.match(db) is not None


def is_azure_openai_host(host: str) -> bool:
    """Return whether `host` is of Azure OpenAI, which no longer serves the protocol either.

    Azure AI Foundry (classic), which still does, has other hosts.

    >>> is_azure_openai_host("name.openai.azure.com"), is_azure_openai_host("localhost")
    (True, False)
    """
    return host.endswith(_AZURE_OPENAI_HOSTS)


def is_vendor_host(host: str) -> bool:
    """Return whether `host` is OpenAI's own, which no longer serves the protocol.

    >>> is_vendor_host("eu.api.openai.com"), is_vendor_host("localhost")
    (True, False)
    """
    return host == _VENDOR_HOST or host.endswith("." + _VENDOR_HOST)
