"""Every operation of the table is served, and every answer looks alike."""

from __future__ import annotations

import re

import aiohttp
import pytest

from openai_runs._protocol import endpoints
from openai_runs._protocol.endpoints import ENDPOINTS, EXTENSIONS
from openai_runs.server import EchoBackend, create_app
from openai_runs.server.http import handlers
from openai_runs.server.http.routes import find_handlers
from tests.canaries import CANARY_KEY
from tests.server.conftest import Serve
from tests.server.support import Caller


def test_routes_are_the_endpoint_table() -> None:
    """The application routes the table's methods and paths, and those that are ours."""
    app = create_app(None, backend=EchoBackend())

    routes = {
        (route.method, route.resource.canonical.removeprefix("/v1"))
        for route in app.router.routes()
        if route.resource is not None and route.resource.canonical.startswith("/v1")
    }

    served = {*ENDPOINTS, *EXTENSIONS}
    others = {("GET", "/models"), ("GET", "/models/{model}"), ("POST", "/import")}
    assert routes == {(endpoint.method, endpoint.path) for endpoint in served} | others


def test_handlers_are_found_by_the_names_of_their_rows() -> None:
    """One grep for an operation's name finds its handler too."""
    names = {id(row): name for name, row in vars(endpoints).items() if name.isupper()}

    found = find_handlers(handlers)

    assert set(found) == {*ENDPOINTS, *EXTENSIONS}
    assert all(
        handler is getattr(handlers, names[id(row)].lower()) for row, handler in found.items()
    )


async def _some_handler() -> None:
    """Stand for a handler, or for a coroutine that is none."""


@pytest.mark.parametrize(
    ("remove", "add", "named"),
    [
        ("cancel_run", None, r"missing \['cancel_run'\]"),
        ("stream_run", None, r"missing \['stream_run'\]"),
        (None, "archive_run", r"superfluous \['archive_run'\]"),
        ("get_run", "retrieve_run", r"missing \['get_run'\], superfluous \['retrieve_run'\]"),
    ],
    ids=["missing", "missing-extension", "superfluous", "misspelled"],
)
def test_application_is_not_made_when_handlers_do_not_fit(
    remove: str | None, add: str | None, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row without a handler, or a handler without a row, is an error at the start."""
    if remove is not None:
        monkeypatch.delattr(handlers, remove)
    if add is not None:
        monkeypatch.setattr(handlers, add, _some_handler, raising=False)

    with pytest.raises(LookupError, match=named):
        create_app(None, backend=EchoBackend())


def test_private_coroutine_is_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper of the handlers needs no row."""
    monkeypatch.setattr(handlers, "_some_handler", _some_handler, raising=False)

    assert "_some_handler" not in {found.__name__ for found in find_handlers(handlers).values()}


@pytest.mark.parametrize("path", ["/assistants", "/nowhere", "/threads/thread_x"])
async def test_headers_are_on_every_answer(caller: Caller, path: str) -> None:
    """Found, refused or unknown: the features and the request id are told."""
    reply = await caller.send("GET", path, headers={"x-request-id": "mine"})

    assert reply.headers["openai-runs-features"] == "idempotency, prefer-wait, resume"
    assert reply.headers["openai-version"] == "2020-10-01"
    assert re.fullmatch(r"req_[0-9a-f]{32}", reply.headers["x-request-id"])
    assert reply.headers["openai-processing-ms"].isdigit()
    assert reply.headers["content-type"].startswith("application/json")


async def test_unknown_route_is_a_404_in_the_errors_shape(caller: Caller) -> None:
    """A wrong URL is named in an error that clients can read."""
    reply = await caller.send("GET", "/nowhere")

    assert reply.status == 404
    assert reply.json["error"] == {
        "message": "Invalid URL (GET /v1/nowhere)",
        "type": "invalid_request_error",
        "param": None,
        "code": "unknown_url",
    }


async def test_wrong_method_is_a_405_in_the_errors_shape(caller: Caller) -> None:
    """A method that the path does not have is refused, and the allowed ones are named."""
    reply = await caller.send("PUT", "/threads/thread_x")

    assert reply.status == 405
    assert reply.message == "Invalid method for URL (PUT /v1/threads/thread_x)"
    assert set(reply.headers["allow"].split(",")) == {"GET", "POST", "DELETE"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": f"Bearer {CANARY_KEY}"}, 200),
        ({"authorization": f"bearer {CANARY_KEY}"}, 200),
        ({"api-key": CANARY_KEY}, 200),
        ({"authorization": "Bearer sk-wrong-key-abcd"}, 401),
        ({"authorization": f"Bearer {CANARY_KEY}1"}, 401),
        ({"authorization": f"Basic {CANARY_KEY}"}, 401),
        ({}, 401),
    ],
    ids=["bearer", "any-case", "azure", "wrong", "longer", "basic", "none"],
)
async def test_key_is_asked_for_when_there_is_one(
    serve: Serve, headers: dict[str, str], status: int
) -> None:
    """Only the holder of the key gets in; a refusal does not repeat what was sent."""
    caller = await serve(api_key=CANARY_KEY)

    async with aiohttp.ClientSession() as session:  # that of the fixture sends the key
        reply = await Caller(session, caller.url).send("GET", "/assistants", headers=headers)

    assert reply.status == status
    assert CANARY_KEY not in reply.text
    assert "wrong-key" not in reply.text


async def test_refused_key_is_told_in_the_known_text(serve: Serve) -> None:
    """Clients match on the text and the code."""
    caller = await serve(api_key=CANARY_KEY)

    reply = await caller.send(
        "GET", "/assistants", headers={"authorization": "Bearer sk-wrong-key-abcd"}
    )

    assert reply.message == "Incorrect API key provided: sk-...abcd."
    assert reply.json["error"]["code"] == "invalid_api_key"


async def test_middlewares_see_requests_and_may_answer(serve: Serve) -> None:
    """A middleware of the user's own may answer, and the headers are still ours."""

    @aiohttp.web.middleware
    async def teapot(request: aiohttp.web.Request, handler: object) -> aiohttp.web.Response:
        return aiohttp.web.json_response({"asked": await request.text()}, status=418)

    caller = await serve(middlewares=[teapot])
    reply = await caller.send("POST", "/threads", data="{}")

    assert (reply.status, reply.json) == (418, {"asked": "{}"})
    assert "x-request-id" in reply.headers


async def test_a_fault_of_ours_is_a_500_that_tells_nothing(serve: Serve) -> None:
    """An unexpected exception names its request id, not its words."""

    @aiohttp.web.middleware
    async def broken(request: aiohttp.web.Request, handler: object) -> aiohttp.web.Response:
        msg = "the password is swordfish"
        raise LookupError(msg)

    caller = await serve(middlewares=[broken])
    reply = await caller.send("GET", "/assistants")

    assert reply.status == 500
    assert reply.json["error"]["type"] == "server_error"
    assert reply.headers["x-request-id"] in reply.message
    assert "swordfish" not in reply.text
