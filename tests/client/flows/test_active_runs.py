"""on_active_run: runs that stand in the way of a create or a message."""

from __future__ import annotations

from typing import Any

import pytest

from openai_runs import ActiveRunError, APITimeoutError, BadRequestError, PollPolicy
from tests.client.acting import UNHELD, client_of, of_run, refusal
from tests.client.keeper import Keeper
from tests.support import Action, Answer, Hang, HostileServer, ManualClock, Received

BUSY: dict[str, Any] = {"thread_id": "thread_1", "assistant_id": "asst_1"}
WAIT: dict[str, Any] = {**BUSY, "on_active_run": "wait"}
CANCEL: dict[str, Any] = {**BUSY, "on_active_run": "cancel"}


async def test_blocker_is_cancelled() -> None:
    """on_active_run="cancel" cancels the run in the way, waits for its end and creates."""
    keeper = Keeper()
    keeper.add(status="in_progress")

    async with (
        HostileServer(keeper) as server,
        client_of(server, ManualClock(), poll=UNHELD) as client,
    ):
        run = await client.runs.create(**CANCEL, extra_headers={"X-Tenant": "t"})

    assert run.id == "run_2"
    assert keeper.statuses == ["cancelled", "queued"]
    assert {one.headers["x-tenant"] for one in server.requests} == {"t"}
    keys = [one.headers.get("idempotency-key") for one in server.seen("POST")]
    assert len(set(keys)) == 3  # refused create, cancel, create: three different requests


async def test_cancelling_the_blocker_carries_nothing_of_the_create() -> None:
    """Body and key of the create are not those of the cancel."""
    keeper = Keeper()
    keeper.add()

    async with (
        HostileServer(keeper) as server,
        client_of(server, ManualClock(), poll=UNHELD) as client,
    ):
        await client.runs.create(**CANCEL, extra_body={"x": 1}, idempotency_key="k")

    (cancel,) = server.seen("POST", "/cancel")
    assert cancel.body == b""
    assert cancel.headers["idempotency-key"] != "k"


async def test_blocker_that_ended_meanwhile_is_no_error() -> None:
    """A cancel that is refused because the run is finished is as good as a cancel."""
    keeper = Keeper()
    run_id = keeper.add()

    def handler(request: Received) -> Action:
        if request.path.endswith("/cancel"):
            keeper.runs[run_id]["status"] = "completed"
        return keeper(request)

    async with HostileServer(handler) as server, client_of(server) as client:
        run = await client.runs.create(**CANCEL)

    assert run.id == "run_2"
    assert keeper.statuses == ["completed", "queued"]


async def test_lost_cancel_of_the_blocker_is_settled() -> None:
    """The answer to the cancel is lost: the run is looked at, and not cancelled twice."""
    keeper = Keeper()
    keeper.add()

    def handler(request: Received) -> Action:
        answer = keeper(request)
        return refusal(502) if request.path.endswith("/cancel") else answer

    async with (
        HostileServer(handler) as server,
        client_of(server, ManualClock(), poll=UNHELD) as client,
    ):
        run = await client.runs.create(**CANCEL)

    assert run.id == "run_2"
    assert keeper.calls["cancel"] == 1


async def test_blocker_that_needs_action_is_waited_for() -> None:
    """Somebody else may answer its tool calls: until then the thread is not free."""
    keeper = Keeper()
    run_id = keeper.add(status="requires_action")

    def handler(request: Received) -> Action:
        answer = keeper(request)
        if keeper.calls["get"] == 5:
            keeper.runs[run_id]["status"] = "completed"
        return answer

    async with (
        HostileServer(handler) as server,
        client_of(server, ManualClock(), poll=UNHELD) as client,
    ):
        run = await client.runs.create(**WAIT)

    assert run.id == "run_2"
    assert keeper.calls["get"] == 6


async def test_timeout_names_the_blocker() -> None:
    """The time is up while the thread is busy: the error names thread and run."""
    keeper = Keeper()
    keeper.add(status="requires_action")
    clock = ManualClock()

    async with HostileServer(keeper) as server, client_of(server, clock, poll=UNHELD) as client:
        with pytest.raises(APITimeoutError) as caught:
            await client.runs.create(**WAIT, timeout=30)

    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")
    assert "run_1" in str(caught.value)
    assert not caught.value.maybe_created
    assert clock.now - 1000 == pytest.approx(30)


async def test_timeout_is_ten_minutes_where_none_is_given() -> None:
    """timeout=None waits for 600 s, not for ever."""
    keeper = Keeper()
    keeper.add()
    clock = ManualClock()

    async with HostileServer(keeper) as server, client_of(server, clock, poll=UNHELD) as client:
        with pytest.raises(APITimeoutError):
            await client.runs.create(**WAIT)

    assert clock.now - 1000 == pytest.approx(600)


