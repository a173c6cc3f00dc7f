"""await_run, cancelled or timed out: the cancellation arrives, and the run is cancelled or not."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any, Literal

import anyio
import pytest

from openai_runs import APITimeoutError, PollPolicy, Run, RunWaitTimeout, await_run
from tests.client.acting import IDS, UNHELD, client_of, of_run, refusal, script
from tests.client.cancelling import WAYS, Way, nothing_left
from tests.client.keeper import Keeper
from tests.support import Action, Drop, Hang, HostileServer, ManualClock, Received

QUEUED = of_run("queued")
Reaction = Literal["leave", "cancel"]
POINTS = ["first poll", "held poll", "pause", "on_status", "after a failure"]


class Stuck:
    """A wait that gets as far as `point` and then hangs, until the run is cancelled."""

    def __init__(self, point: str, cancelling: Action | None = None) -> None:
        """Answer the cancel with `cancelling`, or properly."""
        self.point = point
        self.reached = anyio.Event()
        self.clock = ManualClock()
        self._cancelling = of_run("cancelling") if cancelling is None else cancelling
        self._polls = 0

    async def handler(self, request: Received) -> Action:
        """Answer as a server, or hang at the point."""
        if request.method == "POST":
            return self._cancelling
        self._polls += 1
        if self.point == "first poll" or (self.point == "held poll" and self._polls == 2):
            await self._hang()
        if self.point == "after a failure" and self._polls == 2:
            return refusal(503)
        return QUEUED

    async def sleep(self, seconds: float) -> None:
        """Sleep as the wait does, or hang at the point."""
        at = {"pause": 1, "after a failure": 2}.get(self.point)
        if at == self._polls:
            await self._hang()
        await self.clock.sleep(seconds)

    async def on_status(self, run: Run) -> None:
        """Do nothing, or hang at the point."""
        if self.point == "on_status":
            await self._hang()

    async def _hang(self) -> None:
        self.reached.set()
        await anyio.sleep_forever()


@pytest.mark.parametrize("on_cancel", ["leave", "cancel"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("point", POINTS)
async def test_cancellation_arrives_at_any_point(point: str, way: Way, on_cancel: Reaction) -> None:
    """Whatever the wait is doing, it is cancelled; the server's run only if asked to."""
    stuck = Stuck(point)
    runtime = stuck.clock.runtime(sleep=stuck.sleep)

    async with (
        nothing_left(),
        HostileServer(stuck.handler) as server,
        client_of(server, seams=runtime) as client,
    ):
        call = await_run(client, **IDS, on_status=stuck.on_status, on_cancel=on_cancel)
        await way(call, stuck.reached.wait())
        cancels = server.seen("POST", "/threads/thread_1/runs/run_1/cancel")
        polls = server.seen("GET")

    assert len(cancels) == (1 if on_cancel == "cancel" else 0)
    assert len(server.requests) == len(polls) + len(cancels)


