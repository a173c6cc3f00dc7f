"""What a client is told: addresses, keys, defaults, copies."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from openai_runs import AsyncClient, ConfigError, PollPolicy, RetryPolicy, Thread
from tests.client.ledger import error
from tests.support import Answer, HostileServer, ManualClock, Received

LOCAL = "http://127.0.0.1:8080/v1"
THREAD = Answer(json={"id": "thread_1"})
VARIABLES = {
    "OPENAI_BASE_URL": "https://env.example/v1",
    "OPENAI_API_KEY": "env-key",
    "OPENAI_ORG_ID": "env-org",
    "OPENAI_PROJECT_ID": "env-project",
}


async def get(client: AsyncClient, **options: Any) -> Thread:
    """Do something harmless."""
    return await client.threads.retrieve("thread_1", **options)


async def received(**settings: Any) -> Received:
    """Return the request that a client with these settings sends."""
    async with (
        HostileServer(lambda _: THREAD) as server,
        AsyncClient(server.url, **settings) as client,
    ):
        await get(client)
    return server.requests[0]


def test_missing_address_names_the_shutdown_and_the_ways_on() -> None:
    """There is no default any more: the error says since when, and what to do."""
    with pytest.raises(ConfigError) as caught:
        AsyncClient()

    for words in ("2026-08-26", "base_url", "OPENAI_BASE_URL", ".azure(", ".local()"):
        assert words in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (LOCAL, LOCAL),
        (f"{LOCAL}/", LOCAL),
        (f"{LOCAL}///", LOCAL),
        ("http://localhost:1", "http://localhost:1"),
        ("http://runs.localhost/v1", "http://runs.localhost/v1"),
        ("http://LOCALHOST/v1", "http://LOCALHOST/v1"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1"),
        ("http://127.8.9.10/v1", "http://127.8.9.10/v1"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://x.services.ai.azure.com/api/projects/p", None),
    ],
)
def test_address_is_used_without_its_last_slash(given: str, used: str | None) -> None:
    """Loopback may be plain HTTP; anything may be HTTPS; nothing is warned of."""
    assert AsyncClient(given).base_url == (used or given)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8080/v1",
        "localhost",
        "//host/v1",
        "ftp://host/v1",
        "file:///etc/passwd",
        "http://",
        "http:///v1",
        "https://host:port/v1",
        "https://host:99999/v1",
        "https://[::1/v1",
        "https://user@host/v1",
        "https://user:secret@host/v1",
        "ftp://user:secret@host/v1",
        "https://host/v1?key=secret",
        "https://host/v1?",
        "https://host/v1#secret",
        "https://host/v 1",
        "https://host/v1\r\nX: y",
        "https://hóst/v1",
        "https://host\\@evil.example/v1",
        7,
        b"https://host/v1",
    ],
    ids=repr,
)
def test_unusable_address_is_refused(url: Any) -> None:
    """A `ConfigError` that shows no part that may be secret."""
    with pytest.raises(ConfigError, match="base_url") as caught:
        AsyncClient(url)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.openai.com/v1",
        "http://API.OpenAI.com/v1",
        "http://api.openai.com./v1",
        "http://eu.api.openai.com/v1",
        "http://x.openai.azure.com/openai",
        "http://x.services.ai.azure.com/api/projects/p",
        "http://x.openai.azure.us/openai",
    ],
)
def test_key_is_not_sent_in_the_clear_to_the_vendors(url: str) -> None:
    """Plain HTTP to the vendor or to Azure can only be a mistake."""
    with pytest.raises(ConfigError, match="https"):
        AsyncClient(url)
    with pytest.raises(ConfigError, match="https"):
        AsyncClient.azure(url, "key")
    with pytest.raises(ConfigError, match="https"):
        AsyncClient(LOCAL).with_options(base_url=url)


@pytest.mark.parametrize(
    "url", ["http://runs.example/v1", "http://10.0.0.7:8080/v1", "http://127.0.0.1.evil.example/v1"]
)
@pytest.mark.parametrize(
    "make",
    [
        AsyncClient,
        lambda url: AsyncClient.azure(url, "key"),
        lambda url: AsyncClient(LOCAL).with_options(base_url=url),
    ],
    ids=["client", "azure", "copy"],
)
def test_plain_http_elsewhere_is_warned_of_once(
    make: Callable[[str], AsyncClient], url: str
) -> None:
    """The warning points at the caller's line, and comes once for it."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for _ in range(3):
            make(url)

    assert [str(one.message).count("not encrypted") for one in seen] == [1]
    assert seen[0].filename == __file__


async def test_environment_is_used_where_nothing_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official SDK's four variables; what is given wins."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)

    from_environment = (await received()).headers
    given = (await received(api_key="k", organization="o", project="p")).headers

    assert AsyncClient().base_url == "https://env.example/v1"
    assert AsyncClient(LOCAL).base_url == LOCAL
    assert from_environment["authorization"] == "Bearer env-key"
    assert from_environment["openai-organization"] == "env-org"
    assert from_environment["openai-project"] == "env-project"
    assert given["authorization"] == "Bearer k"
    assert (given["openai-organization"], given["openai-project"]) == ("o", "p")


async def test_blank_variables_count_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty line in an `.env` file is no key."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "  ")

    headers = (await received()).headers

    assert not {"authorization", "openai-organization", "openai-project"} & headers.keys()
    with pytest.raises(ConfigError, match="no base_url"):
        AsyncClient()


