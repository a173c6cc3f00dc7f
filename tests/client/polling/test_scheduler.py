"""Many waits of one client: shared polls, bounded connections, who goes first."""

from __future__ import annotations

import asyncio
import tracemalloc
from contextvars import ContextVar

import anyio
import pytest

from openai_runs import (
    APIConnectionError,
    APITimeoutError,
    ConfigError,
    PollPolicy,
    RateLimits,
    Run,
    await_run,
)
from openai_runs._client.arguments import WaitOptions
from openai_runs._client.core.background import BackgroundTasks
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.core.rate_limiter import RateLimiter
from openai_runs._client.core.state import ClientState
from openai_runs._client.polling.poller import RunPoller
from openai_runs._client.polling.scheduler import Scheduler
from openai_runs._client.settings import Runtime, Settings
from openai_runs._protocol.endpoints import GET_RUN
from openai_runs._protocol.spec import RequestSpec
from openai_runs._transport import Transport
from tests.client.acting import IDS, UNHELD, client_of, of_run, script, until
from tests.client.cancelling import nothing_left
from tests.support import Action, Hang, HostileServer, Received

QUEUED = of_run("queued")
DONE = of_run("completed")
_TENANT: ContextVar[str] = ContextVar("_TENANT", default="nobody")


PIPELINE = Pipeline(
    Settings(base_url="http://127.0.0.1:9", credential=None), ClientState(Transport())
)
RUN: RequestSpec[Run] = GET_RUN.spec({"thread_id": "thread_1", "run_id": "run_1"})


def poller_of(scheduler: Scheduler, key: object) -> RunPoller:
    """Return a poller that nobody waits for yet."""
    return RunPoller(PIPELINE, scheduler, RUN, WaitOptions(policy=PollPolicy()), key)


async def test_bad_header_of_many_waits_is_refused_before_anything_is_sent() -> None:
    """What cannot be sent is raised at once, for all of them."""
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


@pytest.mark.parametrize(
    ("runs", "hint", "expected"),
    [(1, 0.25, 0.25), (125, 0.25, 0.25), (1000, 0.25, 2.0), (10_000, 0.25, 20.0), (9, 60.0, 60.0)],
)
async def test_hints_for_many_runs_are_stretched(runs: int, hint: float, expected: float) -> None:
    """What a server hints at for each of many runs is 500 polls a second for all of them."""
    scheduler = Scheduler(BackgroundTasks(), RateLimiter(), Runtime(), 100)

    pauses = [scheduler.pace(poller_of(scheduler, n), hint, hinted=True) for n in range(runs)]
    asked = [scheduler.pace(poller_of(scheduler, n), 1.0) for n in range(3)]

    assert pauses[-1] == pytest.approx(expected, rel=0.01)
    assert asked == [1.0] * 3  # who names an interval gets it


async def test_pauses_are_stretched_to_what_the_limiter_grants() -> None:
    """600 requests a minute: fresh runs are asked more often than old ones, all more rarely."""
    limiter = RateLimiter(RateLimits(requests_per_minute=600))
    scheduler = Scheduler(BackgroundTasks(), limiter, Runtime(), 100)
    wanted = [0.25] * 10 + [5.0] * 100
    pollers = [(poller_of(scheduler, n), pause) for n, pause in enumerate(wanted)]

    for _ in range(2):
        pauses = [scheduler.pace(poller, pause) for poller, pause in pollers]

    fresh, old = pauses[0], pauses[-1]
    assert fresh > 0.25
    assert old == pytest.approx(20 * fresh, rel=0.1)
    assert sum(1 / pause for pause in pauses) == pytest.approx(10, rel=0.3)


async def test_deadline_is_kept_while_a_poll_waits_for_a_connection() -> None:
    """All connections hang: the wait ends at its deadline all the same."""
    async with (
        nothing_left(),
        HostileServer(script(Hang())) as server,
        client_of(server, max_connections=2) as client,
    ):
        hanging = asyncio.create_task(await_run(client, "run_0", thread_id="thread_1"))
        await until(lambda: len(server.requests) == 1)
        with pytest.raises(APITimeoutError, match="could not be seen"):
            await await_run(client, **IDS, timeout=0.2)
        hanging.cancel()
        await asyncio.wait([hanging])

    assert len(server.requests) == 1


async def test_deadline_is_kept_while_a_poll_waits_for_a_permit() -> None:
    """The limiter permits one request a minute: the wait ends at its deadline all the same."""
    async with (
        nothing_left(),
        HostileServer(script(QUEUED)) as server,
        client_of(server, limits=RateLimits(requests_per_minute=1)) as client,
    ):
        await client.runs.retrieve("run_0", thread_id="thread_1")
        with pytest.raises(APITimeoutError, match="could not be seen"):
            await await_run(client, **IDS, timeout=0.2)

    assert len(server.requests) == 1


async def test_closed_client_ends_all_waits() -> None:
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


async def test_waiting_takes_under_two_kib_for_each() -> None:
    """Beyond the runs themselves, ten thousand waits take less than 2 KiB each."""
    handler = script(Hang())

    async with HostileServer(handler) as server, client_of(server, max_connections=1) as client:
        runs = [Run(id=f"run_{n}", thread_id="thread_1", status="queued") for n in range(10_000)]
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        async with client.runs.as_completed(runs) as completed:
            await until(lambda: len(server.requests) == 1)
            used = tracemalloc.get_traced_memory()[0] - before
            assert completed.pending == 10_000
        tracemalloc.stop()

    assert used / 10_000 < 2048
