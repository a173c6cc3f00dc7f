"""Waits for one run through one client: polls that are shared, and what is not."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from openai_runs import (
    AsyncClient,
    NotFoundError,
    PollPolicy,
    Run,
    RunWaitTimeout,
    await_run,
)
from tests.client.acting import IDS, UNHELD, Release, client_of, of_run, refusal, script, until
from tests.client.cancelling import nothing_left
from tests.support import Action, Hang, HostileServer, ManualClock, Received

QUEUED = of_run("queued")
DONE = of_run("completed")
_TENANT: ContextVar[str] = ContextVar("_TENANT", default="nobody")


async def test_waits_for_the_same_run_share_their_polls() -> None:
    """Fifty waits for one run cost little more than one, and all get the same end."""
    handler = Release()
    policy = PollPolicy(initial=0.05, maximum=0.05, long_poll=0)

    async with (
        nothing_left(),
        HostileServer(handler) as server,
        client_of(server, poll=policy) as client,
    ):
        waits = [asyncio.create_task(await_run(client, **IDS)) for _ in range(50)]
        await until(lambda: len(server.requests) >= 5)
        handler.answer = DONE
        runs = await asyncio.gather(*waits)

    assert {run.status for run in runs} == {"completed"}
    assert len(server.requests) < 20


async def test_shared_wait_has_its_own_deadline() -> None:
    """One of two waits for a run is over earlier: the other one goes on."""
    handler = Release()
    policy = PollPolicy(initial=0.05, maximum=0.05, long_poll=0)

    async with (
        nothing_left(),
        HostileServer(handler) as server,
        client_of(server, poll=policy) as client,
    ):
        patient = asyncio.create_task(await_run(client, **IDS, timeout=60))
        with pytest.raises(RunWaitTimeout):
            await await_run(client, **IDS, timeout=0.2)
        handler.answer = DONE
        assert (await patient).status == "completed"


async def test_deadline_during_a_shared_poll_is_kept() -> None:
    """A poll that others are patient with does not hold up the one whose time is up."""
    hanging = script(QUEUED, Hang())

    async with nothing_left(), HostileServer(hanging) as server, client_of(server) as client:
        policy = PollPolicy(initial=0.01)
        patient = asyncio.create_task(await_run(client, **IDS, timeout=60, poll=policy))
        await until(lambda: len(server.requests) == 2)
        with pytest.raises((RunWaitTimeout, TimeoutError)):
            await await_run(client, **IDS, timeout=0.2, poll=policy)
        patient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await patient


async def test_cancelled_wait_leaves_the_others_alone() -> None:
    """Cancelling one of two waits for a run, in mid-poll, costs the other nothing."""
    release, asked = anyio.Event(), anyio.Event()

    async def handler(request: Received) -> Action:
        asked.set()
        await release.wait()
        return DONE

    async with nothing_left(), HostileServer(handler) as server, client_of(server) as client:
        first, second = (asyncio.create_task(await_run(client, **IDS)) for _ in range(2))
        await asked.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        release.set()
        assert (await second).status == "completed"

    assert len(server.requests) == 1


async def test_newcomer_is_shown_no_state_older_than_itself() -> None:
    """A wait that joins while a poll is under way does not take that poll's `requires_action`."""
    release, asked = anyio.Event(), anyio.Event()

    async def handler(request: Received) -> Action:
        if len(server.requests) == 1:
            asked.set()
            await release.wait()
            return of_run("requires_action")
        return DONE

    async with HostileServer(handler) as server, client_of(server) as client:
        first = asyncio.create_task(await_run(client, **IDS))
        await asked.wait()
        second = asyncio.create_task(await_run(client, **IDS))
        await anyio.wait_all_tasks_blocked()
        release.set()
        assert (await first).status == "requires_action"
        assert (await second).status == "completed"


async def test_newcomer_takes_an_end_that_is_final() -> None:
    """A run that is over stays so: who joined during the poll needs no other one."""
    release, asked = anyio.Event(), anyio.Event()

    async def handler(request: Received) -> Action:
        asked.set()
        await release.wait()
        return DONE

    async with HostileServer(handler) as server, client_of(server) as client:
        waits = [asyncio.create_task(await_run(client, **IDS))]
        await asked.wait()
        waits.append(asyncio.create_task(await_run(client, **IDS)))
        await anyio.wait_all_tasks_blocked()
        release.set()
        await asyncio.gather(*waits)

    assert len(server.requests) == 1


async def test_refusal_reaches_each_wait_with_an_error_of_its_own() -> None:
    """Shared polls do not share an exception: each has its own traceback and notes."""
    waits: list[Any] = []

    async with (
        HostileServer(script(refusal(404))) as server,
        client_of(server, ManualClock()) as client,
    ):
        waits = await asyncio.gather(
            *[await_run_of(client) for _ in range(3)], return_exceptions=True
        )

    assert len(server.requests) == 4
    assert all(isinstance(error, NotFoundError) for error in waits)
    assert len({id(error) for error in waits}) == 3
    assert {(error.thread_id, error.run_id) for error in waits} == {("thread_1", "run_1")}


def await_run_of(client: AsyncClient) -> Any:
    """Return a wait for the run, to be awaited."""
    return await_run(client, **IDS, poll=UNHELD)


async def test_key_asked_for_each_time_is_asked_for_as_whoever_waits() -> None:
    """A callable that reads a context variable is never asked on behalf of somebody else."""
    handler = Release()

    async with (
        HostileServer(handler) as server,
        AsyncClient(server.url, lambda: f"key-of-{_TENANT.get()}") as client,
    ):

        async def wait_as(tenant: str) -> Run:
            _TENANT.set(tenant)
            return await await_run(client, **IDS, poll=PollPolicy(initial=0.01, long_poll=0))

        waits = [asyncio.create_task(wait_as(tenant)) for tenant in ("a", "b")]
        await until(lambda: len(server.requests) >= 6)
        handler.answer = DONE
        await asyncio.gather(*waits)

    keys = Counter(one.headers["authorization"] for one in server.requests)
    assert set(keys) == {"Bearer key-of-a", "Bearer key-of-b"}
    assert min(keys.values()) >= 3


async def test_extras_of_a_call_keep_it_to_itself() -> None:
    """A wait with headers of its own sends them, whoever else waits for the run."""
    handler = Release()

    async with HostileServer(handler) as server, client_of(server) as client:
        policy = PollPolicy(initial=0.01, long_poll=0)
        waits = [
            asyncio.create_task(
                client.runs.poll("run_1", "thread_1", poll=policy, extra_headers={"X-Who": who})
            )
            for who in ("a", "b")
        ]
        await until(lambda: len(server.requests) >= 6)
        handler.answer = DONE
        await asyncio.gather(*waits)

    assert {one.headers["x-who"] for one in server.requests} == {"a", "b"}


async def test_callback_that_is_slow_holds_up_no_other_wait() -> None:
    """One `on_status` that takes its time: the other wait for the run ends meanwhile."""
    handler, release = Release(), anyio.Event()
    policy = PollPolicy(initial=0.01, maximum=0.01, long_poll=0)

    async def dawdle(run: Run) -> None:
        await release.wait()

    async with HostileServer(handler) as server, client_of(server, poll=policy) as client:
        slow = asyncio.create_task(await_run(client, **IDS, on_status=dawdle))
        quick = asyncio.create_task(await_run(client, **IDS))
        await until(lambda: len(server.requests) >= 5)
        handler.answer = DONE
        assert (await quick).status == "completed"
        assert not slow.done()
        release.set()
        assert (await slow).status == "completed"
