"""What a base URL implements is found by GETs alone, whatever the server is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openai_runs import AsyncClient, ConfigError
from openai_runs._diagnosis.api import check_api
from openai_runs.server import EchoBackend, LocalServer
from openai_runs.testing import RunsServer
from tests.support import Action, Answer, Drop, HostileServer, Received, Reset

KEY = "sk-doctor-secret"


async def states(url: str, key: str | None = None) -> dict[str, str]:
    """Return topic -> state."""
    return {one.topic: one.state for one in await check_api(url, key)}


async def test_server_of_this_package_has_everything() -> None:
    """With runs in it and without; nothing was changed, as only GETs were sent."""
    async with LocalServer(backend=EchoBackend()) as server, AsyncClient(server.url) as client:
        empty = await states(server.url)
        assistant = await client.assistants.create(model="echo")
        await client.threads.create_and_run_poll(assistant_id=assistant.id)
        filled = await states(server.url)

    assert empty == filled
    assert set(filled.values()) == {"ok"}
    assert {"server", "api", "besides", "streams", "idempotency", "prefer-wait", "resume"} == set(
        filled
    )


async def test_only_gets_are_sent(runs_server: RunsServer) -> None:
    """Whoever examines a server leaves nothing there."""
    await check_api(runs_server.url, None)

    assert {request.method for request in runs_server.requests} == {"GET"}


async def test_forgotten_v1_is_found(runs_server: RunsServer) -> None:
    """The commonest mistake in a base URL is named."""
    found = await check_api(runs_server.url.removesuffix("/v1"), None)

    (api,) = [one for one in found if one.topic == "api"]
    assert api.state == "fail"
    assert "/v1" in api.advice


def fast_api(request: Received) -> Action:
    """Answer as a framework does that knows chat completions alone."""
    if request.path == "/v1/models":
        return Answer(json={"object": "list", "data": []})
    return Answer(404, json={"detail": "Not Found"})


def plain_assistants(request: Received) -> Action:
    """Answer as a server of the API does that has no extensions, and no steps."""
    if request.path.endswith("/steps"):
        return Answer(405)
    if request.path == "/v1/assistants":
        return Answer(json={"object": "list", "data": [], "has_more": False})
    if request.path.startswith("/v1/threads/"):
        message = "No thread found with id 'doctor_has_no_such_id'."
        return Answer(404, json={"error": {"message": message, "type": "invalid_request_error"}})
    message = f"Invalid URL (GET {request.path})"
    return Answer(404, json={"error": {"message": message, "type": "invalid_request_error"}})


def catches_all(request: Received) -> Action:
    """Answer every path with a page, as single-page applications do."""
    return Answer(200, body=b"<html>Welcome</html>")


def breaks_down(request: Received) -> Action:
    """Fail where the database is asked."""
    return Answer(404) if "no_such_path" in request.path else Answer(500)


SERVERS: dict[str, tuple[Callable[[Received], Action], str]] = {
    "chat completions alone": (fast_api, "has nothing of this API"),
    "no steps": (plain_assistants, "has assistants, threads, messages, runs; lacks steps"),
    "a web page": (catches_all, "has nothing of this API"),
    "broken": (breaks_down, "fails for assistants (HTTP 500), "),
}


@pytest.mark.parametrize(("answer", "text"), SERVERS.values(), ids=SERVERS)
async def test_other_servers_are_told_by_what_they_lack(
    answer: Callable[[Received], Action], text: str
) -> None:
    """An id that is not there is another 404 than a path that is not there."""
    async with HostileServer(answer) as server:
        found = await check_api(server.url, None)

    (api,) = [one for one in found if one.topic == "api"]
    assert api.state == "fail"
    assert text in api.text
    assert {one.topic for one in found if one.state == "warn"} == {
        "idempotency",
        "prefer-wait",
        "resume",
    }


async def test_wrong_key_is_named_and_not_shown() -> None:
    """The server, and the variable that holds the key; the next step is another variable."""

    def refuse(request: Received) -> Action:
        return Answer(401, json={"error": {"message": f"Incorrect API key provided: {KEY}"}})

    async with HostileServer(refuse) as server:
        url = server.url
        (found,) = await check_api(url, KEY, "SHOP_KEY")

    assert (found.topic, found.state) == ("key", "fail")
    assert f"the server at {url} refused the key in SHOP_KEY: HTTP 401" in found.text
    assert "--api-key-env" in found.advice
    assert KEY not in found.text


@pytest.mark.parametrize("status", [401, 403])
async def test_missing_key_is_no_wrong_key(status: int) -> None:
    """Where none was sent, the next step is to set one."""
    async with HostileServer(lambda request: Answer(status)) as server:
        (found,) = await check_api(server.url, None)

    assert f"wants a key, and none is set: HTTP {status}" in found.text
    assert "set OPENAI_API_KEY" in found.advice


AWAY = {"nothing listens": "is it running?", "hangs up": "did it stop, "}


@pytest.mark.parametrize("away", AWAY)
async def test_server_that_does_not_answer_is_one_finding(away: str) -> None:
    """The system's reason, and once, what to look at; no path that only we ask for."""
    if away == "nothing listens":
        (found,) = await check_api("http://127.0.0.1:1/v1", None)
    else:
        async with HostileServer(lambda request: Drop()) as server:
            (found,) = await check_api(server.url, None)

    assert (found.topic, found.state) == ("server", "fail")
    assert AWAY[away] in found.advice
    assert AWAY[away] not in found.text
    assert "/v1/assistants" in found.text
    assert "no_such_path" not in found.text