async def test_first_version_of_the_protocol_is_asked_for() -> None:
    """The header the seeds began with."""
    assert (await received(assistants_version="v1")).headers["openai-beta"] == "assistants=v1"


async def test_defaults_are_sent_and_can_be_overruled() -> None:
    """Headers in any case, ours included; query values; each call's extras win."""
    async with (
        HostileServer(lambda _: THREAD) as server,
        AsyncClient(
            server.url,
            "k",
            default_headers={"x-team": "a", "AUTHORIZATION": "Basic x", "user-agent": "mine"},
            default_query={"api-version": "v1", "limit": 1},
        ) as client,
    ):
        await get(client)
        await get(client, extra_headers={"X-Team": "b"}, extra_query={"limit": 2})
        await client.request("GET", "/threads", query={"limit": 3})

    first, second, third = server.requests
    assert first.headers["authorization"] == "Basic x"
    assert first.headers["user-agent"] == "mine"
    assert [one.headers["x-team"] for one in server.requests] == ["a", "b", "a"]
    assert [one.query["limit"] for one in (first, second, third)] == [["1"], ["2"], ["3"]]
    assert {one.query["api-version"][0] for one in server.requests} == {"v1"}


async def test_no_header_is_sent_twice() -> None:
    """A header of the caller's replaces ours; two of one name would be ambiguous."""
    heads: list[bytes] = []
    from tests.transport.wire import listening

    async def answer(reader: Any, writer: Any) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"id":"thread_1"}')
        await writer.drain()

    extra = {"authorization": "Basic x", "idempotency-key": "mine", "content-type": "a/b"}
    async with (
        listening(answer) as port,
        AsyncClient(f"http://127.0.0.1:{port}/v1", "k") as client,
    ):
        await client.threads.create(extra_headers=extra)

    names = [line.split(b":")[0].lower() for line in heads[0].split(b"\r\n")[1:] if line]
    assert len(names) == len(set(names))
    assert b"Basic x" in heads[0]
    assert b"mine" in heads[0]


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"request_timeout": 0}, ValueError),
        ({"request_timeout": "5"}, TypeError),
        ({"connect_timeout": -1}, ValueError),
        ({"max_connections": 0}, ValueError),
        ({"max_retries": -1}, ValueError),
        ({"max_retries": 1.5}, TypeError),
        ({"default_headers": {"X Y": "1"}}, ValueError),
    ],
    ids=str,
)
def test_setting_out_of_bounds_is_refused(settings: dict[str, Any], kind: type[Exception]) -> None:
    """When the client is made, not at its first request."""
    with pytest.raises(kind):
        AsyncClient(LOCAL, **settings)


@pytest.mark.parametrize(
    "make", [lambda: RetryPolicy(jitter=2), lambda: PollPolicy(factor=0.5)], ids=["retry", "poll"]
)
def test_policy_out_of_bounds_is_refused(make: Callable[[], object]) -> None:
    """Policies check themselves."""
    with pytest.raises(ValueError, match="must be"):
        make()


async def test_copy_shares_connections_and_closes_nothing() -> None:
    """`with_options` is cheap: one connection for both, which only the original closes."""
    async with (
        HostileServer(lambda _: THREAD) as server,
        AsyncClient(server.url, "k", default_headers={"a": "1", "b": "1"}) as client,
    ):
        async with client.with_options(
            api_key="other", default_headers={"b": "2"}, assistants_version="v1"
        ) as copy:
            await get(copy)
        await copy.aclose()
        await get(client)
        await get(copy)

    assert server.accepted == 1
    first, second, _ = server.requests
    assert (first.headers["authorization"], second.headers["authorization"]) == (
        "Bearer other",
        "Bearer k",
    )
    assert (first.headers["a"], first.headers["b"], second.headers["b"]) == ("1", "2", "1")
    assert (first.headers["openai-beta"], second.headers["openai-beta"]) == (
        "assistants=v1",
        "assistants=v2",
    )


async def test_copy_ends_with_the_original() -> None:
    """Once the client is closed, its copies say so."""
    async with AsyncClient(LOCAL) as client:
        copy = client.with_options(request_timeout=1)

    with pytest.raises(ConfigError, match="closed"):
        await get(copy)


async def test_copy_changes_only_what_it_is_told() -> None:
    """Retries alone or the whole policy; an address of its own knows its own features."""
    features = {"openai-runs-features": "idempotency"}
    other = Answer(json={"id": "thread_2"}, headers=features)
    clock = ManualClock()
    async with HostileServer(lambda _: error(500)) as server, HostileServer(lambda _: other) as two:
        policy = RetryPolicy(initial=3, maximum=3)
        async with AsyncClient(server.url, retry=policy, seams=clock.runtime()) as client:
            for copy in (client.with_options(max_retries=1), client.with_options(max_retries=0)):
                with pytest.raises(Exception, match="HTTP 500"):
                    await get(copy)
            elsewhere = client.with_options(base_url=two.url)
            assert (await get(elsewhere)).id == "thread_2"
            assert elsewhere.base_url == two.url

    assert clock.slept == [3.0]
    assert len(server.requests) == 3


async def test_session_of_the_caller_is_used_and_never_closed() -> None:
    """Its own headers go along, and it goes on working afterwards."""
    async with (
        HostileServer(lambda _: THREAD) as server,
        aiohttp.ClientSession(headers={"X-Session": "1"}) as session,
    ):
        async with AsyncClient(server.url, session=session) as client:
            await get(client)
        assert not session.closed
        async with session.get(f"{server.url}/again") as response:
            assert response.status == 200

    assert server.requests[0].headers["x-session"] == "1"
