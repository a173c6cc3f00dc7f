"""runs.wait_all and runs.as_completed: many waits of one caller."""

from __future__ import annotations

import asyncio
import gc
from typing import Any, Literal

import pytest

from openai_runs import (
    AsyncClient,
    CompletedRuns,
    NotFoundError,
    PollPolicy,
    Run,
    RunWaitTimeout,
)
from tests.client.acting import Release, client_of, of_run, refusal, until
from tests.client.cancelling import let_others_run, nothing_left
from tests.support import Action, HostileServer, Received

QUICK = PollPolicy(initial=0.02, maximum=0.02, long_poll=0)
Reaction = Literal["leave", "cancel"]


class Board:
    """A server of many runs: each goes on until it is told to end."""

    def __init__(self) -> None:
        """All go on."""
        self.ended: set[str] = set()
        self.gone: set[str] = set()

    def __call__(self, request: Received) -> Action:
        """Answer for the run that the path names."""
        run_id = request.path.removesuffix("/cancel").rpartition("/")[2]
        if request.method == "POST":
            self.ended.add(run_id)
            return of_run("cancelling", id=run_id)
        if run_id in self.gone:
            return refusal(404)
        return of_run("completed" if run_id in self.ended else "queued", id=run_id)


def pairs(count: int) -> list[tuple[str, str]]:
    """Return the ids of so many runs."""
    return [(f"run_{number}", "thread_1") for number in range(count)]


def cancels(server: HostileServer) -> list[str]:
    """Return the runs that the server was asked to cancel."""
    return sorted(one.path.split("/")[-2] for one in server.seen("POST", "/cancel"))


async def test_outcomes_stand_in_the_order_of_the_runs() -> None:
    """One that is gone is an error in its place, and ends no other."""
    board = Board()
    board.gone, board.ended = {"run_1"}, {"run_0", "run_2"}

    async with (
        nothing_left(),
        HostileServer(board) as server,
        client_of(server, poll=QUICK) as client,
    ):
        first, second, third = await client.runs.wait_all(pairs(3))

    assert isinstance(first, Run)
    assert isinstance(second, NotFoundError)
    assert second.run_id == "run_1"
    assert isinstance(third, Run)
    assert (first.id, third.id) == ("run_0", "run_2")


async def test_runs_that_are_over_cost_no_request() -> None:
    """Finished runs come back as they are; none at all is an empty list."""
    done = Run(id="run_1", thread_id="thread_1", status="failed")

    async with HostileServer(Board()) as server, client_of(server) as client:
        assert await client.runs.wait_all([]) == []
        assert await client.runs.wait_all([done, done]) == [done, done]

    assert server.requests == []


async def test_runs_come_as_they_end() -> None:
    """`as_completed` does not wait for the first to give the second."""
    board = Board()

    async with HostileServer(board) as server, client_of(server, poll=QUICK) as client:
        completed = client.runs.as_completed(pairs(3))
        order = []
        for run_id in ("run_2", "run_0", "run_1"):
            board.ended.add(run_id)
            outcome = await anext(completed)
            assert isinstance(outcome, Run)
            order.append(outcome.id)
        with pytest.raises(StopAsyncIteration):
            await anext(completed)

    assert order == ["run_2", "run_0", "run_1"]
    assert (completed.total, completed.pending) == (3, 0)
    assert repr(completed) == "<CompletedRuns: 3 of 3 returned>"


async def leave_by_break(completed: CompletedRuns) -> None:
    """Take one outcome, and drop the rest."""
    async for _ in completed:
        break


async def leave_block(completed: CompletedRuns) -> None:
    """Leave `async with` after one outcome."""
    async with completed:
        await anext(completed)


async def close(completed: CompletedRuns) -> None:
    """Call `aclose` after one outcome, twice."""
    await anext(completed)
    await completed.aclose()
    await completed.aclose()


