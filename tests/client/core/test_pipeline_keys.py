"""Keys: given, asked for, and where they are sent."""

from __future__ import annotations

from typing import Any

import pytest

from openai_runs import AsyncClient, ConfigError
from tests.client.ledger import error
from tests.client.test_settings import LOCAL, THREAD, get, received
from tests.support import Action, HostileServer, ManualClock


async def test_no_key_is_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on loopback may ask for none."""
    monkeypatch.delenv("OPENAI_API_KEY")

    assert "authorization" not in (await received()).headers


def test_empty_key_is_refused() -> None:
    """It can only come from a variable that was not set."""
    with pytest.raises(ConfigError, match="api_key"):
        AsyncClient(LOCAL, "")


async def asked_by(kind: str, asked: list[str]) -> Any:
    """Return a key source of that kind, which notes that it was asked."""

    def plain() -> str:
        asked.append("key")
        return f"token-{len(asked)}"

    async def awaited() -> str:
        return plain()

    class Credential:
        """What `azure.identity.aio` offers."""

        async def get_token(self, *scopes: str) -> Any:
            """Return an access token."""
            assert scopes == ("https://ai.azure.com/.default",)

            class AccessToken:
                token = plain()

            return AccessToken()

    return {"sync": plain, "async": awaited, "credential": Credential()}[kind]


@pytest.mark.parametrize("kind", ["sync", "async", "credential"])
@pytest.mark.parametrize("azure", [False, True], ids=["client", "azure"])
async def test_key_is_asked_for_before_each_attempt(kind: str, azure: bool) -> None:
    """A token that expires between two attempts, or in mid-wait, does no harm."""
    asked: list[str] = []
    answers: list[Action] = [error(503), THREAD, THREAD]
    source = await asked_by(kind, asked)
    runtime = ManualClock().runtime()
    async with HostileServer(lambda _: answers.pop(0)) as server:
        make = AsyncClient.azure if azure else AsyncClient
        async with make(server.url, source, seams=runtime) as client:
            await get(client)
            await get(client)

    keys = [request.headers["authorization"] for request in server.requests]
    assert keys == ["Bearer token-1", "Bearer token-2", "Bearer token-3"]
    assert all("api-key" not in request.headers for request in server.requests)


async def test_error_of_a_key_source_reaches_the_caller() -> None:
    """Nothing is sent, and nothing is wrapped."""

    async def locked() -> str:
        raise PermissionError(13)

    async with HostileServer(lambda _: THREAD) as server, AsyncClient(server.url, locked) as client:
        with pytest.raises(PermissionError):
            await get(client)

    assert server.requests == []


@pytest.mark.parametrize("value", [None, "", 7, b"key"], ids=repr)
async def test_key_source_that_gives_no_text_is_an_error(value: Any) -> None:
    """It names the kind of what came, and no value."""
    async with AsyncClient(LOCAL, lambda: value) as client:
        with pytest.raises(ConfigError, match=type(value).__name__):
            await get(client)


async def test_azure_sends_its_key_and_version() -> None:
    """A plain key goes into `api-key`, and `api-version` onto each request."""
    async with (
        HostileServer(lambda _: THREAD) as server,
        AsyncClient.azure(
            server.url, "k", "2025-05-01", default_query={"x": "y"}, request_timeout=5
        ) as client,
    ):
        await get(client)
        await get(client.with_options(max_retries=0))

    for request in server.requests:
        assert request.headers["api-key"] == "k"
        assert "authorization" not in request.headers
        assert request.query == {"api-version": ["2025-05-01"], "x": ["y"]}
