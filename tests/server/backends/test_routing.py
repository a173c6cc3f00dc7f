"""Each run goes to the endpoint of its model, under the name it has there, or to none by name."""

from __future__ import annotations

import doctest
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from openai_runs._transport import Transport
from openai_runs.config import MODEL_LIST_TIMEOUT, MODEL_LIST_TTL
from openai_runs.errors import ConfigError
from openai_runs.server import (
    ChatBackend,
    EchoBackend,
    Finish,
    ModelEvent,
    ModelFailure,
    ModelInfo,
    ModelRequest,
    Route,
    RoutingBackend,
    TextDelta,
)
from openai_runs.server.backends import models, routing
from openai_runs.server.backends.models import EndpointModels
from openai_runs.types.runs import Run, Usage
from tests.databases import Database
from tests.server.conftest import Serve
from tests.support import Action, Answer, Hang, HostileServer, Received


class Named:
    """Says its own name, and the model it was asked for."""

    def __init__(self, name: str, *listed: str, broken: bool = False) -> None:
        self.name = name
        self.listed = listed
        self.broken = broken
        self.closed = False

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Answer one model call."""
        yield TextDelta(f"{self.name}: {request.run.model}")
        yield Finish()

    async def list_models(self) -> list[ModelInfo]:
        """Return what it was given."""
        if self.broken:
            message = f"{self.name} does not answer."
            raise ModelFailure(message)
        return [ModelInfo(id=name, owned_by=self.name) for name in self.listed]

    async def aclose(self) -> None:
        """Close, with an error if it is broken."""
        self.closed = True
        if self.broken:
            message = "cannot close"
            raise RuntimeError(message)


def asked_for(model: str) -> ModelRequest:
    """Return a model call of a run with this model."""
    run = Run(id="run_1", thread_id="thread_1", status="in_progress", model=model)
    spent = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)
    return ModelRequest(run=run, messages=[], spent=spent)


async def answer_of(backend: RoutingBackend, model: str) -> str:
    """Return who was asked, and for which model."""
    events = [event async for event in backend.respond(asked_for(model))]
    return "".join(event.text for event in events if isinstance(event, TextDelta))


TWO = {"local": Named("local"), "cloud": Named("cloud")}
ONE = {"local": Named("local")}
ROWS: dict[str, str | Route] = {
    "qwen3": Route("local"),
    "deepseek-*": Route("cloud"),
    "deepseek-local": Route("local", "deepseek-r1:8b"),
    "claude": Route("cloud", "anthropic/claude"),
    "gpt-4o-mini": Route("cloud"),
    "gpt-4o*": "qwen3",
    "gpt-4o-2024-*": Route("cloud"),
    "o*-mini*": "claude",
    "org/*": Route("local"),
    "GPT": "deepseek-chat",
}
NAMES = {
    "as-it-is": ("qwen3", "local: qwen3"),
    "pattern": ("deepseek-chat", "cloud: deepseek-chat"),
    "exact-before-pattern": ("deepseek-local", "local: deepseek-r1:8b"),
    "renamed-route": ("claude", "cloud: anthropic/claude"),
    "renamed": ("gpt-4o", "local: qwen3"),
    "renamed-longer": ("gpt-4o-audio", "local: qwen3"),
    "first-pattern-counts": ("gpt-4o-2024-11-20", "local: qwen3"),
    "exact-before-renaming": ("gpt-4o-mini", "cloud: gpt-4o-mini"),
    "renamed-twice": ("o3-mini-high", "cloud: anthropic/claude"),
    "slash": ("org/model:7b", "local: org/model:7b"),
    "case": ("GPT", "cloud: deepseek-chat"),
}


@pytest.mark.parametrize(("model", "answer"), NAMES.values(), ids=NAMES)
async def test_run_goes_to_the_endpoint_of_its_model(model: str, answer: str) -> None:
    """Names, patterns and renames, each to the endpoint and the name that the rows say."""
    assert await answer_of(RoutingBackend(TWO, ROWS), model) == answer


NOWHERE = [
    "llama",
    "gpt",
    "DEEPSEEK-chat",
    "",
    "deepseek",
    "omini",
    "o3-min",
    "http://127.0.0.1:1/v1",
    "*" * 5000,
]


@pytest.mark.parametrize("model", NOWHERE, ids=[name[:20] or "empty" for name in NOWHERE])
def test_model_that_goes_nowhere_fails_with_the_list_of_names(model: str) -> None:
    """Where there are several endpoints, none is guessed."""
    backend = RoutingBackend(TWO, ROWS)

    with pytest.raises(ModelFailure) as asked:
        backend.respond(asked_for(model))
    with pytest.raises(ModelFailure) as checked:
        backend.check_model(model)

    assert asked.value.message == checked.value.message
    assert f"'{model[:100]}' is not served here" in checked.value.message
    assert "'deepseek-*'" in checked.value.message
    assert len(checked.value.message) < 1000


@pytest.mark.parametrize("rows", [None, {"gpt-4o*": "qwen3"}], ids=["no-rows", "rows"])
async def test_only_endpoint_gets_every_other_name_as_it_is(rows: Any) -> None:
    """There is nothing to choose; the endpoint itself says which models it has."""
    backend = RoutingBackend({"local": Named("local")}, rows)

    assert await answer_of(backend, "llama3") == "local: llama3"
    assert await answer_of(backend, "gpt-4o") == ("local: qwen3" if rows else "local: gpt-4o")


async def test_everything_else_goes_to_one_model() -> None:
    """`*` is the last resort, and the names before it keep their routes."""
    backend = RoutingBackend(TWO, {"gpt-4o": Route("cloud"), "*": Route("local", "qwen3")})

    assert await answer_of(backend, "gpt-4o") == "cloud: gpt-4o"
    assert await answer_of(backend, "anything") == "local: qwen3"


async def test_name_of_a_name_leads_where_the_last_one_does() -> None:
    """Renames may stand for each other; a name that stands for itself is the endpoint's."""
    last = Route("local", "qwen3:8b")
    two = RoutingBackend(TWO, {"gpt-4o*": "fast", "fast": "qwen", "qwen": last})
    chained = RoutingBackend(ONE, {"a": "b", "b": "c", "own": "own"})

    assert await answer_of(two, "gpt-4o-mini") == "local: qwen3:8b"
    assert await answer_of(two, "fast") == "local: qwen3:8b"
    assert [await answer_of(chained, name) for name in ("a", "b", "own")] == [
        *("local: c", "local: c", "local: own")
    ]


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "none": ({}, {}, "needs an endpoint"),
    "several-without-rows": (TWO, {}, "nothing says which models go where"),
    "no-such-endpoint": (TWO, {"a": Route("lokal")}, "'a': there is no endpoint 'lokal'"),
    "no-such-name": (TWO, {"a": "b"}, "'a': the model 'b' goes to no endpoint"),
    "circle": (TWO, {"a": "b", "b": "a"}, "'a' leads back to itself: 'a' -> 'b' -> 'a'"),
    "longer-circle": (ONE, {"a*": "b", "b": "c", "c": "b"}, "leads back to itself"),
    "pattern-right": (TWO, {"a": "b*"}, "'b*' is the name of no model"),
    "empty": (TWO, {"a": ""}, "'' is the name of no model"),
}


