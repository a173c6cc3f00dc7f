"""Ids, headers, redirects and keys: what must not change, follow or leak."""

from __future__ import annotations

import copy
import inspect
import io
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.traceback import Traceback

from openai_runs import APIError, APIStatusError, AsyncClient, Page
from openai_runs._client.streams.run_stream import RunStream
from openai_runs._protocol.endpoints import ENDPOINTS
from openai_runs._protocol.spec import check_id
from tests.canaries import CANARY_KEY, CANARY_PROMPT
from tests.client.ledger import error
from tests.support import Action, Answer, Drop, Hang, HostileServer, ManualClock, Received, run_json

KEY = CANARY_KEY
NOWHERE = "http://127.0.0.1:9/v1"
"""Nobody listens there: a request would fail otherwise than the checks do."""
BAD_IDS = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "%2e%2e",
    "a?b",
    "a#b",
    "a b",
    "a\r\nX: y",
    "a\x00",
    "\x7f",
    "\u0085",
    "\ud800",
    "x" * 300,
]
NOT_TEXT = [None, 7, b"run_1", ["run_1"]]
RESOURCES = ["assistants", "threads", "messages", "runs", "runs.steps"]
REQUIRED: dict[str, Any] = {
    "assistant_id": "asst_1",
    "concurrency": 1,
    "content": "Hi",
    "items": [],
    "metadata": {},
    "model": "m",
    "role": "user",
    "tool_outputs": [],
    "tools": [],
}
"""What methods ask for besides ids."""


def methods() -> Iterator[str]:
    """Yield each public coroutine or list of each resource."""
    client = AsyncClient(NOWHERE)
    for resource in RESOURCES:
        for name, _ in inspect.getmembers(attrgetter(resource)(client), inspect.ismethod):
            if not name.startswith("_"):
                yield f"{resource}.{name}"


def arguments_of(method: str) -> dict[str, Any]:
    """Return good values for what the method requires."""
    function = attrgetter(method)(AsyncClient(NOWHERE))
    given: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            known = {**REQUIRED, "run": "run_1"}
            given[name] = known.get(name, f"{name.removesuffix('_id')}_1")
    if "run" in given:
        given = {"run": "run_1", "thread_id": "thread_1"}
    return given


def takes_headers(method: str) -> bool:
    """Tell whether the method takes `extra_headers`."""
    signature = inspect.signature(attrgetter(method)(AsyncClient(NOWHERE)))
    return "extra_headers" in signature.parameters


_OF_RUNS = {"runs.result", "runs.timeline", "runs.wait_all", "runs.as_completed", "runs.map"}
METHODS = [name for name in methods() if name not in _OF_RUNS]
"""All but those that take runs or items in place of ids."""
IDS = [
    (method, name)
    for method in METHODS
    for name in arguments_of(method)
    if name.endswith("_id") or name == "run"
]


async def carry_out(client: AsyncClient, method: str, arguments: dict[str, Any]) -> object:
    """Call the method, and await what it returns, or enter it where it is a stream."""
    outcome = attrgetter(method)(client)(**arguments)
    if isinstance(outcome, RunStream):
        async with outcome:
            return outcome
    return await outcome


def test_every_operation_is_reached_by_a_method() -> None:
    """The inventory below is not empty by mistake: there are as many methods as operations."""
    assert len(METHODS) >= len(ENDPOINTS)
    assert len(IDS) > len(ENDPOINTS)


@pytest.mark.parametrize(("method", "name"), IDS, ids=[f"{method} {name}" for method, name in IDS])
async def test_bad_id_is_refused_before_anything_is_sent(method: str, name: str) -> None:
    """Each id of each method: `ValueError` or `TypeError` that names it."""
    sent: list[Received] = []

    def handler(request: Received) -> Action:
        sent.append(request)
        return Answer(json=run_json("completed"))

    async with HostileServer(handler) as server, AsyncClient(server.url) as client:
        for bad in BAD_IDS + NOT_TEXT:
            kind = ValueError if isinstance(bad, str) else TypeError
            named = "run|thread_id" if name == "run" else name
            with pytest.raises(kind, match=named):
                await carry_out(client, method, {**arguments_of(method), name: bad})

    assert sent == []


