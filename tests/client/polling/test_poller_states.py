"""A poller is in one of five states; who leaves and who comes finds it in any of them."""

from __future__ import annotations

import asyncio
import inspect
import random
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import anyio
import pytest

import openai_runs
from openai_runs import PollPolicy, Run, await_run
from openai_runs._client.arguments import WaitOptions
from openai_runs._client.core.background import BackgroundTasks
from openai_runs._client.core.rate_limiter import NO_PERMIT, RateLimiter
from openai_runs._client.polling.handle import HandleState, WaitHandle
from openai_runs._client.polling.poller import PollerState, RunPoller
from openai_runs._client.polling.scheduler import Scheduler
from openai_runs._client.settings import Runtime
from tests.client.acting import IDS, client_of, of_run, script, until
from tests.client.cancelling import nothing_left
from tests.client.polling.test_scheduler import poller_of
from tests.support import Action, Hang, HostileServer, ManualClock, Received

QUICK = PollPolicy(initial=0.02, maximum=0.02, long_poll=0)
PACKAGE = str(Path(openai_runs.__file__).parent)


def handle_with(timeout: float, clock: ManualClock, **options: Any) -> WaitHandle:
    """Return the handle of a wait that lasts `timeout` seconds."""
    waits = WaitOptions(policy=QUICK, timeout=timeout, **options)
    return WaitHandle(("thread_1", "run_1"), None, waits, lambda: clock.now)


@pytest.fixture
def poller() -> RunPoller:
    """A poller whose scheduler does not run."""
    scheduler = Scheduler(BackgroundTasks(), RateLimiter(), Runtime(), 100)
    return poller_of(scheduler, "key")


def test_poller_that_gets_no_permit_keeps_the_deadlines(poller: RunPoller) -> None:
    """Waiting, queued, blocked: once it is blocked, each handle has a timer."""
    clock = ManualClock()
    first, late = handle_with(5, clock), handle_with(7, clock)

    states = [poller.state]
    poller.join(first)
    poller.on_due()
    states.append(poller.state)
    due = first.due
    poller.block()
    states.append(poller.state)
    poller.join(late)

    assert states == [PollerState.WAITING, PollerState.QUEUED, PollerState.BLOCKED]
    assert due is None
    assert [first.due, late.due] == [first.deadline, late.deadline]


def test_deadline_is_kept_when_a_callback_returns_while_the_poller_is_blocked(
    poller: RunPoller,
) -> None:
    """A handle that was notifying had no timer; it gets one when it comes back."""
    handle = handle_with(5, ManualClock())
    poller.join(handle)
    handle.state = HandleState.NOTIFYING
    poller.on_due()
    poller.block()
    assert handle.due is None

    handle.state = HandleState.WAITING
    poller.resume(handle)

    assert handle.due == handle.deadline


@pytest.mark.parametrize("moves", [[], ["on_due"], ["on_due", "block"]], ids=str)
async def test_poller_is_closed_by_the_last_handle_that_leaves(
    moves: list[str], poller: RunPoller
) -> None:
    """In each state; nothing is polled any more, and it cannot come back."""
    handles = [handle_with(5, ManualClock()) for _ in range(2)]
    for handle in handles:
        poller.join(handle)
    for move in moves:
        getattr(poller, move)()

    states = []
    for handle in (*handles, handles[1]):
        poller.leave(handle)
        states.append(poller.state is PollerState.CLOSED)

    assert states == [False, True, True]
    assert poller.next_hold() is None
    await poller.poll(0, NO_PERMIT)  # a task that was about to poll: it sends nothing
    with pytest.raises(AssertionError, match="from closed to queued"):
        poller.on_due()


async def test_connections_come_back_when_polls_are_cut_off() -> None:
    """Waits for hanging runs are cancelled; what polled for them polls for others, at once."""
    hangs = True

    def handler(request: Received) -> Action:
        run = request.path.rpartition("/")[2]
        if run == "run_kept":  # the scheduler goes on
            return of_run("queued", id=run)
        return Hang() if hangs else of_run("completed", id=run)

    async with (
        nothing_left(),
        HostileServer(handler) as server,
        client_of(server, max_connections=4, poll=QUICK) as client,
    ):
        kept = asyncio.create_task(client.runs.wait("run_kept", thread_id="t"))
        for round_ in range(3):
            hangs, before = True, len(server.requests)
            names = [f"run_{round_}_{number}" for number in range(8)]
            waits = [asyncio.create_task(client.runs.wait(one, thread_id="t")) for one in names]
            await until(lambda before=before: len(hanging(server, before)) == 3)
            for wait in waits:
                wait.cancel()
            await asyncio.wait(waits)
            hangs = False
            outcomes = await client.runs.wait_all([(one, "t") for one in names], timeout=30)
            assert [isinstance(one, Run) for one in outcomes] == [True] * 8
        kept.cancel()
        await asyncio.wait([kept])


