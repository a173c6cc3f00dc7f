"""What is no HTTP is refused, logged once a minute, and quoted nowhere."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import anyio
import pytest
from aiohttp import web

from openai_runs.config import REFUSAL_LOG_INTERVAL
from openai_runs.server import ApiRunner, EchoBackend, LocalServer, create_app
from tests.canaries import CANARY_KEY, Watch
from tests.server.hostile_requests import BEARER, BODY, REFUSED, UNUSUAL, ask, post
from tests.server.support import ManualClock

HTTP = "openai_runs.server.http"


@pytest.fixture
def clock() -> ManualClock:
    """By which refused requests are logged."""
    return ManualClock()


@pytest.fixture
async def port(clock: ManualClock) -> AsyncIterator[int]:
    """The port of a server that asks for a key."""
    async with LocalServer(api_key=CANARY_KEY, clock=clock) as server:
        yield port_of(server.url)


def port_of(url: str) -> int:
    """Return the port of a server."""
    found = urlsplit(url).port
    assert found is not None
    return found


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the HTTP layer has logged."""
    return [record.getMessage() for record in caplog.records if record.name == HTTP]


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_request_is_quoted_nowhere(
    name: str, port: int, canaries: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is an error of the API, the log one line with the kind of fault and the peer."""
    answer = await ask(port, REFUSED[name])
    head, _, body = answer.decode().partition("\r\n\r\n")

    canaries.search("the answer", answer.decode())
    assert " 400 " in head.splitlines()[0]
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert "\r\nx-request-id: req_" in head.lower()
    assert len(lines(caplog)) == 1
    assert lines(caplog)[0].startswith("refused what is no valid HTTP, from 127.0.0.1: ")
    assert lines(caplog)[0].endswith(", 400")
    assert "aiohttp" not in {record.name.partition(".")[0] for record in caplog.records}


@pytest.mark.parametrize("name", UNUSUAL)
async def test_unusual_request_is_quoted_nowhere(
    name: str, port: int, canaries: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the API itself answers quotes no more, and no handler fails by it."""
    answer = await ask(port, UNUSUAL[name])

    canaries.search("the answer", answer.decode(), "key" if b" 200 OK" in answer else "prompt")
    canaries.search("the answer", answer.decode(), "key")
    assert b" 500 " not in answer
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []


EXPECTATIONS = {
    "not-utf-8": b"\xff",
    "not-utf-8-behind": b"100-continue\xff",
    "surrogate": b"\xed\xa0\x80",
    "latin-1": b"\xe9t\xe9",
    "line-separator": b"\xe2\x80\xa8",
    "several": b"100-continue, 200-ok",
    "key": CANARY_KEY.encode(),
    "long": b"x" * 8000,
    "zero-width": b"100-continue\xe2\x80\x8b",
}


@pytest.mark.parametrize("path", ["/v1/threads", "/healthz", "/nothing"])
@pytest.mark.parametrize("value", EXPECTATIONS.values(), ids=EXPECTATIONS)
async def test_unknown_expectation_is_a_417_of_the_api(
    value: bytes, path: str, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the header holds, and whatever is asked for; nothing is logged as a failure."""
    request = b"POST %s HTTP/1.1\r\nHost: a\r\nExpect: %s\r\n\r\n" % (path.encode(), value)

    head, _, body = (await ask(port, request)).decode().partition("\r\n\r\n")

    assert " 417 " in head.splitlines()[0]
    assert "\r\nx-request-id: req_" in head.lower()
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert "100-continue" in json.loads(body)["error"]["message"]
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_known_expectation_is_met_whatever_its_case(port: int) -> None:
    """The interim answer comes, then the answer."""
    head = post(BEARER, b"Expect: 100-Continue", b"Content-Length: 2")

    answer = await ask(port, head + b"{}")

    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


BAD_PLACES = {
    "no-path": (b"GET /nothing HTTP/1.1", b"404"),
    "unknown-method": (b"BREW /v1/threads HTTP/1.1", b"400"),
    "method": (b"PUT /v1/threads HTTP/1.1", b"405"),
    "options": (b"OPTIONS /v1/threads HTTP/1.1", b"405"),
    "head": (b"HEAD /v1/threads HTTP/1.1", b"405"),
    "trace": (b"TRACE /v1/threads HTTP/1.1", b"405"),
    "healthz": (b"DELETE /healthz HTTP/1.1", b"405"),
    "all": (b"OPTIONS * HTTP/1.1", b"404"),
    "path-not-utf-8": (b"GET /v1/threads/%ff HTTP/1.1", b"404"),
    "authority": (b"CONNECT a:1 HTTP/1.1", b"40"),
    "http-2": (b"PRI * HTTP/2.0", b"400"),
    "http-0.9": (b"GET /", b"40"),
}


@pytest.mark.parametrize("name", BAD_PLACES)
async def test_refusal_has_an_id_whoever_refuses(name: str, port: int) -> None:
    """The parser, the router and the handlers refuse in one shape."""
    line, status = BAD_PLACES[name]

    answer = await ask(port, line + b"\r\nHost: a\r\nConnection: close\r\n" + BEARER + b"\r\n\r\n")

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b" ")[1].startswith(status)
    assert b"\r\nx-request-id: req_" in head.lower()
    assert body == b"" if name == "head" else json.loads(body)["error"]["message"]


async def test_body_that_does_not_come_is_quoted_nowhere(
    port: int, canaries: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that leaves in the middle of its body is no error."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(post(BEARER, b"Content-Length: 9999", body=BODY))
    writer.write_eof()
    with anyio.fail_after(20):
        canaries.search("the answer", (await reader.read()).decode())
    writer.close()

    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []


async def test_refused_requests_are_one_line_a_minute(
    port: int, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever sends junk cannot fill the disk; the next line counts what was left out."""
    for _ in range(5):
        await ask(port, REFUSED["tls"])
    clock.advance(REFUSAL_LOG_INTERVAL - 1)
    await ask(port, REFUSED["no-colon"])
    clock.advance(1)
    await ask(port, REFUSED["no-colon"])

    first, second = lines(caplog)
    assert first.endswith("BadHttpMethod, 400")
    assert second.endswith("400; 5 more since the last such line")


async def test_requests_left_out_are_counted_when_the_server_stops(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No refused request goes without a trace."""
    async with LocalServer(clock=ManualClock()) as server:
        for _ in range(4):
            await ask(port_of(server.url), REFUSED["tls"])

    assert lines(caplog)[1:] == ["refused 3 more requests that are no valid HTTP"]


async def test_refusals_are_logged_when_the_clock_was_set_back(
    port: int, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An hour that comes twice is no hour of silence."""
    await ask(port, REFUSED["tls"])
    clock.advance(-3600)
    await ask(port, REFUSED["tls"])

    assert len(lines(caplog)) == 2


async def test_application_of_ones_own_can_run_the_same_way(
    canaries: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that ours is part of can be served by `ApiRunner`, which quotes nothing."""

    async def fail(request: web.Request) -> web.Response:
        raise LookupError(request.query["api_key"])

    app = web.Application()
    app.router.add_get("/fail", fail)
    app.add_subapp("/api", create_app(backend=EchoBackend()))
    runner = ApiRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        line = f"GET /fail?api_key={CANARY_KEY} HTTP/1.1".encode()
        failed = await ask(port, line + b"\r\nHost: a\r\nConnection: close\r\n\r\n")
        refused = await ask(port, REFUSED["no-colon"])
    finally:
        await runner.cleanup()

    canaries.search("the answers", (failed + refused).decode())
    assert b" 500 " in failed
    assert b" 400 " in refused
    assert "LookupError" in caplog.text
    assert "in fail" in caplog.text
