"""What every call does: address, headers, faults of the answer, facts on the exception."""

from __future__ import annotations

import gzip
import pickle
import platform
import ssl
import traceback
from operator import attrgetter
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import trustme

import openai_runs
from openai_runs import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    AsyncClient,
    NotFoundError,
    OpenAIRunsError,
    Thread,
)
from openai_runs import __version__ as release
from openai_runs.config import MAX_ANSWER_BYTES
from tests.client.ledger import Ledger, error
from tests.samples import ERRORS, raw
from tests.support import Action, Answer, Drop, HostileServer, ManualClock, Raw, run_json
from tests.transport.test_connecting import NoNames, answer, certified
from tests.transport.wire import free_port, listening

PACKAGE = f"{Path(openai_runs.__file__).parent}/"
DEEP = b"[" * 1_000_000 + b"]" * 1_000_000
"""Too deep for each Python: from 3.14 on the stack is the limit, and not a number of calls."""
JSON = b'{"id": "thread_1", "object": "thread", "created_at": 1}'
SECRET = "sk-live-abcdefgh1234"
HTML = f"<html>\n<p>Bearer {SECRET} is\nnot welcome</p></html>".encode()


def client_of(server: HostileServer, **options: Any) -> AsyncClient:
    """Return a client that does not wait."""
    return AsyncClient(server.url, seams=ManualClock().runtime(), **options)


async def get(client: AsyncClient, **options: Any) -> Thread:
    """Do something harmless."""
    return await client.threads.retrieve("thread_1", **options)


async def test_headers_are_those_of_the_protocol() -> None:
    """No header of docs/pages/explain/protocol.md is missing, and none is there twice."""
    options: dict[str, Any] = {"organization": "org_1", "project": "proj_1", "api_key": "k"}
    thread = Answer(json={"id": "thread_1"})
    async with HostileServer(lambda _: thread) as server, client_of(server, **options) as client:
        await get(client)
        await client.threads.create()

    got, posted = (request.headers for request in server.requests)
    common = {
        "authorization": "Bearer k",
        "openai-beta": "assistants=v2",
        "openai-organization": "org_1",
        "openai-project": "proj_1",
        "accept": "application/json",
        "user-agent": f"openai_runs/{release} Python/{platform.python_version()}",
    }
    assert common.items() <= got.items()
    assert common.items() <= posted.items()
    assert "idempotency-key" not in got
    assert "content-type" not in got
    assert posted["content-type"] == "application/json"
    assert len(posted["idempotency-key"]) == 32


async def test_each_create_has_a_key_of_its_own() -> None:
    """The key tells one call from the next, not one client from another."""
    async with (
        HostileServer(lambda _: Answer(json={"id": "thread_1"})) as server,
        client_of(server) as client,
    ):
        await client.threads.create()
        await client.threads.create()

    assert len({request.headers["idempotency-key"] for request in server.requests}) == 2


