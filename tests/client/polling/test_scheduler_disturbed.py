"""Waits of one client when something of the caller's goes wrong: one ends, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from openai_runs import (
    APIConnectionError,
    AsyncClient,
    PollPolicy,
    Run,
    RunWaitTimeout,
    await_run,
)
from openai_runs._client.core.background import BackgroundTasks
from openai_runs._client.core.rate_limiter import RateLimiter
from openai_runs._client.polling.scheduler import Scheduler
from openai_runs._client.settings import Runtime
from tests.client.acting import IDS, Release, client_of, of_run, script, until
from tests.client.batching import Desk, items_of, outcomes
from tests.client.cancelling import nothing_left
from tests.client.polling.test_scheduler import poller_of
from tests.support import Action, Hang, HostileServer, Received

QUICK = PollPolicy(initial=0.02, maximum=0.02, long_poll=0)
OTHER: dict[str, Any] = {"run": "run_2", "thread_id": "thread_1"}


async def cancelled_elsewhere(*_: object) -> str:
    """Await a task that somebody else has cancelled."""
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    task.cancel()
    await task
    return "never"


async def test_key_that_was_cancelled_elsewhere_is_a_failure_that_may_pass() -> None:
    """A callable whose refresh is cancelled: no hang; it works again, and the wait goes on."""
    asked: list[int] = []

    async def key() -> str:
        asked.append(1)
        return await cancelled_elsewhere() if 2 <= len(asked) <= 3 else "key"

    handler = Release()
    async with (
        nothing_left(),
        HostileServer(handler) as server,
        AsyncClient(server.url, key, poll=QUICK) as client,
    ):
        waiting = asyncio.create_task(await_run(client, **IDS))
        await until(lambda: len(server.requests) >= 3)
        handler.answer = of_run("completed")
        assert (await waiting).status == "completed"


async def test_call_whose_key_was_cancelled_elsewhere_is_a_connection_error() -> None:
    """An ordinary call fails too, and does not count as cancelled itself."""
    async with (
        HostileServer(script(of_run())) as server,
        AsyncClient(server.url, cancelled_elsewhere, max_retries=0) as client,
    ):
        with pytest.raises(APIConnectionError, match="was cancelled"):
            await client.runs.retrieve("run_1", thread_id="thread_1")

    assert server.requests == []


async def test_waits_fail_when_their_own_session_is_closed() -> None:
    """A caller who closes his session in mid-wait gets an error from each wait, in time."""
    aiohttp = pytest.importorskip("aiohttp")

    async with HostileServer(script(Hang())) as server:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=2))
        client = client_of(server, session=session)
        pairs = [(f"run_{number}", "thread_1") for number in range(10)]
        waiting = asyncio.create_task(client.runs.wait_all(pairs, timeout=5))
        await until(lambda: server.requests)
        await session.close()
        outcomes = await waiting
        await client.aclose()

    assert len(outcomes) == 10
    assert not any(isinstance(outcome, Run) for outcome in outcomes)


async def test_client_waits_on_after_all_its_tasks_were_cancelled() -> None:
    """A shutdown handler cancels every task; the client can be used on in the same loop."""
    handler = Release()

    async with HostileServer(handler) as server, client_of(server, poll=QUICK) as client:
        waits = [asyncio.create_task(await_run(client, **IDS)) for _ in range(3)]
        await until(lambda: len(server.requests) >= 3)
        ours = [one for one in asyncio.all_tasks() if one.get_name().startswith("openai_runs")]
        for task in [*waits, *ours]:
            task.cancel()
        await asyncio.wait([*waits, *ours])
        handler.answer = of_run("completed")
        assert (await await_run(client, **IDS)).status == "completed"


async def test_field_that_cannot_be_reckoned_with_harms_no_other_wait() -> None:
    """One run expires in 10**400 seconds; the waits for both go on to their ends."""
    ended = False

    def handler(request: Received) -> Action:
        status = "completed" if ended else "queued"
        if request.path.endswith("run_2"):
            return of_run(status, id="run_2", expires_at=10**400)
        return of_run(status)

    async with HostileServer(handler) as server, client_of(server, poll=QUICK) as client:
        waits = [asyncio.create_task(await_run(client, **which)) for which in (IDS, OTHER)]
        await until(lambda: len(server.requests) >= 6)
        ended = True
        runs = await asyncio.gather(*waits, return_exceptions=True)

    assert isinstance(runs[0], Run)
    assert not isinstance(runs[1], asyncio.CancelledError)


async def test_demand_is_forgotten_with_the_waits_that_made_it() -> None:
    """Waits that come and go leave the pace of those that stay as it was."""
    background = BackgroundTasks()
    scheduler = Scheduler(background, RateLimiter(), Runtime(), 100)
    staying = poller_of(scheduler, "staying")
    before = scheduler.pace(staying, 0.25, hinted=True)
    scheduler.add(staying)

    for number in range(2000):
        passing = poller_of(scheduler, number)
        scheduler.add(passing)
        scheduler.pace(passing, 0.25, hinted=True)
        scheduler.remove(passing)

    assert scheduler.pace(staying, 0.25, hinted=True) == pytest.approx(before)
    scheduler.remove(staying)
    await background.aclose()


async def test_better_limits_wake_the_polls() -> None:
    """`remaining 0` for a minute, then a reply says otherwise: the wait polls at once."""
    remaining = ["0"]

    def handler(request: Received) -> Action:
        headers = {
            "x-ratelimit-limit-requests": "1000",
            "x-ratelimit-remaining-requests": remaining[0],
            "x-ratelimit-reset-requests": "60s" if remaining[0] == "0" else "1s",
        }
        return of_run("queued", headers)

    async with HostileServer(handler) as server, client_of(server, poll=QUICK) as client:
        waiting = asyncio.create_task(await_run(client, **IDS, timeout=60))
        await until(lambda: len(server.requests) == 1)
        await anyio.sleep(0.1)
        assert len(server.requests) == 1
        remaining[0] = "999"
        client._state.limiter.on_headers(
            200, {"x-ratelimit-remaining-requests": "999", "x-ratelimit-limit-requests": "1000"}
        )
        await until(lambda: len(server.requests) >= 3)
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_slow_reader_gets_what_ended_in_time() -> None:
    """Who reads one outcome at a time, with `on_status`, gets no timeout for the others."""
    handler = Release()

    async with HostileServer(handler) as server, client_of(server, poll=QUICK) as client:
        pairs = [(f"run_{number}", "thread_1") for number in range(4)]
        statuses: list[str] = []
        async with client.runs.as_completed(
            pairs, timeout=3, on_status=lambda run: statuses.append(run.status)
        ) as completed:
            await until(lambda: len(server.requests) >= 8)
            handler.answer = of_run("completed")
            outcomes = []
            async for outcome in completed:
                outcomes.append(outcome)
                await anyio.sleep(1)  # reading them takes longer than the waits may last

    assert not any(isinstance(outcome, RunWaitTimeout) for outcome in outcomes)
    assert statuses.count("completed") == 4


async def test_two_readers_share_what_is_completed() -> None:
    """Several tasks may take from one iterator; each gets its end."""
    handler = Release()

    async with HostileServer(handler) as server, client_of(server, poll=QUICK) as client:
        pairs = [(f"run_{number}", "thread_1") for number in range(6)]
        completed = client.runs.as_completed(pairs)
        pulled: list[object] = []

        async def take() -> None:
            pulled.extend([outcome async for outcome in completed])

        readers = [asyncio.create_task(take()) for _ in range(3)]
        await until(lambda: len(server.requests) >= 6)
        handler.answer = of_run("completed")
        await asyncio.gather(*readers)

    assert len(pulled) == 6


async def test_callback_that_raises_ends_the_waits_of_its_call() -> None:
    """What `on_status` raises comes out of `as_completed`, and nothing is polled any more."""

    def fail(run: Run) -> None:
        raise LookupError(run.id)

    async with (
        nothing_left(),
        HostileServer(Release()) as server,
        client_of(server, poll=QUICK) as client,
    ):
        pairs = [(f"run_{number}", "thread_1") for number in range(3)]
        completed = client.runs.as_completed(pairs, on_status=fail)
        with pytest.raises(LookupError):
            await anext(completed)
        assert completed.pending == 0


async def test_cancelled_poll_slots_come_back_while_a_key_hangs() -> None:
    """Waits cancelled while the callable hangs give their places up; the next wait is polled."""
    hangs, asked = True, []

    async def key() -> str:
        asked.append(hangs)
        if hangs:
            await anyio.sleep_forever()
        return "key"

    async with (
        HostileServer(script(of_run("completed"))) as server,
        AsyncClient(server.url, key, max_connections=4) as client,
    ):
        waits = [asyncio.create_task(await_run(client, **IDS)) for _ in range(8)]
        await until(lambda: len(asked) == 3)  # three quarters of the connections
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
        hangs = False
        assert (await await_run(client, **IDS, timeout=30)).status == "completed"


async def test_callback_that_awaits_what_was_cancelled_ends_its_batch_aloud() -> None:
    """`runs.map` raises it to the reader, and does not end as if all had been carried out."""
    async with (
        HostileServer(Desk()) as server,
        client_of(server, poll=QUICK) as client,
    ):
        batch = client.runs.map(
            items_of(["a", "b", "c"]),
            concurrency=2,
            assistant_id="asst_1",
            on_status=cancelled_elsewhere,
        )
        with pytest.raises(RuntimeError, match="awaited something that was cancelled"):
            await outcomes(batch)


async def test_input_that_awaits_what_was_cancelled_ends_no_other_work() -> None:
    """The batch fails; a wait of the same client goes on to its end."""

    async def items() -> AsyncIterator[tuple[str, dict[str, str]]]:
        yield "a", {"thread_id": "a"}
        await cancelled_elsewhere()

    desk = Desk()
    desk.statuses["other"] = "in_progress"
    async with HostileServer(desk) as server, client_of(server, poll=QUICK) as client:
        run = await client.runs.create("other", assistant_id="asst_1")
        waiting = asyncio.create_task(await_run(client, run))
        with pytest.raises(RuntimeError, match="input of runs.map"):
            await outcomes(client.runs.map(items(), concurrency=2, assistant_id="asst_1"))
        assert not waiting.done()
        desk.statuses.clear()
        assert (await waiting).status == "completed"
