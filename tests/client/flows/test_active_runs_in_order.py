"""Fifty calls for one thread: one wins, or they take turns."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import anyio
import pytest

from openai_runs import ActiveRunError, APITimeoutError, Run
from tests.client.acting import UNHELD, client_of
from tests.client.cancelling import nothing_left
from tests.client.keeper import Keeper
from tests.support import Action, Hang, HostileServer, ManualClock, Received

BUSY: dict[str, Any] = {"thread_id": "thread_1", "assistant_id": "asst_1"}
WAIT: dict[str, Any] = {**BUSY, "on_active_run": "wait"}


async def test_fifty_creates_make_one_run() -> None:
    """One create wins, the other 49 name the run that is in the way."""
    keeper = Keeper()

    async with nothing_left(), HostileServer(keeper) as server, client_of(server) as client:
        outcomes = await asyncio.gather(
            *[client.runs.create(**BUSY) for _ in range(50)], return_exceptions=True
        )

    runs = [one for one in outcomes if isinstance(one, Run)]
    refused = [one for one in outcomes if isinstance(one, ActiveRunError)]
    assert len(runs) == 1
    assert [one.blocking_run_id for one in refused] == [runs[0].id] * 49
    assert {one.thread_id for one in refused} == {"thread_1"}
    assert keeper.calls == {"create": 50}


@pytest.mark.parametrize("keys", [True, False], ids=["keys", "no keys"])
async def test_fifty_creates_run_in_turn(keys: bool) -> None:
    """on_active_run="wait": all fifty run, in the order they came, with few wasted requests."""
    keeper = Keeper(keys=keys, looks=2)
    order: list[int] = []

    async with (
        nothing_left(),
        HostileServer(keeper) as server,
        client_of(server, ManualClock(), poll=UNHELD) as client,
    ):

        async def create(number: int) -> None:
            run = await client.runs.create_and_poll(**WAIT, timeout=600)
            assert run.status == "completed"
            order.append(int(run.id.removeprefix("run_")))

        await asyncio.gather(*[create(number) for number in range(50)])
        # A new client of the same shop may come: nobody is waiting any more.
        await client.runs.create(**WAIT)

    assert keeper.statuses == ["completed"] * 50 + ["queued"]
    assert sorted(order) == list(range(1, 51))
    assert keeper.calls["create"] <= 2 * 51
    assert keeper.calls["get"] <= 4 * 50


async def test_turns_go_by_order_of_arrival() -> None:
    """First come, first served."""
    keeper = Keeper(looks=1)
    keeper.add()

    async with (
        HostileServer(keeper) as server,
        client_of(server, ManualClock(), poll=UNHELD) as client,
    ):
        calls = [client.runs.create(**WAIT, metadata={"nr": str(nr)}) for nr in range(20)]
        await asyncio.gather(*calls)

    made = list(keeper.runs.values())[1:]
    assert [run["metadata"]["nr"] for run in made] == [str(nr) for nr in range(20)]


async def test_threads_do_not_wait_for_each_other() -> None:
    """A turn is for one thread: another thread's create goes through meanwhile."""
    keeper = Keeper()
    keeper.add("thread_1")
    looked = anyio.Event()

    async def handler(request: Received) -> Action:
        if request.method == "GET":
            looked.set()
            return Hang()
        return keeper(request)

    async with HostileServer(handler) as server, client_of(server) as client:
        waiting = asyncio.create_task(client.runs.create(**WAIT))
        await looked.wait()
        run = await client.runs.create("thread_2", assistant_id="a", on_active_run="wait")
        waiting.cancel()
        await asyncio.wait([waiting])

    assert run.thread_id == "thread_2"


async def test_timeout_in_the_queue_says_so() -> None:
    """Those who never had their turn time out as well; the thread stays usable."""
    keeper = Keeper()
    keeper.add()
    looked = anyio.Event()

    async def handler(request: Received) -> Action:
        if request.method == "GET":
            looked.set()
            return Hang()
        return keeper(request)

    async with nothing_left(), HostileServer(handler) as server, client_of(server) as client:
        first = asyncio.create_task(client.runs.create(**WAIT))
        await looked.wait()
        with pytest.raises(APITimeoutError, match="earlier calls"):
            await client.runs.create(**WAIT, timeout=0.05)
        first.cancel()
        await asyncio.wait([first])
        keeper.runs["run_1"]["status"] = "completed"
        run = await client.runs.create(**WAIT, timeout=30)

    assert run.id == "run_2"


async def test_cancelled_in_the_queue_leaves_the_queue_usable() -> None:
    """Who gives up waiting is passed over, and the others go on."""
    keeper = Keeper(looks=2)
    keeper.add()
    looked, go_on = anyio.Event(), anyio.Event()

    async def handler(request: Received) -> Action:
        if request.method == "GET":
            looked.set()
            await go_on.wait()
        return keeper(request)

    async with (
        nothing_left(),
        HostileServer(handler) as server,
        client_of(server, ManualClock(), poll=UNHELD) as client,
    ):
        tasks = [asyncio.create_task(client.runs.create(**WAIT)) for _ in range(5)]
        await looked.wait()
        tasks[1].cancel()
        tasks[3].cancel()
        go_on.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert [isinstance(one, Run) for one in outcomes] == [True, False, True, False, True]
    assert len(keeper.runs) == 4


async def test_gates_are_taken_away_by_the_last() -> None:
    """A thread that nobody waits for costs no memory, however its last caller left."""
    keeper = Keeper(looks=1)
    keeper.add("thread_2")

    async with HostileServer(keeper) as server, client_of(server, ManualClock()) as client:
        state = client._state
        await asyncio.gather(*[client.runs.create(**WAIT) for _ in range(3)])
        task = asyncio.create_task(client.runs.create(**{**WAIT, "thread_id": "thread_2"}))
        await asyncio.sleep(0)
        assert state.thread_locks.keys() == {"thread_2"}
        task.cancel()
        await asyncio.wait([task])

    assert state.thread_locks == {}


async def test_cancellation_after_any_step_leaves_the_queue_usable() -> None:
    """Cancelled after each step in turn, in the queue or at its head: the next one gets through."""
    for steps in count():
        keeper = Keeper(looks=2)
        keeper.add()
        async with (
            nothing_left(),
            HostileServer(keeper) as server,
            client_of(server, ManualClock(), poll=UNHELD) as client,
        ):
            tasks = [asyncio.create_task(client.runs.create(**WAIT)) for _ in range(3)]
            for _ in range(steps):
                await asyncio.sleep(0)
            late = not tasks[0].cancel()
            tasks[1].cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert client._state.thread_locks == {}
        assert isinstance(outcomes[2], Run)
        if late:
            break

    assert steps > 20
