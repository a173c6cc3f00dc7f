"""runs.map: the outcomes of many runs, and what one of them does to the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypedDict

import anyio
import pytest

from openai_runs import (
    APIError,
    AsyncClient,
    ConfigError,
    NotFoundError,
    PollPolicy,
    RetryPolicy,
    Run,
    RunMap,
    RunResult,
    RunWaitTimeout,
    tool,
)
from openai_runs.testing import RunsServer
from tests.client.batching import Desk, again, drain, items_of, outcomes
from tests.client.ledger import error
from tests.support import Drop, HostileServer

QUICK = PollPolicy(initial=0.05, maximum=0.05)
ASSISTANT = {"assistant_id": "asst_1"}


class Case(TypedDict):
    """What a batch needs."""

    concurrency: int
    assistant_id: str


CASE: Case = {"concurrency": 3, "assistant_id": "asst_1"}


@pytest.fixture
def desk() -> Desk:
    """A server of many runs."""
    return Desk()


@pytest.fixture
async def server(desk: Desk) -> AsyncIterator[HostileServer]:
    """Serve it."""
    async with HostileServer(desk) as one:
        yield one


@pytest.fixture
async def client(server: HostileServer) -> AsyncIterator[AsyncClient]:
    """A client of it."""
    async with AsyncClient(server.url, poll=QUICK) as one:
        yield one


@pytest.mark.parametrize("source", [items_of, again])
async def test_each_outcome_comes_with_its_key(
    client: AsyncClient, desk: Desk, source: Callable[[list[str]], Any]
) -> None:
    """More items than may go at once, from a generator, sync or async."""
    names = [f"t{number}" for number in range(20)]

    found = await outcomes(client.runs.map(source(names), **CASE))

    assert sorted(found) == sorted(names)
    assert {name: result.run.thread_id for name, result in found.items()} == {n: n for n in names}
    assert len(desk.bodies) == 20


async def test_outcomes_come_as_runs_end(client: AsyncClient, desk: Desk) -> None:
    """A run that takes long holds up nobody but itself."""
    desk.statuses["slow"] = "in_progress"

    async with client.runs.map(items_of(["slow", "a", "b", "c", "d"]), **CASE) as results:
        first = [(await anext(results))[0] for _ in range(4)]
        desk.statuses.clear()
        last, _ = await anext(results)

    assert sorted(first) == ["a", "b", "c", "d"]
    assert last == "slow"


ONCE: dict[str, Callable[[], dict[str, Any]]] = {
    "include": lambda: {"include": (one for one in ["a", "b"])},
    "tools": lambda: {"tools": (one for one in [{"type": "file_search"}])},
    "nested": lambda: {"tool_choice": {"modes": (one for one in ["a", "b"])}},
}
"""Settings of a batch that can be read once."""


@pytest.mark.parametrize("given", ONCE.values(), ids=ONCE)
async def test_setting_that_can_be_read_once_holds_for_each_item(
    client: AsyncClient, server: HostileServer, given: Callable[[], dict[str, Any]]
) -> None:
    """A generator among the settings is read once, and all runs are created with what it gave."""
    await outcomes(client.runs.map(items_of(["a", "b", "c"]), **CASE, **given()))

    posts = server.seen("POST", "/runs")
    [name] = given()
    sent = [post.json.get(name, post.query.get("include[]")) for post in posts]
    assert sent[0] in (["a", "b"], [{"type": "file_search"}], {"modes": ["a", "b"]})
    assert sent == [sent[0]] * 3


async def test_input_is_not_taken_faster_than_outcomes_are_read(client: AsyncClient) -> None:
    """Never more than `concurrency` items beyond those that were read."""
    pulled: list[str] = []
    read = 0

    def endless() -> Iterator[tuple[int, dict[str, str]]]:
        while True:
            assert len(pulled) < read + 3
            pulled.append("one")
            yield len(pulled), {"thread_id": f"t{len(pulled)}"}

    async with client.runs.map(endless(), **CASE) as results:
        async for _ in results:
            read += 1
            await anyio.sleep(0.01)
            assert results.pulled == len(pulled) <= read + 3
            if read == 12:
                break

    assert (results.running, results.failed) == (0, 0)


async def test_one_failure_ends_no_other(client: AsyncClient, desk: Desk) -> None:
    """A run that fails is a result, a refusal and a bad argument are errors, with their keys."""
    desk.statuses["fails"] = "failed"
    items: list[Any] = [
        ("fails", {"thread_id": "fails"}),
        ("missing", {"thread_id": "missing"}),
        ("id", {"thread_id": "../t"}),
        ("name", {"thread_id": "t", "modle": "m"}),
        ("value", {"thread_id": "t", "metadata": object()}),
        ("option", {"thread_id": "t", "timeout": -1}),
        ("format", {"thread_id": "t", "tools": [len, len]}),
        ("header", {"thread_id": "t", "extra_headers": {"x": "a\r\nb"}}),
        ("nothing", None),
        ("fine", {"thread_id": "t"}),
    ]

    found = await outcomes(client.runs.map(items, **CASE))

    assert found["fails"].run.status == "failed"
    assert isinstance(found["missing"], NotFoundError)
    assert found["fine"].run.status == "completed"
    refused = {key: error for key, error in found.items() if isinstance(error, ConfigError)}
    assert set(refused) == {"id", "name", "value", "option", "format", "header", "nothing"}
    for key, refusal in refused.items():
        assert str(refusal).startswith(f"the item {key!r} cannot be sent: ")
        assert isinstance(refusal.__cause__, TypeError | ValueError)


async def test_missing_assistant_is_an_error_of_its_item(client: AsyncClient) -> None:
    """It may stand in each item, or be given for all."""
    items = [(1, {"thread_id": "t"}), (2, {"thread_id": "t", "assistant_id": "asst_2"}), (3, {})]

    found = await outcomes(client.runs.map(items, concurrency=2))

    assert isinstance(found[1], ConfigError)
    assert isinstance(found[2], RunResult)
    assert isinstance(found[3], ConfigError)


async def test_keys_are_the_callers(client: AsyncClient) -> None:
    """They may be anything, and come twice."""
    key = ["not", "hashable"]
    items = [(key, {"thread_id": "a"}), (key, {"thread_id": "b"})]

    found = [pair async for pair in client.runs.map(items, **CASE)]

    assert [one is key for one, _ in found] == [True, True]


async def test_item_wins_over_what_is_given_for_all(client: AsyncClient, desk: Desk) -> None:
    """Without a thread, what concerns a busy one is left out."""
    items: list[tuple[int, dict[str, Any]]] = [
        (1, {"thread_id": "t", "model": "own"}),
        (2, {"thread": {"messages": []}, "assistant_id": "asst_2"}),
    ]

    await outcomes(
        client.runs.map(
            items, concurrency=1, assistant_id="asst_1", model="all", on_active_run="wait"
        )
    )

    first, second = desk.bodies
    assert (first["model"], first["assistant_id"]) == ("own", "asst_1")
    assert second == {"model": "all", "assistant_id": "asst_2", "thread": {"messages": []}}


@pytest.mark.parametrize("source", [items_of, again])
async def test_error_of_the_input_is_raised_when_all_that_was_going_has_come(
    client: AsyncClient, source: Callable[[Any], Any]
) -> None:
    """It is the caller's own, so it is raised as it is, once; then the batch is over."""

    def broken() -> Iterator[str]:
        yield "a"
        yield "b"
        raise LookupError

    results = client.runs.map(source(broken()), **CASE)
    found = [(await anext(results))[0] for _ in range(2)]
    with pytest.raises(LookupError):
        await anext(results)

    assert sorted(found) == ["a", "b"]
    assert await anext(results, None) is None