@pytest.mark.parametrize(("endpoints", "rows", "words"), WRONG.values(), ids=WRONG)
def test_row_that_leads_nowhere_is_refused_at_the_start(
    endpoints: Any, rows: Any, words: str
) -> None:
    """A mistake of the operator's is found before any run meets it."""
    with pytest.raises(ConfigError) as refused:
        RoutingBackend(endpoints, rows)

    assert words in str(refused.value)


async def test_run_that_goes_nowhere_is_refused_when_it_is_created(serve: Serve) -> None:
    """Whoever sent it reads why, and nothing is stored; an assistant may name any model."""
    caller = await serve(backend=RoutingBackend(TWO, ROWS))
    thread_id = await caller.thread("Hello!")
    body = {"assistant_id": await caller.assistant(model="llama")}

    for path in (f"/threads/{thread_id}/runs", "/threads/runs"):
        reply = await caller.send("POST", path, json=body)
        error = reply.json["error"]
        assert (reply.status, error["param"], error["code"]) == (400, "model", "model_not_found")
        assert "'llama' is not served here" in reply.message
    assert (await caller.get(f"/threads/{thread_id}/runs"))["data"] == []
    run = await caller.post(f"/threads/{thread_id}/runs", {**body, "model": "gpt-4o"})
    run = await caller.settled(run)
    assert (run["status"], run["model"]) == ("completed", "gpt-4o")
    text = (await caller.messages(run))[-1]["content"][0]["text"]["value"]
    assert text == "local: qwen3"


