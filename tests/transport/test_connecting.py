"""Before the first byte: names, addresses, certificates and proxies."""

import asyncio
import socket
import ssl

import aiohttp
import anyio
import pytest
import trustme
from aiohttp.abc import AbstractResolver, ResolveResult

from openai_runs._transport import Transport
from openai_runs.errors import (
    APIConnectionError,
    APITimeoutError,
    ConfigError,
)
from tests.transport.wire import SHORT, call, failure, free_port, listening


async def test_refused_connection_was_never_sent(transport: Transport) -> None:
    """Nothing listens: the request provably never reached a server."""
    port = free_port()

    error = await failure(transport, f"http://127.0.0.1:{port}/v1")

    assert isinstance(error, APIConnectionError)
    assert (error.sent, error.retryable) == (False, True)
    assert error.reason == f"no connection to 127.0.0.1:{port}: Connection refused"


class NoNames(AbstractResolver):
    """A resolver that knows no name, as one without a network."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Fail as getaddrinfo does."""
        raise OSError(None, f"no address of {host}")

    async def close(self) -> None:
        """Hold nothing."""


async def test_unknown_host_was_never_sent() -> None:
    """A name that is not resolved: the request provably never reached a server."""
    connector = aiohttp.TCPConnector(resolver=NoNames())
    async with aiohttp.ClientSession(connector=connector) as session:
        error = await failure(Transport(session=session), "http://nobody.invalid/v1")

    assert isinstance(error, APIConnectionError)
    assert (error.sent, error.retryable) == (False, True)
    assert "cannot be resolved" in error.message


BAD_URLS = ["http://" + "a" * 64 + ".invalid/", "http://h:99999/", "http://[::/", "v1", "ftp://h/"]


@pytest.mark.parametrize("url", BAD_URLS)
async def test_address_that_cannot_be_requested_is_a_config_error(
    transport: Transport, url: str
) -> None:
    """What no request can be made of is the caller's mistake, not the network's."""
    with pytest.raises(ConfigError, match="cannot be requested"):
        await call(transport, url)


def certified(authority: trustme.CA, name: str) -> ssl.SSLContext:
    """Return a server's TLS context with a certificate for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request with an empty object."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    await writer.drain()


@pytest.mark.parametrize(
    ("name", "trusted", "good"),
    [("localhost", True, True), ("localhost", False, False), ("other.invalid", True, False)],
    ids=["right", "unknown authority", "wrong host"],
)
async def test_certificates_are_verified(name: str, trusted: bool, good: bool) -> None:
    """A wrong certificate ends the call before anything is sent, and retrying cannot help."""
    authority = trustme.CA()
    context = ssl.create_default_context()
    if trusted:
        authority.configure_trust(context)
    transport = Transport(ssl=context)
    async with listening(answer, certified(authority, name)) as port:
        url = f"https://localhost:{port}/v1"
        if good:
            assert (await call(transport, url)).content == b"{}"
        else:
            error = await failure(transport, url)
            assert isinstance(error, APIConnectionError)
            assert (error.sent, error.retryable) == (False, False)
            assert "certificate is not trusted" in error.message
    await transport.aclose()


async def test_verification_is_on_by_default(transport: Transport) -> None:
    """A certificate nobody signed is refused without any setting."""
    async with listening(answer, certified(trustme.CA(), "localhost")) as port:
        error = await failure(transport, f"https://localhost:{port}/v1")

    assert "certificate is not trusted" in error.message


async def test_plain_server_behind_https_was_never_sent(transport: Transport) -> None:
    """A server that does not speak TLS gets no request."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with listening(plain) as port:
        error = await failure(transport, f"https://127.0.0.1:{port}/v1")

    assert isinstance(error, APIConnectionError)
    assert (error.sent, error.retryable) == (False, False)


async def test_connecting_has_a_deadline_of_its_own() -> None:
    """A server that accepts but does not shake hands: too long to connect, never sent."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await anyio.sleep_forever()

    transport = Transport(connect_timeout=SHORT)
    async with listening(silent) as port:
        error = await failure(transport, f"https://127.0.0.1:{port}/v1")
    await transport.aclose()

    assert isinstance(error, APITimeoutError)
    assert error.reason == f"no connection to 127.0.0.1:{port} within {SHORT:g} s"
    assert not error.sent


async def test_proxy_that_refuses_was_never_sent() -> None:
    """A proxy's own refusal is not the server's; the key stays out of the error."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with listening(refuse) as port:
        transport = Transport(proxy=f"http://127.0.0.1:{port}")
        error = await failure(transport, "https://nobody.invalid/v1")
        await transport.aclose()

    assert isinstance(error, APIConnectionError)
    assert not error.sent
    assert error.message.startswith("the proxy rejected it with HTTP 407")
    assert error.advice == "it wants credentials in its URL: http://USER:PASSWORD@HOST:PORT"


@pytest.mark.parametrize(
    ("variable", "excepted", "used", "expected"),
    [
        (
            "HTTPS_PROXY",
            "",
            False,
            "HTTPS_PROXY is set and not used: pass trust_env=True to use it",
        ),
        (
            "https_proxy",
            "",
            False,
            "https_proxy is set and not used: pass trust_env=True to use it",
        ),
        ("HTTPS_PROXY", "nobody.invalid", False, "Behind a proxy, pass proxy= or trust_env=True"),
        ("HTTP_PROXY", "", False, "Behind a proxy, pass proxy= or trust_env=True"),
        ("NO_SUCH", "", True, "Behind a proxy, set HTTPS_PROXY"),
    ],
    ids=["set", "in small letters", "not for this host", "for another scheme", "none"],
)
async def test_proxy_of_the_environment_that_is_not_used_is_named(
    variable: str, excepted: str, used: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a name cannot be resolved, a proxy may be what is missing; its URL is not shown."""
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv(variable, "http://me:pass-word@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", excepted)
    connector = aiohttp.TCPConnector(resolver=NoNames())
    async with aiohttp.ClientSession(connector=connector) as session:
        transport = Transport(session=session, trust_env=used)

        error = await failure(transport, "https://nobody.invalid/v1")

    assert isinstance(error, APIConnectionError)
    assert error.advice == f"is the name right? {expected}"
    assert "pass-word" not in str(error)


async def test_connection_that_is_closed_in_the_handshake_may_want_no_tls(
    transport: Transport,
) -> None:
    """A server that hangs up on a TLS greeting is asked about http://."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with listening(hang_up) as port:
        error = await failure(transport, f"https://127.0.0.1:{port}/v1")

    assert isinstance(error, APIConnectionError)
    assert error.reason == f"no TLS with 127.0.0.1:{port}: it closed the connection"
    assert "http:// in base_url" in error.advice


async def test_answer_in_tls_wants_https(transport: Transport) -> None:
    """A TLS alert in place of an answer is recognised."""

    async def alert(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x15\x03\x01\x00\x02\x02\x46")
        await writer.drain()

    async with listening(alert) as port:
        error = await failure(transport, f"http://127.0.0.1:{port}/v1")

    assert isinstance(error, APIConnectionError)
    assert error.advice == "it answers in TLS: write https:// in base_url"


async def test_proxy_that_is_gone_was_never_sent() -> None:
    """No connection to the proxy, no request."""
    transport = Transport(proxy=f"http://127.0.0.1:{free_port()}")

    error = await failure(transport, "http://nobody.invalid/v1")
    await transport.aclose()

    assert isinstance(error, APIConnectionError)
    assert not error.sent