@pytest.mark.parametrize("item", ["abc", 7, (1, 2, 3)])
async def test_item_that_is_no_pair_is_an_error_of_the_input(
    client: AsyncClient, item: Any
) -> None:
    """There is no key to tell it by."""
    results = client.runs.map([("a", {"thread_id": "a"}), item], **CASE)
    assert (await anext(results))[0] == "a"

    with pytest.raises(TypeError, match="items must be pairs of a key and arguments, got"):
        await anext(results)


async def test_error_of_a_callback_is_raised_when_all_that_was_going_has_come(
    client: AsyncClient, desk: Desk
) -> None:
    """What it raises is no outcome of a run; the item is named, and no further one pulled."""
    desk.statuses["slow"] = "in_progress"

    def watch(run: Run) -> None:
        if run.thread_id == "bad":
            desk.statuses.clear()
            raise KeyError(run.thread_id)

    names = ["slow", "bad", *(f"t{number}" for number in range(50))]
    found: list[str] = []
    results = client.runs.map(items_of(names), on_status=watch, **CASE)
    with pytest.raises(KeyError) as caught:
        await drain(results, found)

    assert caught.value.__notes__ == ["raised while the item 'bad' was carried out"]
    assert "slow" in found
    assert "bad" not in found
    assert results.pulled < 10


