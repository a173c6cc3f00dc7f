"""The proof that the server at an address has the database whose lock file names the address.

A server that is gone may leave its port to another program while its lock is still held. So who
reads an address in a lock sends a number that was never used before, and the server answers with
an HMAC of it and of its address, by the secret in the lock file, which only its owner can read.
Nothing else is sent to the address before: no API key, and no request.
"""

from __future__ import annotations

import hmac
import re
import secrets
import socket
import time
from ipaddress import ip_address
from typing import Final

import msgspec

from openai_runs.config import MAX_PROOF_BYTES

__all__ = ["PROOF_PATH", "Address", "is_nonce", "new_secret", "parse_address", "prove", "proves"]

PROOF_PATH: Final = "/database-proof"
"""Where a server answers with its proof."""
_ADDRESS: Final = re.compile(
    r"http://(?P<host>127(?:\.[0-9]{1,3}){3}|\[::1\]):(?P<port>[1-9][0-9]{0,4})(?:/[a-z0-9]+)?"
)
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_SHORTEST: Final = 0.001
"""Seconds of a timeout: 0 would mean something else to a socket."""


class Address(msgspec.Struct, frozen=True):
    """A host and a port of this machine."""

    host: str
    port: int


def parse_address(url: str) -> Address | None:
    """Return what `url` names; None if that is not a loopback address by HTTP.

    >>> parse_address("http://127.0.0.1:8080/v1")
    Address(host='127.0.0.1', port=8080)
    >>> parse_address("http://example.org:8080/v1"), parse_address("http://127.0.0.1:0/v1")
    (None, None)
    """
    found = _ADDRESS.fullmatch(url)
    if found is None or int(found["port"]) > 65535:
        return None
    host = found["host"].strip("[]")
    try:
        ip_address(host)
    except ValueError:
        return None
    return Address(host, int(found["port"]))


def new_secret() -> str:
    """Return a secret for one lock."""
    return secrets.token_hex(32)


def is_nonce(text: str) -> bool:
    """Return whether a proof may be asked for with this text."""
    return _HEX.fullmatch(text) is not None


def prove(secret: str, nonce: str, url: str) -> str:
    """Return the proof of a server at `url`."""
    return hmac.digest(secret.encode(), f"{nonce}\n{url}".encode(), "sha256").hex()


def proves(url: str, secret: str, deadline: float) -> bool:
    """Ask the server at `url` for its proof; blocks, until `deadline` by `time.monotonic`."""
    address = parse_address(url)
    if address is None or _HEX.fullmatch(secret) is None:
        return False
    nonce = secrets.token_hex(32)
    host = f"[{address.host}]" if ":" in address.host else address.host
    request = (
        f"GET {PROOF_PATH}?nonce={nonce} HTTP/1.1\r\n"
        f"Host: {host}:{address.port}\r\nConnection: close\r\n\r\n"
    )
    try:
        return _answers(address, request.encode(), prove(secret, nonce, url).encode(), deadline)
    except OSError:
        return False


def _answers(address: Address, request: bytes, expected: bytes, deadline: float) -> bool:
    """Return whether what comes back has the proof in it; the rest of it is not parsed."""

    def left() -> float:
        return max(deadline - time.monotonic(), _SHORTEST)

    with socket.create_connection((address.host, address.port), timeout=left()) as peer:
        peer.sendall(request)
        received = b""
        while len(received) < MAX_PROOF_BYTES and time.monotonic() < deadline:
            peer.settimeout(left())
            piece = peer.recv(4096)
            if not piece:
                return False
            received += piece
            if expected in received:
                return True
    return False