@pytest.mark.parametrize("leave", [leave_by_break, leave_block, close])
async def test_left_early_nothing_is_polled_any_more(leave: Any) -> None:
    """However it is left: the other waits are over, and their runs are left alone."""
    board = Board()
    board.ended.add("run_0")

    async with (
        nothing_left(),
        HostileServer(board) as server,
        client_of(server, poll=QUICK) as client,
    ):
        await leave(client.runs.as_completed(pairs(20)))
        gc.collect()
        await let_others_run()
        polled = len(server.requests)
        await asyncio.sleep(0.1)
        assert len(server.requests) - polled <= 1  # one may have been under way

    assert cancels(server) == []


@pytest.mark.parametrize("on_cancel", ["leave", "cancel"])
async def test_cancelled_wait_for_all_cancels_runs_if_asked_to(on_cancel: Reaction) -> None:
    """The runs that are not over are cancelled, those that are over are not."""
    board = Board()
    board.ended.add("run_0")

    async with (
        nothing_left(),
        HostileServer(board) as server,
        client_of(server, poll=QUICK) as client,
    ):
        waiting = asyncio.create_task(client.runs.wait_all(pairs(4), on_cancel=on_cancel))
        await until(lambda: len(server.requests) > 12)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert cancels(server) == (["run_1", "run_2", "run_3"] if on_cancel == "cancel" else [])


async def test_cancelled_block_cancels_its_runs() -> None:
    """Cancelled while the body works on an outcome: `async with` sees to the others."""
    board = Board()
    board.ended.add("run_0")
    begun = asyncio.Event()

    async with HostileServer(board) as server, client_of(server, poll=QUICK) as client:

        async def work() -> None:
            async with client.runs.as_completed(pairs(3), on_cancel="cancel") as completed:
                await anext(completed)
                begun.set()
                await asyncio.sleep(60)

        working = asyncio.create_task(work())
        await begun.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    assert cancels(server) == ["run_1", "run_2"]


async def test_cancelled_step_loses_nothing() -> None:
    """A step that is given up, such as by a time-out of the caller's, can be taken again."""
    board = Board()

    async with (
        HostileServer(board) as server,
        client_of(server, poll=QUICK) as client,
        client.runs.as_completed(pairs(2)) as completed,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(completed)
        board.ended = {"run_0", "run_1"}
        outcomes = [outcome async for outcome in completed]

    assert all(isinstance(outcome, Run) for outcome in outcomes)
    assert len(outcomes) == 2


@pytest.mark.parametrize("on_timeout", ["leave", "cancel"])
async def test_each_wait_that_is_late_is_told(on_timeout: Reaction) -> None:
    """`timeout` holds for each; the server is asked to cancel before `wait_all` returns."""
    board = Board()
    board.ended.add("run_0")

    async with HostileServer(board) as server, client_of(server, poll=QUICK) as client:
        outcomes = await client.runs.wait_all(pairs(3), timeout=0.3, on_timeout=on_timeout)
        asked = cancels(server)

    assert isinstance(outcomes[0], Run)
    assert all(isinstance(outcome, RunWaitTimeout) for outcome in outcomes[1:])
    assert asked == (["run_1", "run_2"] if on_timeout == "cancel" else [])


async def test_error_of_the_callers_own_is_raised() -> None:
    """What the callable that gives the key raises is no outcome of a run."""

    def key() -> str:
        msg = "the vault is sealed"
        raise LookupError(msg)

    async with (
        nothing_left(),
        HostileServer(Release()) as server,
        AsyncClient(server.url, key) as client,
    ):
        with pytest.raises(LookupError, match="sealed"):
            await client.runs.wait_all(pairs(3))

    assert server.requests == []


async def test_unknown_argument_is_refused() -> None:
    """A typo is raised before anything is polled."""
    async with HostileServer(Board()) as server, client_of(server) as client:
        with pytest.raises(TypeError, match="intervall"):
            client.runs.as_completed(pairs(1), intervall=1)  # type: ignore[call-arg]  # on purpose

    assert server.requests == []
