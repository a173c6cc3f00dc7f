"""Web pages of others reach a server on this machine through a browser; without a key, not here."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from openai_runs.server import EchoBackend, create_app
from tests.canaries import CANARY_KEY
from tests.server.conftest import Serve
from tests.server.support import Caller

FOREIGN = {
    "rebound-name": {"host": "evil.example"},
    "rebound-name-and-port": {"host": "evil.example:8080"},
    "name-like-ours": {"host": "127.0.0.1.evil.example"},
    "other-address": {"host": "192.168.0.7:8080"},
    "all-addresses": {"host": "0.0.0.0"},
    "empty-host": {"host": ""},
    "not-ascii": {"host": "évil"},
    "cross-site": {"origin": "https://evil.example"},
    "opaque": {"origin": "null"},
    "extension": {"origin": "chrome-extension://abcdef"},
}
OURS = {
    "plain": {},
    "name": {"host": "localhost:1234"},
    "name-below": {"host": "app.localhost"},
    "address": {"host": "127.0.0.2"},
    "version-6": {"host": "[::1]:8080"},
    "page-of-ours": {"origin": "http://localhost:3000"},
}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
async def test_foreign_request_without_a_key_is_a_403(
    caller: Caller, headers: dict[str, str]
) -> None:
    """It says which header is wrong and what to do, in the shape that clients read."""
    reply = await caller.send("GET", "/assistants", headers=headers)

    (name,) = headers
    assert reply.status == 403
    assert f"the {name.title()} header must name localhost" in reply.message
    assert "start the server with an API key" in reply.message
    assert reply.json["error"]["code"] == "foreign_host"
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("headers", [FOREIGN["rebound-name"], FOREIGN["cross-site"]])
async def test_text_that_a_page_posts_across_makes_nothing(
    caller: Caller, headers: dict[str, str]
) -> None:
    """A POST of `text/plain` needs no preflight, so it must be refused itself."""
    body = b'{"model": "theirs"}'

    reply = await caller.send(
        "POST", "/assistants", data=body, headers={**headers, "content-type": "text/plain"}
    )

    assert reply.status == 403
    assert (await caller.get("/assistants"))["data"] == []


@pytest.mark.parametrize("path", ["/healthz", "/v1/nowhere"])
async def test_pages_outside_of_the_api_are_refused_too(caller: Caller, path: str) -> None:
    """A rebound name reads neither the health page nor which paths there are."""
    outside = Caller(caller.session, caller.url.removesuffix("/v1"))

    reply = await outside.send("GET", path, headers={"host": "evil.example"})

    assert reply.status == 403


@pytest.mark.parametrize("headers", OURS.values(), ids=OURS)
async def test_request_of_this_machine_needs_no_key(
    caller: Caller, headers: dict[str, str]
) -> None:
    """Any loopback name, address and port."""
    reply = await caller.send("GET", "/assistants", headers=headers)

    assert reply.status == 200


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
async def test_key_opens_under_any_name(serve: Serve, headers: dict[str, str]) -> None:
    """No page knows the key, so with one the server may have any name."""
    caller = await serve(api_key=CANARY_KEY)

    reply = await caller.send("GET", "/assistants", headers=headers)

    assert reply.status == 200


@pytest.mark.parametrize(("loopback_only", "status"), [(False, 200), (True, 403)])
async def test_application_under_a_name_of_the_callers_own(
    loopback_only: bool, status: int
) -> None:
    """`create_app` may stand behind any host, unless it is told to stay at home."""
    app = create_app(backend=EchoBackend(), loopback_only=loopback_only, drain_grace=0)

    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        caller = Caller(session, str(server.make_url("/v1")))
        reply = await caller.send("GET", "/assistants", headers={"host": "runs.example.org"})

    assert reply.status == status
