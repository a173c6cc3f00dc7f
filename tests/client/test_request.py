"""`client.request`: what has no method here, such as files and Foundry's list of threads."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openai_runs import APIConnectionError, APIError, AsyncClient, NotFoundError, Page, Thread
from openai_runs.types import CodeInterpreterTool
from tests.client.ledger import error
from tests.support import Action, Answer, Drop, HostileServer, ManualClock

PAGE = {"object": "list", "data": [{"id": "thread_1"}], "has_more": False}


class File(msgspec.Struct):
    """A type of the caller's own."""

    id: str
    bytes: int


def client_of(server: HostileServer, **options: Any) -> AsyncClient:
    """Return a client that does not wait."""
    return AsyncClient(server.url, seams=ManualClock().runtime(), **options)


async def test_answer_is_a_dict_unless_asked_otherwise() -> None:
    """Foundry's `GET /threads` as a dict, as our own types, and as a type of the caller's."""
    answers = [Answer(json=PAGE), Answer(json=PAGE), Answer(json={"id": "file-1", "bytes": 7})]
    async with (
        HostileServer(lambda _: answers.pop(0)) as server,
        client_of(server) as client,
    ):
        raw = await client.request("GET", "/threads", query={"limit": 2, "after": None})
        page = await client.request("get", "/threads", into=Page[Thread])
        file = await client.request("GET", "/files/file-1", into=File)

    assert raw == PAGE
    assert [thread.id for thread in page] == ["thread_1"]
    assert page.http is not None
    assert file == File(id="file-1", bytes=7)
    assert [(one.method, one.path) for one in server.requests] == [
        ("GET", "/v1/threads"),
        ("GET", "/v1/threads"),
        ("GET", "/v1/files/file-1"),
    ]
    assert server.requests[0].query == {"limit": ["2"]}


async def test_page_that_was_asked_for_so_has_no_next() -> None:
    """Only a list call knows how to go on."""
    async with HostileServer(lambda _: Answer(json=PAGE)) as server, client_of(server) as client:
        page = await client.request("GET", "/threads", into=Page[Thread])
        with pytest.raises(RuntimeError, match="list call"):
            await page.next_page()


async def test_body_query_and_extras_are_sent() -> None:
    """As with any other call; Structs and foreign iterables included."""
    async with (
        HostileServer(lambda _: Answer(json={})) as server,
        client_of(server, default_query={"api-version": "v1"}) as client,
    ):
        await client.request(
            "POST",
            "/vector_stores",
            json={"name": "n", "tools": (tool for tool in [CodeInterpreterTool()])},
            query={"include": ["a", "b"], "x": True},
            extra_query={"x": False},
            extra_body={"name": "m"},
            extra_headers={"X-New": "1"},
            idempotency_key="mine",
        )

    (request,) = server.requests
    assert request.json == {"name": "m", "tools": [{"type": "code_interpreter"}]}
    assert request.query == {"api-version": ["v1"], "include[]": ["a", "b"], "x": ["false"]}
    assert request.headers["x-new"] == "1"
    assert request.headers["idempotency-key"] == "mine"


async def test_body_is_sent_only_where_there_is_one() -> None:
    """No `Content-Type` without a body; an empty object is a body."""
    async with HostileServer(lambda _: Answer(json={})) as server, client_of(server) as client:
        await client.request("POST", "/a")
        await client.request("POST", "/b", json={})
        await client.request("POST", "/c", extra_body={"x": 1})

    assert [request.body for request in server.requests] == [b"", b"{}", b'{"x":1}']
    assert ["content-type" in request.headers for request in server.requests] == [False, True, True]


@pytest.mark.parametrize(
    ("method", "attempts"), [("GET", 3), ("DELETE", 3), ("POST", 1), ("PATCH", 1), ("PUT", 1)]
)
async def test_only_what_does_no_harm_is_repeated(method: str, attempts: int) -> None:
    """GET and DELETE freely; others are guarded like creates."""
    async with HostileServer(lambda _: Drop()) as server, client_of(server) as client:
        with pytest.raises(APIConnectionError) as caught:
            await client.request(method, "/anything")

    assert len(server.requests) == caught.value.attempts == attempts
    assert caught.value.maybe_created == (attempts == 1)


async def test_delete_that_is_told_404_is_an_error() -> None:
    """What an unknown endpoint answers for something gone is not known here."""
    answers: list[Action] = [Drop(), error(404)]
    async with HostileServer(lambda _: answers.pop(0)) as server, client_of(server) as client:
        with pytest.raises(NotFoundError):
            await client.request("DELETE", "/files/file-1")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "files",
        "/files?x=1",
        "/files#x",
        "/../files",
        "/files/..",
        "/files/.",
        "/files/%2e%2e/x",
        "/files/.%2E",
        "/files/a b",
        "/files\r\nX: y",
        "/files\\x",
        "/filés",
        "/files/%zz",
        "http://elsewhere.invalid/files",
    ],
    ids=repr,
)
async def test_path_that_could_lead_elsewhere_is_refused(path: str) -> None:
    """Before anything is sent, and with the path in the error."""
    async with HostileServer(lambda _: Drop()) as server, client_of(server) as client:
        with pytest.raises(ValueError, match="path must") as caught:
            await client.request("GET", path)

    assert not isinstance(caught.value, APIError)
    assert server.requests == []


@pytest.mark.parametrize("path", ["/files/a%20b", "/a/b-c_d.e~f/", "/x:y@z", "/"])
async def test_path_is_sent_as_it_is(path: str) -> None:
    """What is quoted stays so."""
    async with HostileServer(lambda _: Answer(json={})) as server, client_of(server) as client:
        await client.request("GET", path)

    assert server.requests[0].path == f"/v1{path}"


@pytest.mark.parametrize("method", ["", "GET /x", "GET\r\nX: y", "G€T"])
async def test_method_that_is_no_word_is_refused(method: str) -> None:
    """Before anything is sent."""
    async with HostileServer(lambda _: Drop()) as server, client_of(server) as client:
        with pytest.raises(ValueError, match="method must"):
            await client.request(method, "/files")

    assert server.requests == []


async def test_unknown_option_is_a_type_error() -> None:
    """As with every other call."""
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        with pytest.raises(TypeError, match="body"):
            await client.request("GET", "/files", body={})  # type: ignore[call-overload]  # on purpose