async def test_timeout_in_the_create_itself_is_in_doubt() -> None:
    """The thread is free, the POST hangs: the error says that the run may exist, and its key."""
    keeper = Keeper()

    async def handler(request: Received) -> Action:
        keeper(request)
        return Hang()

    async with HostileServer(handler) as server, client_of(server) as client:
        with pytest.raises(APITimeoutError) as caught:
            await client.runs.create(**WAIT, timeout=0.1)

    assert caught.value.maybe_created
    assert caught.value.idempotency_key == server.requests[0].headers["idempotency-key"]


@pytest.mark.parametrize("mode", ["wait", "cancel"])
async def test_run_that_is_over_and_yet_in_the_way_is_no_busy_loop(mode: Any) -> None:
    """A server whose create lags behind its GET is asked at a growing pace."""
    clock = ManualClock()

    def handler(request: Received) -> Action:
        if request.method == "GET":
            return of_run("completed", id="run_9")
        if request.path.endswith("/cancel"):
            return refusal(400, "Cannot cancel run with status 'completed'.")
        return refusal(400, "Thread thread_1 already has an active run run_9.")

    async with HostileServer(handler) as server, client_of(server, clock) as client:
        with pytest.raises(APITimeoutError) as caught:
            await client.runs.create(**BUSY, on_active_run=mode, timeout=60)

    assert caught.value.run_id == "run_9"
    assert clock.now - 1000 == pytest.approx(60)
    assert len(server.seen("POST", "/runs")) < 25


async def test_blocker_without_a_name_cannot_be_waited_for() -> None:
    """A 400 of another text is what it is, at once."""
    async with (
        HostileServer(lambda request: refusal(400, "Thread is busy.")) as server,
        client_of(server) as client,
    ):
        with pytest.raises(BadRequestError, match="busy"):
            await client.runs.create(**WAIT)

    assert len(server.requests) == 1


async def test_own_key_is_not_used_up_by_a_refusal() -> None:
    """A server that remembers "the thread is busy" under the caller's key is asked anew."""
    keeper = Keeper(keys=True, looks=1)
    keeper.add()

    async with (
        HostileServer(keeper) as server,
        client_of(server, ManualClock(), poll=UNHELD) as client,
    ):
        run = await client.runs.create(**WAIT, idempotency_key="mine")

    assert run.id == "run_2"
    assert server.seen("POST")[0].headers["idempotency-key"] == "mine"


@pytest.mark.parametrize("mode", ["queue", None, ""])
async def test_unknown_mode_is_refused_unsent(mode: Any) -> None:
    """A mode that does not exist is an error of the caller's."""
    async with HostileServer(Keeper()) as server, client_of(server) as client:
        with pytest.raises(ValueError, match="on_active_run"):
            await client.runs.create(**BUSY, on_active_run=mode)

    assert server.requests == []


async def test_message_names_the_run_in_its_way() -> None:
    """The text for messages is another one; the error is the same."""
    keeper = Keeper()
    run_id = keeper.add()

    async with HostileServer(keeper) as server, client_of(server) as client:
        with pytest.raises(ActiveRunError) as caught:
            await client.messages.create("thread_1", role="user", content="Hi")

    assert caught.value.blocking_run_id == run_id


@pytest.mark.parametrize("mode", ["wait", "cancel"])
async def test_message_waits_its_turn(mode: Any) -> None:
    """messages.create waits for the run in its way, or cancels it, as creates do."""
    keeper = Keeper(looks=3 if mode == "wait" else None)
    keeper.add()

    async with (
        HostileServer(keeper) as server,
        client_of(server, ManualClock(), poll=UNHELD) as client,
    ):
        message = await client.messages.create(
            "thread_1", role="user", content="Hi", on_active_run=mode, idempotency_key="mine"
        )

    assert message.id == "msg_1"
    assert keeper.statuses == ["completed" if mode == "wait" else "cancelled"]
    first, *_, last = (one.headers["idempotency-key"] for one in server.seen("POST", "/messages"))
    assert first == "mine"
    assert last != "mine"


async def test_held_blocker_costs_few_requests() -> None:
    """Where the server holds polls, waiting for a run that takes a minute is three requests."""
    keeper = Keeper()
    run_id = keeper.add()
    clock = ManualClock()

    def handler(request: Received) -> Action:
        prefer = request.headers.get("prefer")
        if prefer is None:
            return keeper(request)
        clock.now += 30
        if clock.now > 1060:
            keeper.runs[run_id]["status"] = "completed"
        answer = keeper(request)
        assert isinstance(answer, Answer)
        return answer._replace(headers={"Preference-Applied": prefer})

    async with (
        HostileServer(handler) as server,
        client_of(server, clock, poll=PollPolicy()) as client,
    ):
        await client.runs.create(**WAIT)

    assert keeper.calls == {"create": 2, "get": 3}
