"""What a framework rejects is answered in the shape that all errors of a web back end have."""

from __future__ import annotations

from typing import Annotated, Any

import aiohttp
import pytest
from aiohttp import web
from fastapi import Body, Cookie, FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from openai_runs.web import aiohttp as on_aiohttp
from openai_runs.web import starlette as on_starlette
from tests.relaying import serve_aiohttp, serve_asgi

ALLOW = {"Allow": "PUT"}


def _raise(status: int, detail: Any) -> None:
    raise HTTPException(status, detail, headers=ALLOW)


def _fastapi() -> Any:
    app = FastAPI(exception_handlers=on_starlette.EXCEPTION_HANDLERS)

    @app.get("/{status}")
    async def get(status: int) -> None:
        _raise(status, {"why": "not yours"} if status == 409 else "Not yours.")

    @app.post("/")
    async def post(
        user: Annotated[str, Cookie()], text: Annotated[str, Body(embed=True, max_length=3)]
    ) -> None:
        pass

    return serve_asgi(app, force=False)


def _starlette() -> Any:
    async def get(request: Any) -> None:
        _raise(int(request.path_params["status"]), "Not yours.")

    handlers = on_starlette.EXCEPTION_HANDLERS
    return serve_asgi(Starlette(routes=[Route("/{status}", get)], exception_handlers=handlers))


def _aiohttp() -> Any:
    async def get(request: web.Request) -> web.Response:
        if request.match_info["status"] == "303":
            raise web.HTTPSeeOther(location="/")
        if request.match_info["status"] == "409":
            raise web.HTTPConflict(text='{"why": 1}', content_type="application/json")
        raise web.HTTPForbidden(text="Not yours.", headers=ALLOW)

    app = web.Application(middlewares=[on_aiohttp.error_middleware])
    app.router.add_get("/{status}", get)
    return serve_aiohttp(app)


SERVERS = {"fastapi": _fastapi, "starlette": _starlette, "aiohttp": _aiohttp}


@pytest.mark.parametrize("name", SERVERS)
async def test_rejection_has_the_shape_of_all_errors(name: str) -> None:
    """Its text, its status and its headers; FastAPI's `detail` is still there."""
    async with SERVERS[name]() as url, aiohttp.ClientSession() as session:
        async with session.get(f"{url}/403") as response:
            answer = await response.json()
        async with session.put(f"{url}/403") as other:
            shape = (await other.json())["error"].keys()

    assert answer["error"] == {
        "message": "Not yours.",
        "type": "invalid_request_error",
        "param": None,
        "code": "forbidden",
    }
    assert answer.get("detail") == (None if name == "aiohttp" else "Not yours.")
    assert (response.status, response.headers["Allow"]) == (403, "PUT")
    assert (other.status, shape) == (405, answer["error"].keys())


@pytest.mark.parametrize(
    ("body", "cookies", "param", "message"),
    [
        pytest.param(
            {"text": "long"},
            {"user": "a"},
            "text",
            "text: String should have at most 3 characters",
            id="long",
        ),
        pytest.param({}, {"user": "a"}, "text", "text: Field required", id="missing"),
        pytest.param(
            {"text": "a"},
            {},
            "user",
            "user: Field required. Reload the page, or sign in again.",
            id="cookie",
        ),
    ],
)
async def test_what_fastapi_validates_is_said_in_words(
    body: Any, cookies: Any, param: str, message: str
) -> None:
    """The fields that are wrong, and how; what to do where a cookie is."""
    async with (
        _fastapi() as url,
        aiohttp.ClientSession(cookies=cookies) as session,
        session.post(url, json=body) as response,
    ):
        answer = await response.json()

    assert response.status == 422
    assert answer["error"]["message"] == message
    assert (answer["error"]["param"], answer["error"]["code"]) == (param, "invalid_request")
    assert answer["detail"][0]["loc"][-1] == param


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        pytest.param("aiohttp", 409, {"why": 1}, id="json-of-its-own"),
        pytest.param("aiohttp", 303, None, id="see-other"),
        pytest.param("starlette", 304, None, id="not-modified"),
        pytest.param("fastapi", 409, None, id="detail-that-is-no-text"),
        pytest.param("fastapi", 499, None, id="status-without-a-name"),
    ],
)
async def test_answer_that_is_no_plain_rejection_keeps_what_it_says(
    name: str, status: int, body: Any
) -> None:
    """A body of its own, a redirect, a detail that is an object."""
    async with (
        SERVERS[name]() as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/{status}", allow_redirects=False) as response,
    ):
        answer = await response.json() if status >= 400 else {}

    assert response.status == status
    if body is not None:
        assert answer == body
    elif name == "fastapi":
        code, detail = {409: ("conflict", {"why": "not yours"}), 499: ("rejected", "Not yours.")}[
            status
        ]
        assert (answer["error"]["code"], answer["detail"]) == (code, detail)
