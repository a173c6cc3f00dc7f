"""create_and_poll and its like, cancelled or timed out before the run is known."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any, Literal

import anyio
import pytest

from openai_runs import APITimeoutError, AsyncClient
from tests.client.acting import UNHELD, client_of, refusal
from tests.client.cancelling import WAYS, Way, nothing_left
from tests.client.keeper import Keeper
from tests.support import Action, Hang, HostileServer, ManualClock, Received

Reaction = Literal["leave", "cancel"]
OUTPUTS = [{"tool_call_id": "call_1", "output": "42"}]


class Silent:
    """A server that keeps its first create to itself: it hangs before or after storing it."""

    def __init__(self, keeper: Keeper, *, stores: bool) -> None:
        """Hang before or after `keeper` has carried the create out."""
        self.keeper = keeper
        self.reached = anyio.Event()
        self._stores = stores

    def __call__(self, request: Received) -> Action:
        """Carry out what is not the first create."""
        creating = request.method == "POST" and request.path.endswith("/runs")
        if not creating or self.reached.is_set():
            return self.keeper(request)
        if self._stores:
            self.keeper(request)
        self.reached.set()
        return Hang()


async def learn(client: AsyncClient, keeper: Keeper) -> None:
    """Let the client hear what the server can do."""
    run_id = keeper.add("thread_0", "completed")
    await client.runs.retrieve(run_id, thread_id="thread_0")


@pytest.mark.parametrize("on_cancel", ["leave", "cancel"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stores", [True, False], ids=["stored", "not stored"])
@pytest.mark.parametrize("keys", [True, False], ids=["keys", "no keys"])
async def test_cancelled_create_is_undone_if_asked_to(
    keys: bool, stores: bool, way: Way, on_cancel: Reaction
) -> None:
    """Cancelled in the middle of the POST: the run, if there is one, is found and cancelled."""
    keeper = Keeper(keys=keys)
    silent = Silent(keeper, stores=stores)

    async with (
        nothing_left(),
        HostileServer(silent) as server,
        client_of(server, ManualClock()) as client,
    ):
        await learn(client, keeper)
        call = client.runs.create_and_poll(
            "thread_1", assistant_id="asst_1", on_cancel=on_cancel, extra_headers={"X-Tenant": "t"}
        )
        await way(call, silent.reached.wait())
        after = server.requests[2:]

    if on_cancel == "leave":
        assert after == []
        assert keeper.statuses == ["completed", "queued"][: 1 + stores]
    else:
        assert {one.headers["x-tenant"] for one in after} == {"t"}
        # Only a server that remembers keys can rule out that the first POST lands later.
        assert keeper.statuses == ["completed", "cancelling"][: 1 + (stores or keys)]
        assert keeper.calls["cancel"] == (stores or keys)


@pytest.mark.parametrize("keys", [True, False], ids=["keys", "no keys"])
async def test_cancelled_thread_and_run_is_undone_where_keys_are_honoured(keys: bool) -> None:
    """A run on a thread nobody knows yet can be found by its key alone."""
    keeper = Keeper(keys=keys)
    silent = Silent(keeper, stores=True)

    async with nothing_left(), HostileServer(silent) as server, client_of(server) as client:
        await learn(client, keeper)
        call = client.threads.create_and_run_poll(assistant_id="asst_1", on_cancel="cancel")
        await WAYS[0](call, silent.reached.wait())

    assert keeper.statuses[1] == ("cancelling" if keys else "queued")


@pytest.mark.parametrize("on_timeout", ["leave", "cancel"])
@pytest.mark.parametrize("keys", [True, False], ids=["keys", "no keys"])
async def test_timed_out_create_is_undone_if_asked_to(keys: bool, on_timeout: Reaction) -> None:
    """The time is up in the middle of the POST: the same as a cancellation, for on_timeout."""
    keeper = Keeper(keys=keys)

    async with (
        nothing_left(),
        HostileServer(Silent(keeper, stores=True)) as server,
        client_of(server) as client,
    ):
        await learn(client, keeper)
        with pytest.raises(APITimeoutError) as caught:
            await client.runs.create_and_poll(
                "thread_1", assistant_id="asst_1", timeout=0.1, on_timeout=on_timeout
            )

    assert caught.value.maybe_created
    assert keeper.statuses[1] == ("cancelling" if on_timeout == "cancel" else "queued")


@pytest.mark.parametrize("keys", [True, False], ids=["keys", "no keys"])
async def test_refused_create_is_not_undone(keys: bool) -> None:
    """A create the server has turned down for now leaves nothing to undo at its time-out."""
    keeper = Keeper(keys=keys)

    def handler(request: Received) -> Action:
        busy = request.method == "POST"
        return refusal(429, retry_after="30") if busy else keeper(request)

    async with HostileServer(handler) as server, client_of(server) as client:
        await learn(client, keeper)
        with pytest.raises(APITimeoutError) as caught:
            await client.runs.create_and_poll(
                "thread_1", assistant_id="asst_1", timeout=5, on_timeout="cancel"
            )

    assert not caught.value.maybe_created
    assert len(server.seen("POST")) == 1
    assert server.seen("GET", "/runs") == []


@pytest.mark.parametrize("keys", [True, False], ids=["keys", "no keys"])
@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_wait_for_a_turn_asks_for_nothing(way: Way, keys: bool) -> None:
    """Cancelled while another run is in the way: neither that run nor a new one is touched."""
    keeper = Keeper(keys=keys)
    blocking = keeper.add()
    looked = anyio.Event()

    async def handler(request: Received) -> Action:
        if request.method == "GET" and request.path.endswith(blocking):
            looked.set()
            return Hang()
        return keeper(request)

    async with nothing_left(), HostileServer(handler) as server, client_of(server) as client:
        call = client.runs.create_and_poll(
            "thread_1", assistant_id="asst_1", on_active_run="wait", on_cancel="cancel"
        )
        await way(call, looked.wait())

    assert keeper.statuses == ["queued"]
    assert keeper.calls == {"create": 1}


@pytest.mark.parametrize("on_cancel", ["leave", "cancel"])
@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_undoing_takes_five_seconds_in_all(way: Way, on_cancel: Reaction) -> None:
    """Finding the run and cancelling it share the one grace."""
    keeper = Keeper()
    silent = Silent(keeper, stores=True)

    async def handler(request: Received) -> Action:
        finding = request.path.endswith("/runs") and request.method == "GET"
        return Hang() if finding else silent(request)

    runtime = ManualClock().runtime(cancel_grace=0.1)
    async with (
        nothing_left(),
        HostileServer(handler) as server,
        client_of(server, seams=runtime) as client,
    ):
        call = client.runs.create_and_poll("thread_1", assistant_id="asst_1", on_cancel=on_cancel)
        await way(call, silent.reached.wait())

    assert len(server.requests) == (2 if on_cancel == "cancel" else 1)


@pytest.mark.parametrize("on_cancel", ["leave", "cancel"])
@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_submit_cancels_the_run_if_asked_to(way: Way, on_cancel: Reaction) -> None:
    """Cancelled in the middle of the submit: the run is known, and cancelled."""
    keeper = Keeper()
    run_id = keeper.add(status="requires_action")
    reached = anyio.Event()

    async def handler(request: Received) -> Action:
        if request.path.endswith("/submit_tool_outputs"):
            reached.set()
            return Hang()
        return keeper(request)

    async with nothing_left(), HostileServer(handler) as server, client_of(server) as client:
        call = client.runs.submit_tool_outputs_and_poll(
            run_id, thread_id="thread_1", tool_outputs=OUTPUTS, on_cancel=on_cancel
        )
        await way(call, reached.wait())

    assert keeper.statuses == ["cancelling" if on_cancel == "cancel" else "requires_action"]


@pytest.mark.parametrize("on_timeout", ["leave", "cancel"])
async def test_timed_out_submit_cancels_the_run_if_asked_to(on_timeout: Reaction) -> None:
    """The same for the time-out."""
    keeper = Keeper()
    run_id = keeper.add(status="requires_action")

    async def handler(request: Received) -> Action:
        return Hang() if request.path.endswith("/submit_tool_outputs") else keeper(request)

    async with HostileServer(handler) as server, client_of(server) as client:
        with pytest.raises(APITimeoutError) as caught:
            await client.runs.submit_tool_outputs_and_poll(
                run_id,
                thread_id="thread_1",
                tool_outputs=OUTPUTS,
                timeout=0.1,
                on_timeout=on_timeout,
            )

    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", run_id)
    assert keeper.statuses == ["cancelling" if on_timeout == "cancel" else "requires_action"]


@pytest.mark.parametrize("on_cancel", ["leave", "cancel"])
@pytest.mark.parametrize("keys", [True, False], ids=["keys", "no keys"])
async def test_cancellation_after_any_step_of_a_create_is_clean(
    keys: bool, on_cancel: Reaction
) -> None:
    """Cancelled after each step of the event loop in turn: never two runs, and no trace."""
    left_active = 0
    for steps in count():
        keeper = Keeper(keys=keys, looks=3)
        run: Any = None
        async with (
            nothing_left(),
            HostileServer(keeper) as server,
            client_of(server, ManualClock(), poll=UNHELD) as client,
        ):
            await learn(client, keeper)
            call = client.runs.create_and_poll(
                "thread_1", assistant_id="asst_1", on_cancel=on_cancel
            )
            task = asyncio.create_task(call)
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            try:
                run = await task
            except asyncio.CancelledError:
                assert task.cancelling() == 1
        made = keeper.statuses[1:]
        assert len(made) <= 1
        left_active += made == ["queued"]
        assert on_cancel == "cancel" or keeper.calls["cancel"] == 0
        if run is not None:
            break

    assert steps > 20
    assert run.status == "completed"
    if on_cancel == "cancel" and keys:
        assert left_active == 0
