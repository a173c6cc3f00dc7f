"""Batches through storms of refusals, failures and lost connections: each item once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import aiohttp
import anyio
import pytest

from openai_runs import APIError, AsyncClient, PollPolicy, RetryPolicy, RunResult
from openai_runs.testing import RunsServer
from tests.client.cancelling import nothing_left
from tests.e2e.stormy import Stormy
from tests.support import HostileServer

COUNT = 150
FAST: Any = {"poll": PollPolicy(initial=0.05, maximum=0.1), "retry": RetryPolicy(initial=0.05)}


def on_threads() -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield items on threads that are there."""
    for number in range(COUNT):
        yield number, {"thread_id": f"item_{number}"}


def with_threads() -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield items whose threads are made with their runs."""
    for number in range(COUNT):
        yield number, {"thread": {"metadata": {"item": f"item_{number}"}}}


EACH_ONCE = Counter({f"item_{number}": 1 for number in range(COUNT)})


async def carry_out(client: AsyncClient, items: Any) -> dict[int, Any]:
    """Return all outcomes; a key that comes twice fails."""
    found: dict[int, Any] = {}
    async for key, outcome in client.runs.map(items, concurrency=40, assistant_id="asst_1"):
        assert key not in found
        found[key] = outcome
    return found


@pytest.mark.parametrize(
    ("keys", "items"),
    [(True, on_threads), (True, with_threads), (False, on_threads)],
    ids=["keys", "keys-new-threads", "no-keys"],
)
async def test_every_item_has_its_result_and_no_run_is_made_twice(keys: bool, items: Any) -> None:
    """By a server that remembers keys, and by one on which the run must be looked for."""
    stormy = Stormy(keys=keys)
    async with (
        nothing_left(),
        HostileServer(stormy) as server,
        AsyncClient(server.url, **FAST) as client,
    ):
        found = await carry_out(client, items())

    results = [one for one in found.values() if isinstance(one, RunResult)]
    assert len(results) == COUNT
    assert {result.run.status for result in results} == {"completed"}
    assert stormy.made == EACH_ONCE
    assert stormy.lost > COUNT / 5
    assert 0 < stormy.refused < stormy.total / 10


async def test_new_thread_whose_answer_was_lost_is_told_of_and_not_made_again() -> None:
    """A server that remembers no keys, and no thread to look on: `maybe_created`."""
    stormy = Stormy(keys=False)
    async with (
        nothing_left(),
        HostileServer(stormy) as server,
        AsyncClient(server.url, **FAST) as client,
    ):
        found = await carry_out(client, with_threads())

    errors = [one for one in found.values() if isinstance(one, APIError)]
    assert len(found) == COUNT
    assert 0 < len(errors) < COUNT / 5
    assert all(one.maybe_created for one in errors)
    assert max(stormy.made.values()) == 1


@pytest.mark.parametrize("way", ["break", "aclose", "error"])
async def test_nothing_is_left_when_a_batch_is_left_in_a_storm(way: str) -> None:
    """At the hundredth outcome: no task, no connection in use, and no further request."""
    stormy = Stormy(keys=True)
    read = 0
    async with (
        nothing_left(),
        HostileServer(stormy) as server,
        aiohttp.ClientSession() as session,
        AsyncClient(server.url, session=session, **FAST) as client,
    ):
        results = client.runs.map(on_threads(), concurrency=40, assistant_id="asst_1")
        with suppress(LookupError):
            async for _ in results:
                read += 1
                if read == 100 and way == "break":
                    break
                if read == 100 and way == "aclose":
                    await results.aclose()
                if read == 100 and way == "error":
                    raise LookupError
        taken = results.pulled
        del results
        await anyio.wait_all_tasks_blocked()
        assert session.connector is not None
        assert not session.connector._acquired  # what aiohttp itself looks at on closing
        sent = stormy.total
        await anyio.sleep(0.3)

    assert read == 100
    assert stormy.total == sent
    assert 100 < taken <= 140
    assert max(stormy.made.values()) == 1


async def test_real_server_that_is_restarted_carries_each_item_out_once(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """Drops before and after the work, 503s, 429s, and a restart in the middle."""
    assistant = await runs_client.assistants.create(model="scripted")
    for _ in range(3):
        runs_server.drop(method="POST", path="/threads/runs", after=True)
        runs_server.fault(503, method="POST", path="/threads/runs")
        runs_server.drop(method="GET", path="/threads/*/runs/*")
        runs_server.fault(429, headers={"retry-after": "0.1"}, times=5)
        runs_server.fault(500, method="GET", path="/threads/*/messages", after=True)
    items = ((number, {"thread": {"metadata": {"item": str(number)}}}) for number in range(40))

    found: dict[int, Any] = {}
    async with runs_client.runs.map(items, concurrency=10, assistant_id=assistant.id) as results:
        async for key, outcome in results:
            found[key] = outcome
            if len(found) == 15:
                await runs_server.restart()

    assert {type(one) for one in found.values()} == {RunResult}
    threads = {outcome.run.thread_id for outcome in found.values()}
    assert len(found) == len(threads) == 40
    made = {
        request.headers["idempotency-key"] for request in runs_server.seen("POST", "/threads/runs")
    }
    assert len(made) == 40