BREAKS: dict[str, tuple[Action, str]] = {
    "hangs up": (Drop(), "the server closed the connection without an answer"),
    "resets": (Reset(), "Connection reset by peer"),
    "floods": (Answer(200, body=b"x" * (5 * 1024 * 1024)), "unreadable answer"),
}


@pytest.mark.parametrize(("action", "reason"), BREAKS.values(), ids=BREAKS)
async def test_second_request_that_fails_is_told_by_what_happened(
    action: Action, reason: str
) -> None:
    """What was answered, what happened then, and what to do; no path that only we ask for."""

    def answer(request: Received) -> Action:
        return action if "no_such_path" in request.path else plain_assistants(request)

    async with HostileServer(answer) as server:
        url = server.url
        (found,) = await check_api(url, None)

    assert (found.topic, found.state) == ("server", "fail")
    assert found.text.startswith(f"{url} answered GET /assistants (HTTP 200), and failed at the")
    assert reason in found.text
    assert "Run doctor again" in found.advice


@pytest.mark.parametrize("number", range(1, 11))
@pytest.mark.parametrize("action", [action for action, _ in BREAKS.values()], ids=BREAKS)
async def test_failure_amid_the_diagnosis_shows_no_path_that_was_made_up(
    action: Action, number: int
) -> None:
    """Whichever request it is: where a finding comes of it, it says what happened."""
    seen: list[Received] = []

    def answer(request: Received) -> Action:
        seen.append(request)
        return action if len(seen) == number else plain_assistants(request)

    async with HostileServer(answer) as server:
        found = await check_api(server.url, None)

    assert not [one for one in found if "doctor_has_no_such" in one.text + one.advice]


async def test_extra_that_fails_is_named() -> None:
    """It is not counted among what a server does not have."""

    def answer(request: Received) -> Action:
        return Drop() if request.path == "/v1/models" else plain_assistants(request)

    async with HostileServer(answer) as server:
        found = {one.topic: one for one in await check_api(server.url, None)}

    assert found["besides"].state == "warn"
    assert "none; fails for list of models (the server closed" in found["besides"].text


async def test_base_url_with_a_secret_is_refused() -> None:
    """Nothing is sent to it."""
    with pytest.raises(ConfigError):
        await check_api("http://me:word@127.0.0.1:1/v1", None)