async def test_run_whose_model_is_gone_after_a_restart_fails_with_the_names(
    serve: Serve, tmp_path: Any, database: Database
) -> None:
    """The operator may have changed the routes while a run waited in the queue."""
    db = database(tmp_path / "kept.db")
    first = await serve(db=db, backend=RoutingBackend(TWO, ROWS), max_concurrent_runs=0)
    run = await first.start(model="gpt-4o")
    await first.close()

    second = await serve(db=db, backend=RoutingBackend(TWO, {"qwen3": Route("local")}))
    run = await second.settled(run)

    assert (run["status"], run["last_error"]["code"]) == ("failed", "server_error")
    assert "'gpt-4o' is not served here; there are: 'qwen3'" in run["last_error"]["message"]


async def test_list_has_the_configured_names_and_what_leads_to_an_endpoint_as_it_is() -> None:
    """A name that would get another model, or another endpoint's, is not listed as its own."""
    local = Named("local", "qwen3", "deepseek-chat", "gpt-4o", "org/small", "unrouted")
    cloud = Named("cloud", "deepseek-chat", "deepseek-r1", "deepseek-local")
    backend = RoutingBackend({"local": local, "cloud": cloud}, ROWS)

    listed = {info.id: info.owned_by for info in await backend.list_models()}

    ours = "openai-runs"
    assert listed == {
        "qwen3": "local",
        "org/small": "local",
        "deepseek-chat": "cloud",
        "deepseek-r1": "cloud",
        "deepseek-local": ours,
        "claude": ours,
        "gpt-4o-mini": ours,
        "GPT": ours,
    }


