"""What a web handler returns is the wire's JSON (the issue's must-show 10)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from openai_runs import AsyncClient, Page, Run
from openai_runs.types import ADOPTION_KEY
from tests.samples import load
from tests.support import Action, Answer, HostileServer, Received

RUN = {
    **load("getRun/requires_action.json"),
    "metadata": {"mine": "1"},
    "x_unknown": {"of": ["a later version"]},
}
FOREIGN = {"id": "run_9", "object": "thread.run", "status": {"unreadable": True}}
PAGE = {
    "object": "list",
    "data": [RUN, load("getRun/foundry_requires_foreign_call.json"), FOREIGN],
    "first_id": RUN["id"],
    "last_id": "run_9",
    "has_more": False,
}
"""With fields, calls and items that this version does not know."""


def answer(request: Received) -> Action:
    """Answer like a server that was given our mark."""
    marked = {**RUN, "metadata": {"mine": "1", ADOPTION_KEY: "k"}}
    if request.path.endswith("/runs"):
        return Answer(json={**PAGE, "data": [marked, *PAGE["data"][1:]]})
    return Answer(json=marked)


def fastapi_of(client: AsyncClient) -> FastAPI:
    """Return an application that hands answers on."""
    app = FastAPI()

    async def get_run() -> Run:
        return await client.runs.retrieve("run_1", thread_id="thread_1")

    async def get_page() -> Page[Run]:
        return await client.runs.list("thread_1")

    async def get_wrapped() -> dict[str, Run]:
        return {"run": await get_run()}

    async def get_listed() -> list[Run]:
        return [await get_run()]

    async def get_optional(found: bool = True) -> Run | None:
        return await get_run() if found else None

    async def get_response() -> JSONResponse:
        return JSONResponse((await get_run()).to_dict())

    for name, handler in {
        "run": get_run,
        "page": get_page,
        "wrapped": get_wrapped,
        "listed": get_listed,
        "optional": get_optional,
    }.items():
        app.get(f"/annotated/{name}")(handler)
        app.get(f"/plain/{name}", response_model=None)(handler)
    app.get("/response")(get_response)
    return app


async def ask(app: Any, path: str) -> tuple[int, Any]:
    """Return status and JSON of a GET, over a bare ASGI call."""
    sent: list[dict[str, Any]] = []
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"testserver")],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(one.get("body", b"") for one in sent[1:]))


EXPECTED = {"run": RUN, "page": PAGE, "wrapped": {"run": RUN}, "listed": [RUN], "optional": RUN}


@pytest.mark.parametrize("style", ["annotated", "plain"])
@pytest.mark.parametrize("name", EXPECTED)
async def test_fastapi_handler_yields_the_wire(style: str, name: str) -> None:
    """With a return annotation and without: the same JSON that the server sent, less our mark."""
    async with HostileServer(answer) as server, AsyncClient(server.url) as client:
        status, shown = await ask(fastapi_of(client), f"/{style}/{name}")

    assert (status, shown) == (200, EXPECTED[name])


async def test_fastapi_application_describes_itself() -> None:
    """`/openapi.json` is served with answers as objects, and None stays null."""
    async with HostileServer(answer) as server, AsyncClient(server.url) as client:
        app = fastapi_of(client)
        status, description = await ask(app, "/openapi.json")
        nothing = await ask(app, "/annotated/optional?found=false")
        response = await ask(app, "/response")

    content = description["paths"]["/annotated/run"]["get"]["responses"]["200"]["content"]
    assert status == 200
    assert content["application/json"]["schema"]["type"] == "object"
    assert nothing == (200, None)
    assert response == (200, RUN)


def default(value: Any) -> Any:
    """Return what stands for an answer in JSON."""
    return value.to_dict()


Respond = Callable[[Any], web.Response]
RESPONDS: dict[str, Respond] = {
    "json": partial(web.json_response, dumps=partial(json.dumps, default=default)),
    "to_json": lambda value: web.json_response(
        text=value.to_json() if hasattr(value, "to_json") else json.dumps(value, default=default)
    ),
}


async def shown_by_aiohttp(respond: Respond, make: Callable[[], Awaitable[Any]]) -> Any:
    """Return the JSON of an aiohttp handler that responds with what `make` returns."""

    async def handler(request: web.Request) -> web.Response:
        return respond(await make())

    app = web.Application()
    app.router.add_get("/", handler)
    async with (
        TestServer(app) as served,
        ClientSession() as session,
        session.get(served.make_url("/")) as response,
    ):
        assert response.content_type == "application/json"
        return await response.json()


@pytest.mark.parametrize("respond", RESPONDS.values(), ids=RESPONDS.keys())
async def test_aiohttp_handler_yields_the_wire(respond: Respond) -> None:
    """`web.json_response` with `dumps`, or with the text: run, page, and a dict around a run."""
    async with HostileServer(answer) as server, AsyncClient(server.url) as client:

        async def run() -> Any:
            return await client.runs.retrieve("run_1", thread_id="thread_1")

        async def page() -> Any:
            return await client.runs.list("thread_1")

        async def wrapped() -> Any:
            return {"run": await run()}

        shown = [await shown_by_aiohttp(respond, make) for make in (run, page, wrapped)]

    assert shown == [RUN, PAGE, {"run": RUN}]


async def test_aiohttp_handler_yields_the_wire_from_to_dict() -> None:
    """`web.json_response(run.to_dict())` needs no `dumps`."""
    async with HostileServer(answer) as server, AsyncClient(server.url) as client:

        async def run() -> Any:
            return (await client.runs.retrieve("run_1", thread_id="thread_1")).to_dict()

        assert await shown_by_aiohttp(web.json_response, run) == RUN


async def test_msgspec_yields_every_known_field_of_the_wire() -> None:
    """An answer is a Struct: `msgspec.json.encode` writes all that this version knows of it."""
    wire = load("getRun/completed.json")

    def respond(value: Any) -> web.Response:
        return web.json_response(value, dumps=lambda held: msgspec.json.encode(held).decode())

    async with (
        HostileServer(lambda _: Answer(json=wire)) as server,
        AsyncClient(server.url) as client,
    ):

        async def run() -> Any:
            return {"run": await client.runs.retrieve("run_1", thread_id="thread_1")}

        assert await shown_by_aiohttp(respond, run) == {"run": wire}
