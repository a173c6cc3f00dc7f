"""What a framework rejects is answered in the shape that all errors of a web back end have."""

from __future__ import annotations

import json
from datetime import date
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
from openai_runs.web.errors import rejection
from tests.relaying import serve_aiohttp, serve_asgi

JSON = {"Content-Type": "application/json"}
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


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(r"a\ud83d b", id="cut-emoji"),
        pytest.param(r"\udc4d\ud83d", id="swapped"),
        pytest.param(r"\udfff" + "x" * 9, id="too-long-as-well"),
    ],
)
async def test_half_a_surrogate_pair_that_fastapi_finds_is_no_text(text: str) -> None:
    """As where `send` finds it: 400, and no server error."""
    async with (
        _fastapi() as url,
        aiohttp.ClientSession(cookies={"user": "a"}) as session,
        session.post(url, data=f'{{"text": "{text}"}}', headers=JSON) as response,
    ):
        answer = await response.json()

    assert (response.status, answer["error"]["code"]) == (400, "invalid_text")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param('{"text": "%s"}' % ("long " * 100_000), id="text"),
        pytest.param('{"text": ["%s"]}' % ("long " * 100_000), id="list"),
        pytest.param('{"other": "%s"}' % ("long " * 100_000), id="missing"),
        pytest.param('"%s"' % ("long " * 100_000), id="no-object"),
    ],
)
async def test_what_was_sent_is_not_sent_back(body: str) -> None:
    """However long it is, the answer says in some words what is wrong with it."""
    async with (
        _fastapi() as url,
        aiohttp.ClientSession(cookies={"user": "a"}) as session,
        session.post(url, data=body, headers=JSON) as response,
    ):
        answer = await response.read()

    assert response.status == 422
    assert len(answer) < 1000


async def test_body_that_is_no_json_is_named() -> None:
    """Not by the place of the first wrong byte."""
    async with (
        _fastapi() as url,
        aiohttp.ClientSession(cookies={"user": "a"}) as session,
        session.post(url, data="no", headers=JSON) as response,
    ):
        error = (await response.json())["error"]

    assert (error["message"], error["param"]) == ("body: JSON decode error", "body")


def test_rejection_says_what_no_utf_8_can_hold() -> None:
    """A detail of the application's that repeats half of a character is no server error."""
    answer = rejection(400, "no: \ud83d", detail={"said": "\udc4d", "at": date(2026, 1, 2)})
    said = json.loads(answer.body)

    assert said["error"]["message"] == "no: \ud83d"
    assert said["detail"] == {"said": "\udc4d", "at": "2026-01-02"}