@pytest.mark.parametrize("method", [name for name in METHODS if takes_headers(name)])
@pytest.mark.parametrize(
    "headers",
    [
        {"X-Note": f"{KEY}\r\nEvil: 1"},
        {"X-Note": f"{KEY}\n"},
        {"X-Note": f"{KEY}\x00"},
        {"X-Note\r\nEvil": "1"},
        {"X Note": "1"},
        {"": "1"},
        {"X-Note": None},
        {"X-Note": 7},
    ],
    ids=["crlf", "lf", "nul", "name", "space", "empty", "none", "number"],
)
async def test_bad_header_is_refused_before_anything_is_sent(
    method: str, headers: dict[str, Any]
) -> None:
    """Each method: the error names the header, and does not show the value."""
    async with HostileServer(lambda _: Drop()) as server, AsyncClient(server.url) as client:
        arguments = {**arguments_of(method), "extra_headers": headers}
        with pytest.raises((ValueError, TypeError)) as caught:
            await carry_out(client, method, arguments)

    assert not isinstance(caught.value, APIError)
    assert KEY not in str(caught.value)
    assert "header" in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize("bad", ["a\r\nEvil: 1", "a\n", "a\x00", "\ud800"])
@pytest.mark.parametrize(
    "name", ["api_key", "organization", "project", "assistants_version", "default_headers"]
)
def test_bad_setting_is_refused_when_the_client_is_made(name: str, bad: str) -> None:
    """What would be sent with each request is checked once, and not shown."""
    value: Any = {"X-Note": bad} if name == "default_headers" else bad

    with pytest.raises(ValueError, match="header") as caught:
        AsyncClient(NOWHERE, **{name: value})

    assert bad not in str(caught.value)


async def test_bad_key_from_a_callable_is_refused_before_it_is_sent() -> None:
    """A key read from a file with its line break says so, and not which key."""
    async with (
        HostileServer(lambda _: Drop()) as server,
        AsyncClient(server.url, lambda: f"{KEY}\n") as client,
    ):
        with pytest.raises(ValueError, match="Authorization") as caught:
            await client.threads.create()

    assert KEY not in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize("bad", ["a\r\nEvil: 1", "", 7])
async def test_bad_idempotency_key_is_refused_before_anything_is_sent(bad: Any) -> None:
    """An empty key would be no key at all."""
    async with HostileServer(lambda _: Drop()) as server, AsyncClient(server.url) as client:
        with pytest.raises((ValueError, TypeError), match=r"(?i)idempotency.key"):
            await client.threads.create(idempotency_key=bad)
        with pytest.raises((ValueError, TypeError), match=r"(?i)idempotency.key"):
            await client.runs.create("thread_1", assistant_id="a", idempotency_key=bad)

    assert server.requests == []


@given(st.text(max_size=40))
def test_id_that_is_let_through_is_one_part_of_the_path(text: str) -> None:
    """Whatever is not refused is quoted so that it stays where it was put."""
    try:
        quoted = check_id("run_id", text)
    except ValueError:
        return

    assert quoted.isascii()
    assert not set("/\\?# \r\n") & set(quoted)
    assert quoted not in {"", ".", ".."}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["other", "same"])
async def test_redirect_is_never_followed(status: int, method: str, target: str) -> None:
    """Neither body nor key reaches the target; the error names where it would have gone."""
    async with HostileServer(lambda _: Answer(json={"id": "thread_9"})) as other:

        def handler(request: Received) -> Action:
            base = other.url if target == "other" else server.url
            return Answer(status, headers={"Location": f"{base}/elsewhere?secret={KEY}"})

        async with (
            HostileServer(handler) as server,
            AsyncClient(server.url, KEY, default_headers={"api-key": KEY}) as client,
        ):
            body = {"a": "b"} if method == "POST" else None
            with pytest.raises(APIStatusError, match="elsewhere") as caught:
                await client.request(method, "/threads", json=body)

    assert caught.value.status_code == status
    assert not caught.value.maybe_created
    assert KEY not in str(caught.value)
    assert len(server.requests) == 1
    assert other.requests == []


async def test_cookies_are_neither_kept_nor_sent() -> None:
    """A server cannot tie the calls of a client together."""
    thread = Answer(json={"id": "thread_1"}, headers={"Set-Cookie": "a=b"})
    async with HostileServer(lambda _: thread) as server, AsyncClient(server.url) as client:
        await client.threads.create()
        await client.threads.create()

    assert all("cookie" not in request.headers for request in server.requests)


def shown(value: object) -> str:
    """Return `value` in all the ways in which it might be printed."""
    console = Console(file=io.StringIO(), width=200)
    console.print(value)
    assert isinstance(console.file, io.StringIO)
    return repr(value) + str(value) + pprint.pformat(value) + console.file.getvalue()


def depths(value: object, depth: int = 5) -> Iterator[object]:
    """Yield the object and what its attributes hold, some levels down."""
    yield value
    if depth and hasattr(value, "__dict__"):
        for held in vars(value).values():
            yield from depths(held, depth - 1)


