"""await_run and `Prefer: wait`: servers that hold a poll, pretend to, or do so unasked."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from openai_runs import PollPolicy, Run, RunWaitTimeout, await_run
from tests.client.acting import IDS, client_of, held, of_run, refusal, script
from tests.support import Action, HostileServer, ManualClock, Received

QUEUED = of_run("queued")
DONE = of_run("completed")


async def test_first_look_is_not_held() -> None:
    """The first poll asks for no hold, the following ask for the policy's."""
    clock = ManualClock()

    async with (
        HostileServer(script(QUEUED, QUEUED, DONE)) as server,
        client_of(server, clock) as client,
    ):
        await await_run(client, **IDS)

    assert [one.headers.get("prefer") for one in server.requests] == [None, "wait=30", "wait=30"]


@pytest.mark.parametrize("seconds", [0, 0.5])
async def test_no_hold_is_asked_for_where_the_policy_says_so(seconds: float) -> None:
    """long_poll below a second asks for nothing."""
    clock = ManualClock()
    policy = PollPolicy(long_poll=seconds)

    async with (
        HostileServer(script(QUEUED, QUEUED, DONE)) as server,
        client_of(server, clock, poll=policy) as client,
    ):
        await await_run(client, **IDS)

    assert not any("prefer" in one.headers for one in server.requests)


async def test_held_poll_is_followed_at_once() -> None:
    """A server that held the request properly is asked again without a pause."""
    clock = ManualClock()
    hold = held(clock, 30)

    def handler(request: Received) -> Action:
        return DONE if len(server.requests) == 5 else hold(request)

    async with HostileServer(handler) as server, client_of(server, clock) as client:
        await await_run(client, **IDS)

    assert clock.slept == [0.25]  # after the first poll, which is not held


async def test_held_poll_is_followed_at_once_where_the_status_changed() -> None:
    """A hold that ends early because something happened is followed at once."""
    clock = ManualClock()
    applied = {"Preference-Applied": "wait=30"}
    handler = script(QUEUED, of_run("in_progress", applied), of_run("completed", applied))

    async with HostileServer(handler) as server, client_of(server, clock) as client:
        await await_run(client, **IDS)

    assert clock.slept == [0.25]


@pytest.mark.parametrize("seconds", [0.0, 1.0, 14.9])
async def test_pretended_hold_is_no_busy_loop(seconds: float) -> None:
    """`Preference-Applied` at once, each time: asked at the usual pace."""
    clock = ManualClock()

    async with HostileServer(held(clock, seconds)) as server, client_of(server, clock) as client:
        with pytest.raises(RunWaitTimeout):
            await await_run(client, **IDS, timeout=100)

    assert len(server.requests) <= 30


async def test_flickering_status_is_no_busy_loop() -> None:
    """A hold that is cut short by the same two statuses in turn is asked at the usual pace."""
    clock = ManualClock()
    statuses = ["queued", "in_progress"]

    def handler(request: Received) -> Action:
        statuses.reverse()
        return of_run(statuses[0], {"Preference-Applied": "wait=30"})

    async with HostileServer(handler) as server, client_of(server, clock) as client:
        with pytest.raises(RunWaitTimeout):
            await await_run(client, **IDS, timeout=100)

    assert len(server.requests) <= 40


async def test_hold_unasked_for_is_not_believed() -> None:
    """`Preference-Applied` in answer to a request that asked for none changes nothing."""
    clock = ManualClock()
    policy = PollPolicy(long_poll=0, initial=1.0, factor=1.0)
    handler = script(*[of_run("queued", {"Preference-Applied": "wait=30"})] * 3, DONE)

    async with HostileServer(handler) as server, client_of(server, clock, poll=policy) as client:
        await await_run(client, **IDS)

    assert clock.slept == [1.0, 1.0, 1.0]


