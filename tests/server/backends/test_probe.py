"""One request says whether a model endpoint can be reached, and nothing secret is shown."""

from __future__ import annotations

import pytest

from openai_runs.server import ChatBackend, EchoBackend, Route, RoutingBackend
from openai_runs.server.backends.probe import EndpointState, probe_endpoints
from tests.support import Action, Answer, Hang, HostileServer, Raw

KEY = "sk-model-secret"

ANSWERS: dict[str, tuple[Action, str, list[str] | None]] = {
    "lists": (Answer(json={"data": [{"id": "a"}, {"id": "b"}]}), "", ["a", "b"]),
    "lists none": (Answer(json={"data": []}), "", []),
    "no list": (Answer(404, json={"error": {"message": "no such page"}}), "", None),
    "no JSON": (Answer(200, body=b"<html>"), "", None),
    "wrong key": (
        Answer(401, json={"error": {"message": f"Incorrect API key: {KEY}"}}),
        "HTTP 401: Incorrect API key: ***",
        None,
    ),
    "down": (Answer(503), "HTTP 503", None),
}


@pytest.mark.parametrize(("answer", "problem", "models"), ANSWERS.values(), ids=ANSWERS)
async def test_endpoint_that_answers_is_reachable(
    answer: Action, problem: str, models: list[str] | None
) -> None:
    """Whatever it answers; what stands in the way of using it is said, and no key."""
    async with HostileServer(lambda request: answer) as endpoint:
        backend = ChatBackend(endpoint.url, api_key=KEY)
        found = await probe_endpoints(backend, 30.0)
        await backend.aclose()

        wanted = EndpointState(url=endpoint.url, problem=problem, models=models)

    assert found == [wanted]
    (request,) = endpoint.requests
    assert (request.method, request.headers["authorization"]) == ("GET", f"Bearer {KEY}")


async def test_endpoint_that_is_not_there_is_not_reachable() -> None:
    """The system's reason is kept, and the user within a URL is not shown."""
    backend = ChatBackend("http://me:word@127.0.0.1:1/v1")

    (found,) = await probe_endpoints(backend, 30.0)
    await backend.aclose()

    assert (found.url, found.is_reachable) == ("http://***@127.0.0.1:1/v1", False)
    assert "Connection refused" in found.problem
    assert "word" not in found.problem


@pytest.mark.parametrize("action", [Hang(), Raw(b"nonsense\r\n\r\n")], ids=["hangs", "no HTTP"])
async def test_endpoint_that_does_not_speak_http_is_not_reachable(action: Action) -> None:
    """Silence ends with the time-out."""
    async with HostileServer(lambda request: action) as endpoint:
        backend = ChatBackend(endpoint.url)
        (found,) = await probe_endpoints(backend, 0.2 if isinstance(action, Hang) else 30.0)
        await backend.aclose()

    assert not found.is_reachable
    assert found.problem


async def test_endpoints_of_a_routing_are_probed_in_their_order() -> None:
    """Each of them once; a backend without one has nothing to probe."""
    async with HostileServer(lambda request: Answer(json={"data": [{"id": "a"}]})) as endpoint:
        backend = RoutingBackend(
            {
                "away": ChatBackend("http://127.0.0.1:1/v1"),
                "repeats": EchoBackend(),
                "here": ChatBackend(endpoint.url),
            },
            {"*": Route("here")},
        )
        found = await probe_endpoints(backend, 30.0)
        await backend.aclose()

    assert [one.url for one in found] == backend.endpoint_urls
    assert [one.is_reachable for one in found] == [False, True]
    assert await probe_endpoints(EchoBackend(), 30.0) == []
