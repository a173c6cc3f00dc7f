"""What other tools ask first: the models of the backend, in a list and one by one."""

from __future__ import annotations

from typing import Any

import pytest

from openai_runs.server import ChatBackend, EchoBackend, Route, RoutingBackend
from tests.server.conftest import Serve
from tests.server.support import Caller
from tests.support import Answer, HostileServer


async def test_models_are_listed_in_the_shape_of_the_api(serve: Serve) -> None:
    """A list of objects with the four fields that clients read, and each of them alone."""
    local = Route("local")
    routes: dict[str, str | Route] = {"qwen3": local, "org/model:7b": local, "gpt-4o*": "qwen3"}
    caller = await serve(backend=RoutingBackend({"local": EchoBackend()}, routes))

    listed = await caller.get("/models")

    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["qwen3", "org/model:7b", "echo"]
    for model in listed["data"]:
        assert model.keys() == {"id", "object", "created", "owned_by"}
        assert (model["object"], model["created"]) == ("model", 0)
        assert await caller.get(f"/models/{model['id']}") == model


async def test_models_of_the_endpoint_are_passed_on(serve: Serve) -> None:
    """Before one endpoint the list is that endpoint's."""
    model = {"id": "qwen3:8b", "object": "model", "created": 1_700_000_000, "owned_by": "library"}

    def answer(request: Any) -> Answer:
        return Answer(json={"object": "list", "data": [model]})

    async with HostileServer(answer) as endpoint:
        caller = await serve(backend=ChatBackend(endpoint.url))
        assert await caller.get("/models") == {"object": "list", "data": [model]}
        assert await caller.get("/models/qwen3:8b") == model
        await caller.close()


async def test_backend_that_lists_nothing_has_an_empty_list(caller: Caller) -> None:
    """A backend of your own need not know any names."""
    assert await caller.get("/models") == {"object": "list", "data": []}


@pytest.mark.parametrize("name", ["nope", "a/b", "%F0%9F%90%99", "x" * 2000])
async def test_model_that_is_not_listed_is_a_404(serve: Serve, name: str) -> None:
    """The text names it, and where the list is."""
    caller = await serve(backend=EchoBackend())

    reply = await caller.send("GET", f"/models/{name}")

    assert (reply.status, reply.json["error"]["code"]) == (404, "model_not_found")
    assert "GET /v1/models lists them" in reply.message


async def test_models_need_the_key(serve: Serve) -> None:
    """The list is for those whose runs are."""
    caller = await serve(backend=EchoBackend(), api_key="another")

    assert (await caller.send("GET", "/models")).status == 401


async def test_models_are_only_read(serve: Serve) -> None:
    """Deleting one is no operation here; the answer says what is."""
    caller = await serve(backend=EchoBackend())

    reply = await caller.send("DELETE", "/models/echo")

    assert (reply.status, reply.headers["allow"]) == (405, "GET")