@pytest.mark.parametrize("on_cancel", ["leave", "cancel"])
async def test_cancellation_before_the_first_step_sends_nothing(on_cancel: Reaction) -> None:
    """A wait cancelled before it ever ran has asked the server nothing."""
    async with (
        nothing_left(),
        HostileServer(script(QUEUED)) as server,
        client_of(server) as client,
    ):
        task = asyncio.create_task(await_run(client, **IDS, on_cancel=on_cancel))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert server.requests == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(refusal(400, "Cannot cancel run with status 'completed'."), id="finished"),
        pytest.param(refusal(401), id="401"),
        pytest.param(refusal(500), id="500"),
        pytest.param(Drop(), id="dropped"),
        pytest.param(Hang(), id="hangs"),
    ],
)
async def test_cancellation_outlives_a_cancel_that_fails(
    answer: Action, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    """What goes wrong while the run is cancelled is logged, and never takes its place."""
    stuck = Stuck("held poll", cancelling=answer)
    runtime = stuck.clock.runtime(cancel_grace=0.2)

    async with (
        nothing_left(),
        HostileServer(stuck.handler) as server,
        client_of(server, seams=runtime) as client,
    ):
        await way(await_run(client, **IDS, on_cancel="cancel"), stuck.reached.wait())

    assert server.seen("POST", "/cancel")
    assert "run_1" in caplog.text


async def test_cancel_is_given_up_after_five_seconds() -> None:
    """The time that undoing may hold a cancellation off is 5 s."""
    assert ManualClock().runtime().cancel_grace == 5.0


async def test_cancellation_outlives_a_closed_client() -> None:
    """Closed and cancelled at once: no ConfigError takes the cancellation's place."""
    stuck = Stuck("on_status")

    async with nothing_left(), HostileServer(stuck.handler) as server, client_of(server) as client:
        call = await_run(client, **IDS, on_status=stuck.on_status, on_cancel="cancel")
        task = asyncio.create_task(call)
        await stuck.reached.wait()
        await client.aclose()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert server.seen("POST") == []


async def test_second_cancellation_ends_the_undoing() -> None:
    """Who cancels twice does not wait for the server: the first request was made all the same."""
    asked = anyio.Event()
    stuck = Stuck("held poll")

    async def handler(request: Received) -> Action:
        if request.method == "POST":
            asked.set()
            return Hang()
        return await stuck.handler(request)

    async with nothing_left(), HostileServer(handler) as server, client_of(server) as client:
        task = asyncio.create_task(await_run(client, **IDS, poll=UNHELD, on_cancel="cancel"))
        await stuck.reached.wait()
        task.cancel()
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert len(server.seen("POST", "/cancel")) == 1


async def test_finished_run_is_not_cancelled() -> None:
    """Cancelled while on_status is called with the end: there is nothing left to cancel."""
    stuck = Stuck("on_status")

    async with (
        HostileServer(script(of_run("completed"))) as server,
        client_of(server) as client,
    ):
        call = await_run(client, **IDS, on_status=stuck.on_status, on_cancel="cancel")
        task = asyncio.create_task(call)
        await stuck.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert server.seen("POST") == []


async def test_cancel_carries_the_extras_of_the_call() -> None:
    """Who needs a header for each request needs it for the cancel as well."""
    stuck = Stuck("held poll")

    async with HostileServer(stuck.handler) as server, client_of(server) as client:
        extras: Any = {"extra_headers": {"X-Tenant": "t"}, "poll": PollPolicy(initial=0.0)}
        call = client.runs.poll("run_1", "thread_1", on_cancel="cancel", **extras)
        await WAYS[0](call, stuck.reached.wait())

    assert [one.headers.get("x-tenant") for one in server.requests] == ["t", "t", "t"]


@pytest.mark.parametrize("on_timeout", ["leave", "cancel"])
@pytest.mark.parametrize("answer", [QUEUED, of_run("requires_paperwork"), refusal(503)])
async def test_timeout_cancels_the_run_if_asked_to(answer: Action, on_timeout: Reaction) -> None:
    """on_timeout="cancel" asks the server once, whether the run was ever seen or not."""
    clock = ManualClock()

    async def handler(request: Received) -> Action:
        return of_run("cancelling") if request.method == "POST" else answer

    policy = PollPolicy(max_outage=1000, long_poll=0)
    outcome: Any = None
    async with (
        nothing_left(),
        HostileServer(handler) as server,
        client_of(server, clock, poll=policy) as client,
    ):
        try:
            outcome = await await_run(client, **IDS, timeout=20, on_timeout=on_timeout)
        except (RunWaitTimeout, APITimeoutError) as error:
            outcome = error

    expired = isinstance(outcome, TimeoutError)
    assert expired or outcome.status == "requires_paperwork"
    assert len(server.seen("POST", "/cancel")) == (expired and on_timeout == "cancel")


async def test_timeout_outlives_a_cancel_that_hangs() -> None:
    """A server that does not answer the cancel either does not hold the time-out back."""
    clock = ManualClock()

    async def handler(request: Received) -> Action:
        return Hang() if request.method == "POST" else QUEUED

    runtime = clock.runtime(cancel_grace=0.05)
    async with (
        nothing_left(),
        HostileServer(handler) as server,
        client_of(server, seams=runtime, poll=UNHELD) as client,
    ):
        with pytest.raises(RunWaitTimeout):
            await await_run(client, **IDS, timeout=20, on_timeout="cancel")

    assert len(server.seen("POST", "/cancel")) == 1


async def test_timeout_of_the_callback_is_not_the_waits() -> None:
    """A TimeoutError of ours that on_status raises does not cancel the run."""

    def fail(run: Run) -> None:
        raise RunWaitTimeout(run, 1.0)

    async with HostileServer(script(QUEUED)) as server, client_of(server) as client:
        with pytest.raises(RunWaitTimeout):
            await await_run(client, **IDS, on_status=fail, on_timeout="cancel")

    assert server.seen("POST") == []


async def strike_after(steps: int, call: Any) -> Any:
    """Return the call's result, or None if cancelling it after so many steps cut it off."""
    task = asyncio.create_task(call)
    for _ in range(steps):
        await asyncio.sleep(0)
    hit = task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        assert hit
        assert task.cancelling() == 1
        return None


@pytest.mark.parametrize("on_cancel", ["leave", "cancel"])
async def test_cancellation_after_any_step_is_clean(on_cancel: Reaction) -> None:
    """Cancelled after each step of the event loop in turn: cancelled or finished, and no trace."""
    outcomes: list[str] = []
    for steps in count():
        keeper = Keeper(looks=3)
        run_id = keeper.add()
        async with (
            nothing_left(),
            HostileServer(keeper) as server,
            client_of(server, ManualClock(), poll=UNHELD) as client,
        ):
            call = await_run(client, run_id, thread_id="thread_1", on_cancel=on_cancel)
            run = await strike_after(steps, call)
        if run is None and on_cancel == "leave":
            assert keeper.calls["cancel"] == 0
        outcomes.append(keeper.statuses[0])
        if run is not None:
            assert run.status == "completed"
            break

    assert len(outcomes) > 20
    assert set(outcomes) <= {"queued", "cancelling", "completed"}
    if on_cancel == "cancel":
        assert outcomes[10] == "cancelling"


async def test_cancellation_is_never_lost_around_the_deadline() -> None:
    """`task.cancel()` within 2 ms of the deadline: a cancellation that was accepted arrives."""
    outcomes: list[str] = []

    async with (
        nothing_left(),
        HostileServer(script(Hang())) as server,
        client_of(server) as client,
    ):

        async def strike(moment: float) -> None:
            task = asyncio.create_task(await_run(client, **IDS, timeout=0.06))
            await asyncio.sleep(moment)
            was_cancelled = task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() == was_cancelled
            outcomes.append("cancelled" if was_cancelled else type(task.exception()).__name__)

        for _ in range(10):
            await asyncio.gather(*[strike(0.058 + step / 2500) for step in range(10)])

    assert set(outcomes) <= {"cancelled", "APITimeoutError"}