async def test_endpoint_that_does_not_answer_costs_the_list_only_its_own_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The rest is listed, and the log names the endpoint; with nothing left it is an error."""
    broken = Named("cloud", broken=True)
    rows: dict[str, str | Route] = {"x*": "qwen3", "qwen3": Route("local")}
    one = RoutingBackend({"local": Named("local", "qwen3"), "cloud": broken}, rows)

    for _ in range(3):
        assert [info.id for info in await one.list_models()] == ["qwen3"]
    lines = [line for line in caplog.messages if line.startswith("endpoint ")]
    assert lines == ["endpoint cloud: cloud does not answer."]
    with pytest.raises(ModelFailure, match="cloud does not answer"):
        await RoutingBackend({"cloud": broken}).list_models()


async def test_closing_closes_every_endpoint() -> None:
    """Also where one of them fails to; a backend need not be closable."""
    first, second = Named("first"), Named("second", broken=True)
    rows: dict[str, str | Route] = {"*": Route("first")}
    backend = RoutingBackend({"first": first, "second": second, "echo": EchoBackend()}, rows)

    with pytest.raises(RuntimeError, match="cannot close"):
        await backend.aclose()

    assert (first.closed, second.closed) == (True, True)


LISTS: dict[str, tuple[Action, list[str]]] = {
    "openai": (
        Answer(json={"object": "list", "data": [{"id": "b", "created": 7, "owned_by": "me"}]}),
        ["b"],
    ),
    "odd-items": (
        Answer(json={"data": [{"id": "a", "created": "x"}, {"name": "n"}, 3, {"id": "a"}, "c"]}),
        ["a", "c"],
    ),
    "bare-list": (Answer(json=[{"id": "a"}]), ["a"]),
    "models": (Answer(json={"models": [{"id": "a"}]}), ["a"]),
    "no-list": (Answer(404, json={"error": {"message": "no such page"}}), []),
    "other-method": (Answer(405), []),
}


@pytest.mark.parametrize(("answer", "names"), LISTS.values(), ids=LISTS)
async def test_models_of_an_endpoint_are_read_in_the_shapes_of_the_field(
    answer: Action, names: list[str]
) -> None:
    """An item that cannot be read costs only itself; an endpoint without a list has none."""
    async with HostileServer(lambda request: answer) as endpoint:
        backend = ChatBackend(endpoint.url, api_key="sk-model")
        listed = await backend.list_models()
        await backend.aclose()

    assert [info.id for info in listed] == names
    assert [(one.method, one.path) for one in endpoint.requests] == [("GET", "/v1/models")]
    assert endpoint.requests[0].headers["authorization"] == "Bearer sk-model"


FAILURES: dict[str, tuple[Action, str]] = {
    "key": (Answer(401, json={"error": {"message": "bad key sk-model"}}), "HTTP 401"),
    "broken": (Answer(500), "HTTP 500"),
    "no-json": (Answer(body=b"<html>"), "no list of models"),
    "no-items": (Answer(json={"data": None}), "no list of models"),
    "text": (Answer(json="models"), "no list of models"),
}


@pytest.mark.parametrize(("answer", "words"), FAILURES.values(), ids=FAILURES)
async def test_list_that_cannot_be_had_is_a_503_without_the_key(
    serve: Serve, answer: Action, words: str
) -> None:
    """The client is told what the endpoint said, and to come back."""
    async with HostileServer(lambda request: answer) as endpoint:
        caller = await serve(backend=ChatBackend(endpoint.url, api_key="sk-model"))
        reply = await caller.send("GET", "/models")
        await caller.close()

    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert words in reply.message
    assert "sk-model" not in reply.text


async def test_list_is_asked_for_once_by_many_callers_and_kept_for_a_while() -> None:
    """Clients that list models with every call do not reach the endpoint each time."""
    now = 0.0
    async with HostileServer(lambda request: Answer(json={"data": [{"id": "a"}]})) as endpoint:
        transport = Transport()
        listed = EndpointModels(transport, f"{endpoint.url}/models", {}, clock=lambda: now)
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(listed.get)
        assert len(endpoint.requests) == 1
        now = MODEL_LIST_TTL
        await listed.get()
        assert len(endpoint.requests) == 2
        await transport.aclose()


async def test_endpoint_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is bounded in time, whatever a model call may take."""
    assert MODEL_LIST_TIMEOUT <= 5
    monkeypatch.setattr(models, "MODEL_LIST_TIMEOUT", 0.05)
    async with HostileServer(lambda request: Hang()) as endpoint:
        backend = ChatBackend(endpoint.url, timeout=600)
        with pytest.raises(ModelFailure, match="did not answer with a list"):
            await backend.list_models()
        await backend.aclose()


async def test_chosen_model_is_the_only_one_that_is_listed() -> None:
    """`ChatBackend(model=)` asks that one, whatever a run says."""

    def refuse(request: Received) -> Action:
        raise AssertionError(request)

    async with HostileServer(refuse) as endpoint:
        backend = ChatBackend(endpoint.url, model="qwen3")
        assert [info.id for info in await backend.list_models()] == ["qwen3"]
        await backend.aclose()


@pytest.mark.parametrize("module", [models, routing], ids=["models", "routing"])
def test_examples_in_docstrings_hold(module: Any) -> None:
    """What a docstring shows is what happens."""
    found = doctest.testmod(module)

    assert (found.attempted > 0, found.failed) == (True, 0)