LONG_KEY = KEY * 5
"""As long as a bearer token, which rich cuts before it shows it."""


@pytest.mark.parametrize("key", [KEY, LONG_KEY], ids=["short", "long"])
@pytest.mark.parametrize(
    "make",
    [
        lambda key: AsyncClient(NOWHERE, key),
        lambda key: AsyncClient.azure("https://x.services.ai.azure.com/api/projects/p", key),
        lambda key: AsyncClient(NOWHERE).with_options(api_key=key),
        lambda key: AsyncClient(NOWHERE, default_headers={"api-key": key}),
    ],
    ids=["client", "azure", "copy", "header"],
)
def test_key_is_in_no_representation(make: Callable[[str], AsyncClient], key: str) -> None:
    """Of the client, of all that it holds, printed in any way."""
    client = make(key)

    for held in depths(client):
        assert KEY not in shown(held)


def test_client_cannot_be_pickled() -> None:
    """Nor copied with its key into another process by mistake."""
    client = AsyncClient(NOWHERE, KEY)

    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(client)
    with pytest.raises(TypeError):
        copy.deepcopy(client)


FAILURES: dict[str, Callable[[str], Action]] = {
    "refusal": lambda key: error(401, f"Incorrect API key provided: Bearer {key}"),
    "echo": lambda key: Answer(403, {"error": {"message": f"api-key: {key} may not do this"}}),
    "drop": lambda key: Drop(),
    "hang": lambda key: Hang(),
    "html": lambda key: Answer(body=f"<p>Authorization: Bearer {key}</p>".encode()),
    "json": lambda key: Answer(body=f'{{"headers": {{"api-key": "{key}"}}}}'.encode()),
    "redirect": lambda key: Answer(302, headers={"Location": f"https://x.invalid/?key={key}"}),
}


@pytest.mark.parametrize("key", [KEY, LONG_KEY], ids=["short", "long"])
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_key_is_in_no_exception_traceback_or_log(
    failure: Callable[[str], Action], key: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in text, arguments, causes and pickles, nor in rich's local variables."""
    caplog.set_level(logging.DEBUG)
    async with HostileServer(lambda _: failure(key)) as server:
        runtime = ManualClock().runtime()
        client = AsyncClient(server.url, key, request_timeout=0.1, seams=runtime)
        with pytest.raises(APIError) as caught:
            await client.runs.retrieve("run_1", thread_id="thread_1")
        await client.aclose()

    problem = caught.value
    told = [str(problem), repr(problem), repr(problem.args), caplog.text]
    told += [repr(vars(problem).get(name)) for name in ("message", "code", "param", "type")]
    told += traceback.format_exception(problem)
    if not isinstance(failure(key), Answer):  # rich shows what came from the socket as well
        told += [with_locals(problem), repr(vars(problem)), repr(pickle.dumps(problem))]
    assert [text for text in told if KEY in text] == []


def with_locals(problem: BaseException) -> str:
    """Return rich's traceback with the local variables of our frames and of aiohttp's."""
    frames = [frame for frame, _ in traceback.walk_tb(problem.__traceback__)]
    own = problem.__traceback__
    while own is not None and own.tb_frame.f_code.co_filename == frames[0].f_code.co_filename:
        own = own.tb_next  # this file's own frames know the key, of course
    console = Console(file=io.StringIO(), width=400)
    console.print(Traceback.from_exception(type(problem), problem, own, show_locals=True))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_bodies_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """DEBUG tells which operation failed and how, not what was said."""
    caplog.set_level(logging.DEBUG)
    answers: list[Action] = [error(429, "private answer"), Answer(json={"id": "thread_1"})]
    async with (
        HostileServer(lambda _: answers.pop(0)) as server,
        AsyncClient(server.url, KEY, seams=ManualClock().runtime()) as client,
    ):
        await client.threads.create(messages=[{"role": "user", "content": CANARY_PROMPT}])

    assert "createThread" in caplog.text
    assert CANARY_PROMPT not in caplog.text


async def test_page_of_a_copy_needs_no_key_to_be_shown() -> None:
    """A page knows how to fetch the next one, and does not show with what."""
    page_json = {"object": "list", "data": [], "has_more": False}
    async with (
        HostileServer(lambda _: Answer(json=page_json)) as server,
        AsyncClient(server.url, KEY) as client,
    ):
        page: Page[Any] = await client.runs.list("thread_1")

    assert KEY not in shown(page)
    assert KEY.encode() not in pickle.dumps(page)