async def test_timeout_is_for_each_item(client: AsyncClient, desk: Desk) -> None:
    """Those that are late are errors; their runs go on, or are cancelled if asked."""
    desk.statuses = {"late": "in_progress", "later": "in_progress"}
    late = {"thread_id": "late", "timeout": 0.2, "on_timeout": "cancel"}
    items: list[tuple[int, dict[str, Any]]] = [(1, late), (2, {"thread_id": "later"})]
    items += [(number, {"thread_id": "t"}) for number in range(3, 20)]

    found = await outcomes(client.runs.map(items, timeout=0.3, **CASE))

    errors = {key: type(one) for key, one in found.items() if not isinstance(one, RunResult)}
    assert errors == {1: RunWaitTimeout, 2: RunWaitTimeout}
    assert desk.cancelled == ["late"]


async def test_counters_tell_how_far_it_is(client: AsyncClient, desk: Desk) -> None:
    """Taken, going, done, and how many of these are errors."""
    desk.statuses["slow"] = "in_progress"
    results = client.runs.map(items_of(["slow", "missing", "a", "b"]), **CASE)
    assert repr(results) == "<RunMap: not begun; use `async with` and `async for`>"

    assert [key for key, _ in [await anext(results) for _ in range(3)]][-1] in {"a", "b", "missing"}
    seen = (results.pulled, results.running, results.done, results.failed)
    desk.statuses.clear()
    await outcomes(results)

    assert seen == (4, 1, 3, 1)
    assert repr(results) == "<RunMap: 4 pulled, 0 running, 4 done, 1 failed>"


async def test_arguments_are_looked_at_before_anything_is_sent(
    client: AsyncClient, server: HostileServer
) -> None:
    """What would be wrong for every item is raised by the call itself."""

    def untold(city) -> None:  # type: ignore[no-untyped-def]
        pytest.fail(city)

    bad: list[tuple[type[Exception], dict[str, Any]]] = [
        (TypeError, {"concurrency": "3"}),
        (ValueError, {"concurrency": 0}),
        (TypeError, {"modle": "m"}),
        (TypeError, {"idempotency_key": "k"}),
        (TypeError, {"tools": [untold]}),
        (ValueError, {"max_rounds": 0}),
        (ValueError, {"timeout": 0}),
        (ValueError, {"on_cancel": "stop"}),
        (TypeError, {"poll": 3}),
        (ValueError, {"assistant_id": "../a"}),
        (ValueError, {"extra_headers": {"x": "a\r\nb"}}),
        (TypeError, {"items": 7}),
    ]
    for kind, wrong in bad:
        with pytest.raises(kind):
            client.runs.map(**{"items": [], **CASE, **wrong})

    assert server.requests == []


