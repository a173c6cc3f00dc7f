"""This machine is known by its names and addresses, however they are written."""

import pytest

from openai_runs._protocol.hosts import (
    is_loopback,
    is_loopback_authority,
    is_loopback_origin,
    is_vendor_host,
)

OURS = [
    "localhost",
    "LocalHost",
    "localhost.",
    "x.localhost",
    "a.b.LOCALHOST.",
    "127.0.0.1",
    "127.8.8.8",
    "127.255.255.254",
    "::1",
    "[::1]",
    "0:0:0:0:0:0:0:1",
    "::ffff:127.0.0.1",
    "[::ffff:7f00:1]",
]
FOREIGN = [
    "",
    ".",
    "[]",
    "0.0.0.0",
    "::",
    "[::]",
    "126.255.255.255",
    "128.0.0.1",
    "192.168.0.1",
    "::ffff:192.168.0.1",
    "fe80::1",
    "example.org",
    "localhost.example.org",
    "127.0.0.1.example.org",
    "notlocalhost",
    "localhost:8080",
    "[::1",
    "127.0.0.256",
]


@pytest.mark.parametrize("host", OURS)
def test_own_host_is_known(host: str) -> None:
    """Names under localhost, 127/8 and ::1, in brackets, in any case, or mapped."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_other_hosts_are_foreign(host: str) -> None:
    """Neither all addresses at once, nor a name that only looks like ours, is loopback."""
    assert not is_loopback(host)


AUTHORITIES = {
    "localhost": True,
    "localhost:8080": True,
    "localhost:": True,
    "127.0.0.1:1": True,
    "[::1]": True,
    "[::1]:8080": True,
    "app.localhost:80": True,
    "": False,
    ":8080": False,
    "::1": False,
    "evil.example": False,
    "evil.example:8080": False,
    "127.0.0.1.evil.example:8080": False,
    "localhost@evil.example": False,
    "evil.example/.localhost": False,
    "evil.example#.localhost": False,
    "localhost:80:80": False,
    "localhost:port": False,
    "localhost evil.example": False,
    "localhost\n": False,
    "192.168.0.1:8080": False,
}


@pytest.mark.parametrize(("authority", "ours"), AUTHORITIES.items())
def test_authority_is_a_host_with_or_without_a_port(authority: str, ours: bool) -> None:
    """What is no plain `host:port` is foreign."""
    assert is_loopback_authority(authority) is ours


ORIGINS = {
    "http://localhost": True,
    "http://localhost:3000": True,
    "https://127.0.0.1:8443": True,
    "http://[::1]:3000": True,
    "http://evil.example": False,
    "http://localhost.evil.example": False,
    "chrome-extension://abcdefgh": False,
    "file://": False,
    "null": False,
    "": False,
    "localhost": False,
}


@pytest.mark.parametrize(("origin", "ours"), ORIGINS.items())
def test_origin_is_judged_by_its_host(origin: str, ours: bool) -> None:
    """Any scheme and port of this machine; an opaque origin may be anybody's."""
    assert is_loopback_origin(origin) is ours


@pytest.mark.parametrize(
    ("host", "is_vendors"),
    [
        ("api.openai.com", True),
        ("eu.api.openai.com", True),
        ("myapi.openai.com.example", False),
        ("notapi.openai.com", False),
        ("127.0.0.1", False),
        ("", False),
    ],
)
def test_vendor_is_known_by_its_domain(host: str, is_vendors: bool) -> None:
    """Its subdomains count; names that only look alike do not."""
    assert is_vendor_host(host) is is_vendors