async def test_hold_ends_before_the_deadline() -> None:
    """The hold asked for leaves time for its answer, and for a last poll."""
    clock = ManualClock()

    def handler(request: Received) -> Action:
        prefer = request.headers.get("prefer")
        if prefer is None:
            return QUEUED
        clock.now += int(prefer.removeprefix("wait="))
        return of_run("queued", {"Preference-Applied": prefer})

    async with HostileServer(handler) as server, client_of(server, clock) as client:
        with pytest.raises(RunWaitTimeout) as caught:
            await await_run(client, **IDS, timeout=40.25)

    holds = [int(one.headers["prefer"][5:]) for one in server.requests if "prefer" in one.headers]
    assert caught.value.__cause__ is None
    assert sum(holds) < 40
    assert max(holds) == 30
    assert "prefer" not in server.requests[-1].headers
    assert clock.now - 1000 == pytest.approx(40.25)


async def test_failed_poll_is_followed_by_one_that_is_not_held() -> None:
    """While a server is failing, a quick answer tells more than a held one."""
    clock = ManualClock()
    handler = script(QUEUED, refusal(503), QUEUED, DONE)

    async with HostileServer(handler) as server, client_of(server, clock) as client:
        await await_run(client, **IDS)

    assert [one.headers.get("prefer") for one in server.requests] == [
        None,
        "wait=30",
        None,
        "wait=30",
    ]


async def test_held_polls_leave_half_of_the_connections() -> None:
    """Ten waits over four connections hold two at most; the others poll, and calls get through."""
    release, two = anyio.Event(), anyio.Event()
    holding: list[Received] = []

    async def handler(request: Received) -> Action:
        if "prefer" in request.headers:
            holding.append(request)
            if len(holding) == 2:
                two.set()
            await release.wait()
        if not release.is_set():
            return QUEUED
        return DONE

    policy = PollPolicy(initial=0.05, maximum=0.05)
    async with (
        HostileServer(handler) as server,
        client_of(server, max_connections=4, poll=policy) as client,
        anyio.create_task_group() as group,
    ):
        for number in range(10):
            wait = partial(client.runs.wait, f"run_{number}", thread_id="thread_1")
            group.start_soon(wait)
        await two.wait()
        await client.runs.retrieve("run_1", thread_id="thread_1")
        while len(server.requests) < 40:
            await client.runs.retrieve("run_1", thread_id="thread_1")
        assert len(holding) == 2
        release.set()


async def test_first_look_is_followed_at_once_where_the_server_is_known_to_hold() -> None:
    """A server that names the extension is asked to hold right after the first poll."""
    clock = ManualClock()
    known = {"openai-runs-features": "idempotency, prefer-wait", "openai-poll-after-ms": "5000"}

    async with (
        HostileServer(script(of_run("queued", known), DONE)) as server,
        client_of(server, clock) as client,
    ):
        await await_run(client, **IDS)

    assert clock.slept == []
    assert [one.headers.get("prefer") for one in server.requests] == [None, "wait=30"]


async def test_first_look_is_held_by_a_server_that_has_said_so_before() -> None:
    """The next wait is one request, unless a callback is to be called with the present status."""
    known = {"openai-runs-features": "prefer-wait", "Preference-Applied": "wait=30"}
    handler = script(of_run("completed", known))

    async with HostileServer(handler) as server, client_of(server) as client:
        for on_status in (None, None, print_nothing):
            await await_run(client, **IDS, on_status=on_status)

    assert [one.headers.get("prefer") for one in server.requests] == [None, "wait=30", None]


def print_nothing(run: Run) -> None:
    """Take note of nothing."""


async def test_report_that_hangs_ends_with_the_wait() -> None:
    """A callback that never returns is given up at the deadline, like everything else."""
    async with (
        HostileServer(script(QUEUED)) as server,
        client_of(server, ManualClock()) as client,
    ):
        with pytest.raises(RunWaitTimeout):
            await await_run(client, **IDS, timeout=0.2, on_status=lambda run: anyio.sleep_forever())


async def test_report_that_cannot_be_called_is_refused_before_anything_is_sent() -> None:
    """A wrong `on_status` is a mistake of the caller's, raised at once."""
    async with (
        HostileServer(script(QUEUED)) as server,
        client_of(server, ManualClock()) as client,
    ):
        with pytest.raises(TypeError, match="on_status must be callable"):
            await client.runs.create_and_poll("thread_1", assistant_id="asst_1", on_status=3)  # type: ignore[arg-type]  # on purpose

    assert server.requests == []