def hanging(server: HostileServer, before: int) -> list[str]:
    """Return the runs that hang, of those polled since there were `before` requests."""
    paths = {one.path for one in server.requests[before:]}
    return [path for path in paths if not path.endswith("run_kept")]


async def test_poll_after_one_that_was_cut_off_as_its_answer_came_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cancellation comes too late for the poll it was meant for, and hits no other."""
    answers: list[asyncio.Future[None]] = []
    request = aiohttp.ClientSession.request

    async def held_back(*args: Any, **kwargs: Any) -> aiohttp.ClientResponse:
        answers.append(asyncio.get_running_loop().create_future())
        if len(answers) == 1:
            await answers[0]
            raise aiohttp.ServerDisconnectedError
        await answers[-1]
        return await request(*args, **kwargs)

    monkeypatch.setattr(aiohttp.ClientSession, "request", held_back)
    async with (
        HostileServer(script(of_run("completed", id="run_2"))) as server,
        client_of(server, max_connections=1, poll=QUICK) as client,
    ):
        cut = asyncio.create_task(client.runs.wait("run_1", thread_id="t"))
        await until(lambda: len(answers) == 1)
        kept = asyncio.create_task(client.runs.wait("run_2", thread_id="t", timeout=30))
        pollers = client._scheduler._pollers
        await until(lambda: PollerState.BLOCKED in [one.state for one in pollers.values()])
        cut.cancel()
        answers[0].set_result(None)
        await until(lambda: len(answers) == 2)
        answers[1].set_result(None)
        assert (await kept).status == "completed"


@pytest.mark.parametrize("seed", range(5))
async def test_wait_that_is_cancelled_at_any_moment_harms_no_other(seed: int) -> None:
    """A poll is cut off before, while and after its answer comes; others are polled to the end."""
    chance = random.Random(seed)
    polls: dict[str, int] = {}

    def handler(request: Received) -> Action:
        run = request.path.rpartition("/")[2]
        polls[run] = polls.get(run, 0) + 1
        return of_run("completed" if polls[run] > 5 else "queued", id=run)

    async with (
        nothing_left(),
        HostileServer(handler) as server,
        client_of(server, max_connections=4, poll=QUICK) as client,
    ):
        kept = [
            asyncio.create_task(client.runs.wait(f"kept_{number}", thread_id="t", timeout=30))
            for number in range(10)
        ]

        async def cancel_one(number: int) -> None:
            wait = asyncio.create_task(client.runs.wait(f"cut_{number}", thread_id="t"))
            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)
            wait.cancel()
            await asyncio.wait([wait])

        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(cancel_one, number)
        runs = await asyncio.gather(*kept)

    assert [run.status for run in runs] == ["completed"] * 10


async def test_one_poll_is_sent_through_four_coroutines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scheduler, poller, pipeline, transport: no more stands between a task and aiohttp."""
    frames: list[list[str]] = []
    request = aiohttp.ClientSession.request

    def count(*args: Any, **kwargs: Any) -> Any:
        found, frame = [], sys._getframe(1)
        while frame is not None:
            found += _coroutine_of_ours(frame)
            frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
        frames.append(found)
        return request(*args, **kwargs)

    monkeypatch.setattr(aiohttp.ClientSession, "request", count)
    async with (
        HostileServer(script(of_run("queued"), of_run("completed"))) as server,
        client_of(server, poll=QUICK) as client,
    ):
        await await_run(client, **IDS)

    way = ["Transport.exchange", "Pipeline.poll", "RunPoller.poll", "Scheduler._run_polls"]
    assert frames == [way, way]


def _coroutine_of_ours(frame: FrameType) -> list[str]:
    code = frame.f_code
    is_ours = code.co_flags & inspect.CO_COROUTINE and code.co_filename.startswith(PACKAGE)
    return [code.co_qualname] if is_ours else []
