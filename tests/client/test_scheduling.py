"""Many waits of one client: shared polls, bounded connections, who goes first."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections import Counter
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from openai_runs import (
    APIConnectionError,
    AsyncClient,
    ConfigError,
    NotFoundError,
    PollPolicy,
    Run,
    RunWaitTimeout,
    await_run,
)
from tests.client.acting import IDS, UNHELD, client_of, of_run, refusal, script
from tests.client.cancelling import nothing_left
from tests.support import Action, Hang, HostileServer, ManualClock, Received

QUEUED = of_run("queued")
DONE = of_run("completed")
_TENANT: ContextVar[str] = ContextVar("_TENANT", default="nobody")


class Release:
    """A handler that answers `queued` until it is told that the run is over."""

    def __init__(self) -> None:
        """Go on being queued."""
        self.answer: Action = QUEUED

    def __call__(self, request: Received) -> Action:
        """Answer as it is now."""
        return self.answer


async def until(condition: Any) -> None:
    """Return once `condition()` holds."""
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - it is the server that is waited for
            await anyio.sleep(0.002)


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
    """A callable that looks at a context variable is never asked on behalf of somebody else."""
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


async def test_bad_header_of_many_waits_is_refused_before_anything_is_sent() -> None:
    """What cannot be sent is told at once, for all of them."""
    async with HostileServer(script(DONE)) as server, client_of(server) as client:
        with pytest.raises(ValueError, match="X-Note"):
            await client.runs.wait_all([("run_1", "thread_1")], extra_headers={"X-Note": "a\n"})
        with pytest.raises(TypeError, match="run_id, thread_id"):
            client.runs.as_completed(["run_1"])  # type: ignore[list-item]  # on purpose

    assert server.requests == []


async def test_polls_under_way_leave_connections_for_calls() -> None:
    """A thousand waits on a server that is slow: a call of another kind gets through."""
    polled: set[str] = set()
    release = anyio.Event()

    async def handler(request: Received) -> Action:
        if request.method == "POST":
            return of_run("cancelling")
        polled.add(request.path)
        await release.wait()
        return DONE

    async with (
        nothing_left(),
        HostileServer(handler) as server,
        client_of(server, max_connections=8) as client,
    ):
        pairs = [(f"run_{number}", "thread_1") for number in range(1000)]
        waiting = asyncio.create_task(client.runs.wait_all(pairs))
        await until(lambda: len(polled) == 6)
        await client.runs.cancel("run_x", thread_id="thread_1")
        assert len(polled) == 6
        release.set()
        await waiting

    assert server.accepted <= 8
    assert len(polled) == 1000


async def test_who_is_due_longest_is_polled_first() -> None:
    """With one connection, runs take turns: none is polled twice before all were once."""
    order: list[str] = []

    def handler(request: Received) -> Action:
        order.append(request.path)
        return DONE if len(order) > 30 else QUEUED

    async with (
        HostileServer(handler) as server,
        client_of(server, max_connections=1) as client,
    ):
        pairs = [(f"run_{number}", "thread_1") for number in range(10)]
        await client.runs.wait_all(pairs, interval=0.05, poll=UNHELD)

    rounds = [order[start : start + 10] for start in (0, 10, 20)]
    assert rounds[0] == rounds[1] == rounds[2]
    assert len(set(rounds[0])) == 10


async def test_hints_for_many_runs_are_stretched() -> None:
    """A hint of 50 ms for each of 1,000 runs asks for no more than 500 polls a second."""
    clock = ManualClock()
    polls: Counter[str] = Counter()
    begin = clock.now

    def handler(request: Received) -> Action:
        polls[request.path] += 1
        late = clock.now - begin > 20
        return of_run("completed" if late else "queued", {"openai-poll-after-ms": "50"})

    async with HostileServer(handler) as server, client_of(server, clock, poll=UNHELD) as client:
        pairs = [(f"run_{number}", "thread_1") for number in range(1000)]
        await client.runs.wait_all(pairs)

    assert len(polls) == 1000
    assert polls.total() < 1000 + 20 * 500 * 1.2


async def test_closed_client_tells_all_who_wait() -> None:
    """Waits in mid-poll, in a pause and in the queue: none hangs when the client is closed."""
    async with nothing_left(), HostileServer(script(Hang())) as server:
        client = client_of(server, max_connections=4)
        pairs = [(f"run_{number}", "thread_1") for number in range(20)]
        waits = [asyncio.create_task(client.runs.wait(run, thread_id=t)) for run, t in pairs]
        await until(lambda: len(server.requests) == 3)
        await client.aclose()
        errors = await asyncio.gather(*waits, return_exceptions=True)

    assert {type(error) for error in errors} <= {ConfigError, APIConnectionError}
    assert all(getattr(error, "run_id", None) for error in errors)


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


async def test_waiting_takes_under_two_kib_for_each() -> None:
    """Beyond the runs themselves, ten thousand waits take less than 2 KiB each."""
    handler = script(Hang())

    async with HostileServer(handler) as server, client_of(server, max_connections=1) as client:
        runs = [Run(id=f"run_{n}", thread_id="thread_1", status="queued") for n in range(10_000)]
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        async with client.runs.as_completed(runs) as completed:
            await until(lambda: len(server.requests) == 1)
            taken = tracemalloc.get_traced_memory()[0] - before
            assert completed.pending == 10_000
        tracemalloc.stop()

    assert taken / 10_000 < 2048
