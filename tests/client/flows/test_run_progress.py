"""Progress: what a batch says of itself while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from openai_runs import (
    AsyncClient,
    BadRequestError,
    ConfigError,
    OpenAIRunsError,
    Progress,
    Run,
    RunResult,
    RunWaitTimeout,
)
from tests.client.batching import Desk, items_of, outcomes
from tests.client.simulated import SimulatedClock
from tests.support import HostileServer, run_json


def result(status: str = "completed", **changes: Any) -> RunResult:
    """Return the result of a run."""
    run = msgspec.convert(run_json(status, **changes), Run)
    return RunResult(run=run, messages=[], steps=[])


def progress(total: int | None, clock: SimulatedClock) -> Progress:
    """Return one that is ten seconds old."""
    made = Progress(total, clock.monotonic)
    clock.now += 10
    return made


USAGE = {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}
LIMIT = {"code": "rate_limit_exceeded", "message": "slow down"}
REASONS: dict[str, tuple[RunResult | OpenAIRunsError, str | None]] = {
    "completed": (result(), None),
    "failed": (result("failed", last_error=LIMIT), "rate_limit_exceeded"),
    "failed without a reason": (result("failed"), "failed"),
    "expired": (result("expired"), "expired"),
    "refused": (BadRequestError("no", status_code=400, code="bad"), "400 bad"),
    "refused without a code": (BadRequestError("no", status_code=400), "400 BadRequestError"),
    "not sent": (ConfigError("no"), "ConfigError"),
}


@pytest.mark.parametrize("name", REASONS)
def test_outcome_is_counted_by_its_reason(name: str) -> None:
    """A run that did not complete counts as failed, under its error's code or its status."""
    outcome, reason = REASONS[name]
    counted = Progress()

    assert counted.add(outcome) == reason
    assert (counted.completed, counted.failed) == ((1, 0) if reason is None else (0, 1))
    assert dict(counted.reasons) == ({} if reason is None else {reason: 1})


def test_wait_that_timed_out_is_named_by_the_status() -> None:
    """The run is still there."""
    run = msgspec.convert(run_json("in_progress"), Run)

    assert Progress().add(RunWaitTimeout(run, waited=1.0)) == "in_progress"


def test_line_has_counts_tokens_rate_and_time_left() -> None:
    """The rate is of this start: what was done before took no time of it."""
    counted = progress(1000, SimulatedClock())
    counted.earlier, counted.running = 900, 5
    for _ in range(9):
        counted.add(result(usage=USAGE))
    counted.add(result("expired"))

    assert str(counted) == (
        "910 of 1,000 done, 5 running, 1 failed (expired 1), 10,800 tokens, 1.0/s, 1 min 30 s left"
    )
    assert counted.summary() == "10 done, 1 failed (expired 1), 10,800 tokens, 1.0/s"
    assert counted.seconds_left == 90


def test_summary_is_empty_where_nothing_ended() -> None:
    """Neither what was done in earlier starts counts, nor what was left in progress."""
    counted = progress(1000, SimulatedClock())
    counted.earlier, counted.running = 900, 5

    assert counted.summary() == ""


def test_time_left_is_not_guessed_without_a_total_or_a_rate() -> None:
    """Neither is known in the beginning."""
    clock = SimulatedClock()

    assert progress(None, clock).seconds_left is None
    assert progress(5, clock).seconds_left is None


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    """A client of a server of many runs."""
    async with HostileServer(Desk()) as server, AsyncClient(server.url) as one:
        yield one


@pytest.mark.parametrize("total", [3, None], ids=["list", "generator"])
async def test_map_calls_its_progress_with_each_outcome(
    client: AsyncClient, total: int | None
) -> None:
    """The total is known where the items have a length."""
    items = items_of(["t1", "t2", "missing"])
    seen: list[tuple[int, int, int | None]] = []

    def note(now: Progress) -> None:
        seen.append((now.done, now.failed, now.total))

    source = items if total is None else list(items)
    await outcomes(client.runs.map(source, concurrency=1, assistant_id="asst_1", progress=note))

    assert seen == [(1, 0, total), (2, 0, total), (3, 1, total)]


async def test_progress_must_be_callable(client: AsyncClient) -> None:
    """Before anything is sent."""
    wrong: Any = True
    with pytest.raises(TypeError, match="progress must be callable"):
        client.runs.map([], concurrency=1, assistant_id="asst_1", progress=wrong)


def ended(counted: Progress, clock: SimulatedClock, number: int, *, each: float) -> None:
    """Have items complete, one in so many seconds."""
    for _ in range(number):
        clock.now += each
        counted.add(result())


def test_rate_is_that_of_the_last_minute_where_it_has_changed() -> None:
    """After an hour at one item a second, the time left is that of the pace now."""
    clock = SimulatedClock()
    counted = Progress(10_000, clock.monotonic)
    ended(counted, clock, 3600, each=1)
    ended(counted, clock, 700, each=0.1)

    assert counted.rate == pytest.approx(10, rel=0.05)
    assert counted.seconds_left == pytest.approx(570, rel=0.05)
    assert counted.summary().endswith(", 1.2/s")  # of all of this start


def test_rate_of_slow_runs_is_that_of_the_last_twenty() -> None:
    """A minute has none of them."""
    clock = SimulatedClock()
    counted = Progress(200, clock.monotonic)
    ended(counted, clock, 50, each=10)
    ended(counted, clock, 30, each=100)

    assert counted.rate == pytest.approx(0.01)
    assert counted.seconds_left == pytest.approx(12_000)


def test_rate_falls_while_nothing_ends() -> None:
    """As where the server is down: the time left grows."""
    clock = SimulatedClock()
    counted = Progress(1000, clock.monotonic)
    ended(counted, clock, 500, each=1)
    before = counted.rate
    clock.now += 600

    assert counted.rate < before / 5