async def test_answer_knows_its_exchange() -> None:
    """`.http` holds status, headers, request id and allowance; it is no part of the object."""
    headers = {
        "X-Request-Id": "req_1",
        "x-ratelimit-remaining-requests": "7",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    thread = Answer(json={"id": "thread_1"}, headers=headers)
    async with HostileServer(lambda _: thread) as server, client_of(server) as client:
        found = await get(client)

    assert found.http is not None
    assert (found.http.status, found.http.attempts) == (200, 1)
    assert found.http.request_id == "req_1"
    assert found.http.headers["x-request-ID"] == "req_1"
    assert found.http.rate_limit.remaining_requests == 7
    assert found.http.rate_limit.reset_tokens == "6m0s"
    assert "http" not in repr(found)
    assert "http" not in found.to_json()


UNREADABLE = {
    "truncated": Answer(body=JSON[:-5]),
    "html": Answer(body=HTML, headers={"Content-Type": "text/html"}),
    "html-as-json": Answer(body=HTML),
    "empty": Answer(body=b""),
    "no-content": Answer(204, body=b""),
    "nested": Answer(body=DEEP),
    "nested-field": Answer(body=b'{"id": "t", "x": ' + DEEP + b"}"),
    "array": Answer(body=b"[]"),
    "null": Answer(body=b"null"),
    "no-id": Answer(json={"object": "thread"}),
    "id-of-a-wrong-kind": Answer(json={"id": {}}),
    "nan": Answer(body=b'{"id": NaN}'),
    "stream": Answer(body=b"event: done\ndata: [DONE]\n\n"),
    "two": Answer(body=JSON + JSON),
}


@pytest.mark.parametrize("reply", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_unreadable_answer_is_an_error_with_an_excerpt(reply: Answer) -> None:
    """It says what is wrong, shows at most 200 characters on one line, and no secret."""
    async with HostileServer(lambda _: reply) as server, client_of(server) as client:
        with pytest.raises(APIResponseValidationError) as caught:
            await get(client)

    failure = caught.value
    shown = failure.body or ""
    assert failure.status_code == reply.status
    assert failure.thread_id == "thread_1"
    assert not failure.maybe_created
    assert len(server.requests) == 1
    assert len(shown) <= 200
    assert shown.isprintable()
    assert SECRET not in str(failure) + repr(failure) + shown
    assert len(str(failure)) < 600
    assert "GET" in str(failure)


async def test_unreadable_field_is_named_by_its_path() -> None:
    """A known field of a hopeless shape: `$.created_at`."""
    reply = Answer(json={"id": "thread_1", "created_at": "yesterday"})
    async with HostileServer(lambda _: reply) as server, client_of(server) as client:
        with pytest.raises(APIResponseValidationError, match=r"\$\.created_at"):
            await get(client)


DAMAGED = {
    "bom": b"\xef\xbb\xbf" + JSON,
    "half of a pair": b'{"id": "thread_1", "metadata": {"a": "b \\ud83d"}}',
    "latin-1": '{"id": "thread_1", "metadata": {"a": "b \xe9"}}'.encode("latin-1"),
    "raw line break": b'{"id": "thread_1", "metadata": {"a": "b \n"}}',
    "encoded twice": msgspec.json.encode('{"id": "thread_1", "metadata": {"a": "b"}}'),
    "no number": b'{"id": "thread_1", "novel": [NaN, 1e999]}',
}


@pytest.mark.parametrize("body", DAMAGED.values(), ids=DAMAGED)
async def test_value_that_is_no_json_costs_only_itself(body: bytes) -> None:
    """The object is read, and its JSON can be had and sent on."""
    async with HostileServer(lambda _: Answer(body=body)) as server, client_of(server) as client:
        found = await get(client)

    assert found.id == found.to_dict()["id"] == "thread_1"
    assert "b" in (found.metadata or {"a": "b"})["a"]
    assert found.to_json().encode()


@pytest.mark.parametrize("kind", ["text/html", "text/plain; charset=latin-1", "", "nonsense"])
async def test_readable_answer_is_read_whatever_it_is_called(kind: str) -> None:
    """Self-hosted servers and proxies label JSON as they please; the body counts."""
    reply = Answer(body=JSON, headers={"Content-Type": kind})
    async with HostileServer(lambda _: reply) as server, client_of(server) as client:
        assert (await get(client)).id == "thread_1"


async def test_answer_is_bounded() -> None:
    """One byte over the limit, however well compressed, is refused; a create may exist."""
    bomb = gzip.compress(b" " * (MAX_ANSWER_BYTES + 1))
    reply = Answer(body=bomb, headers={"Content-Encoding": "gzip"})
    async with HostileServer(lambda _: reply) as server, client_of(server) as client:
        with pytest.raises(APIResponseValidationError, match="larger than") as caught:
            await get(client)
        with pytest.raises(APIResponseValidationError) as created:
            await client.threads.create()

    assert caught.value.attempts == 1
    assert caught.value.thread_id == "thread_1"
    assert not caught.value.maybe_created
    assert created.value.maybe_created


@pytest.mark.parametrize("part", [b"{}", b"[]", b"[{}]", b'{"a":[]}'])
async def test_answer_of_millions_of_tiny_parts_is_refused(part: bytes) -> None:
    """Parsed, it would take fifty times its size."""
    many = b"[" + b",".join([part] * 2_000_000) + b"]"
    body = b'{"id": "thread_1", "metadata": {"x": ' + many + b"}}"
    async with (
        HostileServer(lambda request: Answer(body=body)) as server,
        AsyncClient(server.url) as client,
    ):
        with pytest.raises(APIResponseValidationError, match="2000000 objects and arrays"):
            await client.threads.retrieve("thread_1")


async def test_page_that_is_too_large_is_an_error_that_names_limit() -> None:
    """Smaller pages are the way out, before servers that do not end a page by its size."""
    bomb = gzip.compress(b" " * (MAX_ANSWER_BYTES + 1))
    reply = Answer(body=bomb, headers={"Content-Encoding": "gzip"})
    async with HostileServer(lambda _: reply) as server, client_of(server) as client:
        with pytest.raises(APIResponseValidationError, match=r"larger than .* limit=") as caught:
            await client.messages.list("thread_1")

    assert caught.value.thread_id == "thread_1"


@pytest.mark.parametrize("name", ERRORS)
async def test_error_answers_of_all_servers_keep_the_ids(name: str) -> None:
    """Whatever the body looks like, the exception knows status, thread, run and request."""
    status = int(name[:3])
    reply = Answer(status, body=raw(f"errors/{name}"), headers={"x-request-id": "req_7"})
    async with HostileServer(lambda _: reply) as server, client_of(server) as client:
        with pytest.raises(APIStatusError) as caught:
            await client.runs.retrieve("run_1", thread_id="thread_1")

    failure = caught.value
    assert failure.status_code == status
    assert (failure.thread_id, failure.run_id) == ("thread_1", "run_1")
    assert failure.request_id == "req_7"
    assert pickle.loads(pickle.dumps(failure)).__dict__ == failure.__dict__


async def test_failures_of_connecting_are_told_apart() -> None:
    """Refused, no such host, an untrusted certificate: one class, three texts, nothing sent."""
    clock = ManualClock()
    resolver = aiohttp.TCPConnector(resolver=NoNames())
    async with (
        aiohttp.ClientSession(connector=resolver) as lost,
        listening(answer, certified(trustme.CA(), "localhost")) as port,
    ):
        cases: list[tuple[str, dict[str, Any], str, int]] = [
            (f"http://127.0.0.1:{free_port()}/v1", {}, "no connection", 3),
            ("https://nobody.invalid/v1", {"session": lost}, "cannot be resolved", 3),
            (f"https://localhost:{port}/v1", {}, "not trusted", 1),
        ]
        for url, options, text, attempts in cases:
            async with AsyncClient(url, seams=clock.runtime(), **options) as client:
                with pytest.raises(APIConnectionError, match=text) as caught:
                    await client.threads.create()
            assert caught.value.attempts == attempts
            assert (caught.value.sent, caught.value.maybe_created) == (False, False)


async def test_verified_server_is_used_when_its_authority_is_given() -> None:
    """`ssl=` takes a context; without one the system's trust holds."""
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with (
        listening(answer, certified(authority, "localhost")) as port,
        AsyncClient(f"https://localhost:{port}/v1", ssl=context) as client,
    ):
        assert await client.request("GET", "/anything") == {}


async def test_own_404_does_not_speak_of_the_vendor() -> None:
    """Another server's 404 is about the object."""
    async with HostileServer(Ledger()) as server, client_of(server) as client:
        with pytest.raises(NotFoundError) as caught:
            await client.runs.retrieve("run_9", thread_id="thread_1")

    assert "2026" not in str(caught.value)
    assert "run_9" in str(caught.value)


class Frames:
    """A middleware that notes which functions of ours are on the stack."""

    def __init__(self) -> None:
        """Start with none."""
        self.names: list[str] = []

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Note them, innermost first."""
        self.names = [
            frame.f_code.co_name
            for frame, _ in traceback.walk_stack(None)
            if frame.f_code.co_filename.startswith(PACKAGE)
        ]
        return await handler(request)


@pytest.mark.parametrize(
    ("name", "arguments", "most"),
    [
        ("runs.retrieve", {"run_id": "run_1", "thread_id": "thread_1"}, 4),
        ("runs.cancel", {"run_id": "run_1", "thread_id": "thread_1"}, 4),
        ("threads.create", {}, 4),
        ("request", {"method": "GET", "path": "/files"}, 4),
        ("runs.create", {"thread_id": "t", "assistant_id": "a"}, 5),
        ("runs.create", {"thread_id": "t", "assistant_id": "a", "on_active_run": "wait"}, 6),
    ],
    ids=["retrieve", "cancel", "create-thread", "request", "create", "create-and-wait"],
)
async def test_few_frames_stand_between_the_caller_and_the_wire(
    name: str, arguments: dict[str, Any], most: int
) -> None:
    """At most four of ours for a plain call; a safe create and waiting may add one each."""
    frames = Frames()
    run = Answer(json=run_json())
    async with (
        HostileServer(lambda _: run) as server,
        aiohttp.ClientSession(middlewares=[frames]) as session,
        client_of(server, session=session) as client,
    ):
        await attrgetter(name)(client)(**arguments)

    assert 0 < len(frames.names) <= most, frames.names


@pytest.mark.parametrize(
    "action",
    [
        Drop(),
        Raw(b"\x00" * 100),
        Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        Raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        Raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"),
        error(302, location="http://elsewhere.invalid/"),
    ],
    ids=["drop", "zeros", "bad-chunk", "negative-length", "no-gzip", "redirect"],
)
async def test_every_exception_is_ours_whatever_the_server_does(action: Action) -> None:
    """No foreign exception gets out, and each knows the thread."""
    async with (
        HostileServer(lambda _: action) as server,
        client_of(server, max_retries=0) as client,
    ):
        with pytest.raises(APIError) as caught:
            await get(client)

    assert isinstance(caught.value, OpenAIRunsError)
    assert caught.value.thread_id == "thread_1"