async def test_batch_without_items_ends_at_once(client: AsyncClient) -> None:
    """And one that is not begun sends nothing."""
    unread = client.runs.map(items_of(["a"]), **CASE)

    assert await outcomes(client.runs.map([], **CASE)) == {}
    assert unread.pulled == 0


async def test_two_readers_share_the_outcomes(client: AsyncClient) -> None:
    """Each outcome goes to one of them, and both see the end."""
    results = client.runs.map(items_of(f"t{number}" for number in range(20)), **CASE)
    found: list[str] = []

    async with anyio.create_task_group() as group:
        group.start_soon(drain, results, found)
        group.start_soon(drain, results, found)

    assert len(found) == len(set(found)) == 20


async def test_patience_of_a_batch_is_the_clients_where_it_has_one(server: HostileServer) -> None:
    """`max_retries=0` stays one attempt, and a `patience` of the client's own is kept."""
    for policy in (RetryPolicy(max_retries=0), RetryPolicy(patience=0.0)):
        seen = len(server.seen("POST"))
        server.answer_with(lambda request: Desk()(request)._replace(status=503))  # type: ignore[call-arg]
        async with AsyncClient(server.url, retry=policy) as client:
            found = await outcomes(client.runs.map([(1, {"thread": {}})], **CASE))

        assert found[1].status_code == 503
        assert len(server.seen("POST")) == seen + 1


@pytest.mark.parametrize("keys", [True, False])
async def test_server_is_asked_once_what_it_remembers_before_threads_are_made(
    client: AsyncClient, server: HostileServer, desk: Desk, keys: bool
) -> None:
    """So that the very first create can be sent again, if its answer is lost."""
    desk.keys = {} if keys else None
    desk.losses = [Drop(), error(503), Drop()]
    items: Any = ((number, {"thread": {}}) for number in range(9))

    found = await outcomes(client.runs.map(items, **CASE))

    lost = [one for one in found.values() if isinstance(one, APIError)]
    assert len(server.seen("GET", "/assistants/asst_1")) == 1
    assert len(desk.bodies) == len(found) == 9
    assert [one.maybe_created for one in lost] == ([] if keys else [True] * 3)


@tool
async def double(number: int) -> int:
    """Double a number."""
    return 2 * number


async def test_tools_answer_each_run(runs_server: RunsServer, runs_client: AsyncClient) -> None:
    """A round of tools in each, answered by one function; typed answers are read."""

    class Sum(TypedDict):
        total: int

    for number in range(6):
        runs_server.call_tool("double", {"number": number})
    runs_server.default_reply = '{"total": 4}'
    assistant = await runs_client.assistants.create(model="scripted")

    results: RunMap[int] = runs_client.runs.map(
        ((number, {"thread": {}}) for number in range(3)),
        concurrency=3,
        assistant_id=assistant.id,
        tools=[double],
        response_format=Sum,
    )
    found = await outcomes(results)

    assert {result.run.status for result in found.values()} == {"completed"}
    assert [result.parsed for result in found.values()] == [{"total": 4}] * 3
    outputs = [
        output["output"]
        for request in runs_server.seen("POST", "submit_tool_outputs")
        for output in request.json["tool_outputs"]
    ]
    assert sorted(outputs) == ["0", "10", "2", "4", "6", "8"]


@pytest.mark.parametrize("tools", [None, [double.definition]])
async def test_run_without_local_tools_ends_where_it_waits(
    runs_server: RunsServer, runs_client: AsyncClient, tools: Any
) -> None:
    """Nobody here could answer it; the caller gets it as it is."""
    runs_server.call_tool("double", {"number": 1})
    assistant = await runs_client.assistants.create(model="scripted")

    found = await outcomes(
        runs_client.runs.map(
            [(1, {"thread": {}})], concurrency=1, assistant_id=assistant.id, tools=tools
        )
    )

    assert found[1].run.needs_action
