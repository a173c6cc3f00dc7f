"""await_run against a server on a real socket: when it polls, when it ends, by which clock."""

from __future__ import annotations

import math
import pickle
from email.utils import formatdate
from typing import Any

import pytest

from openai_runs import (
    APITimeoutError,
    PollPolicy,
    Run,
    RunStatus,
    RunWaitTimeout,
    await_run,
)
from openai_runs._client.settings import Runtime
from tests.client.acting import IDS, UNHELD, client_of, of_run, script
from tests.support import Answer, HostileServer, ManualClock, run_json

QUEUED = of_run("queued")
DONE = of_run("completed")
LASTS = Run(id="run_1", thread_id="thread_1", status="queued")


async def pauses(*answers: Answer, **options: Any) -> list[float]:
    """Return the pauses of a wait that meets these answers."""
    clock = ManualClock()
    async with HostileServer(script(*answers)) as server, client_of(server, clock) as client:
        await await_run(client, **IDS, **{"poll": UNHELD, **options})
    return clock.slept


# --- the pace


async def test_pauses_grow_to_the_maximum() -> None:
    """Without a hint the pauses grow by the factor, and no further than the maximum."""
    policy = PollPolicy(initial=1.0, factor=2.0, maximum=5.0, long_poll=0)

    slept = await pauses(*[QUEUED] * 6, DONE, poll=policy)

    assert slept == [1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


async def test_jitter_takes_away_its_share() -> None:
    """Chance 1 shortens each pause by the whole jitter."""
    clock = ManualClock()
    policy = PollPolicy(initial=1.0, factor=1.0, jitter=0.25, long_poll=0)
    runtime = clock.runtime(chance=lambda: 1.0)

    async with (
        HostileServer(script(QUEUED, QUEUED, DONE)) as server,
        client_of(server, seams=runtime, poll=policy) as client,
    ):
        await client.runs.wait(**IDS)

    assert clock.slept == [0.75, 0.75]


async def test_pause_follows_the_hint_of_each_answer() -> None:
    """The hint is read from every answer, not once."""
    hints = ["1000", "20", "250.5", "90000"]
    answers = [of_run("queued", {"openai-poll-after-ms": hint}) for hint in hints]

    assert await pauses(*answers, DONE) == [1.0, 0.05, 0.2505, 60.0]


@pytest.mark.parametrize("hint", ["soon", "-5", "nan", "inf", "", "0", "-0.0", "1_0", "٥٠٠"])
async def test_pause_is_the_policys_where_the_hint_is_junk(hint: str) -> None:
    """A hint that is no positive number is as good as none."""
    server_hint = {"openai-poll-after-ms": hint.encode().decode("latin-1")}

    assert await pauses(of_run("queued", server_hint), DONE) == [0.25]


@pytest.mark.parametrize("hint", ["1e400", "1e12", "9" * 400, "60001"])
async def test_hint_is_clamped_where_it_is_huge(hint: str) -> None:
    """No hint can stall a wait for more than a minute."""
    assert await pauses(of_run("queued", {"openai-poll-after-ms": hint}), DONE) == [60.0]


@pytest.mark.parametrize("options", [{"interval": 2.0}, {"poll_interval_ms": 2000}])
async def test_interval_replaces_the_policys_pace(options: dict[str, Any]) -> None:
    """`interval` is in seconds, `poll_interval_ms` is the official SDK's."""
    clock = ManualClock()
    hint = of_run("queued", {"openai-poll-after-ms": "500"})

    async with (
        HostileServer(script(QUEUED, hint, QUEUED, DONE)) as server,
        client_of(server, clock, poll=UNHELD) as client,
    ):
        await client.runs.poll("run_1", "thread_1", **options)

    assert clock.slept == [2.0, 0.5, 2.0]


async def test_first_look_is_at_once() -> None:
    """A run that is finished already costs one request and no pause."""
    assert await pauses(DONE) == []


# --- the end


@pytest.mark.parametrize(
    "status",
    ["completed", "failed", "cancelled", "incomplete", "expired", "requires_action", "paused"],
)
async def test_wait_ends_on_settled_statuses(status: str) -> None:
    """Finished, in need of us, or never heard of: the wait returns the run as it is."""
    clock = ManualClock()
    handler = script(QUEUED, of_run("in_progress"), of_run(status), of_run("queued"))

    async with HostileServer(handler) as server, client_of(server, clock, poll=UNHELD) as client:
        run = await client.runs.wait(**IDS)

    assert run.status == status
    assert len(server.requests) == 3


async def test_cancelling_is_waited_through() -> None:
    """A run that is being cancelled is not finished yet."""
    slept = await pauses(of_run("cancelling"), of_run("cancelling"), of_run("cancelled"))

    assert len(slept) == 2


async def test_status_may_jump_backwards() -> None:
    """in_progress after requires_action's neighbours, then queued: the wait just goes on."""
    seen: list[str] = []
    statuses = ["in_progress", "queued", "cancelling", "in_progress", "completed"]

    await pauses(*map(of_run, statuses), on_status=lambda run: seen.append(run.status))

    assert seen == statuses


async def test_finished_run_costs_no_request() -> None:
    """A finished Run handed in is returned as it is."""
    run = Run(id="run_1", thread_id="thread_1", status=RunStatus.FAILED)

    async with HostileServer(script(DONE)) as server, client_of(server) as client:
        returned = await await_run(client, run)

    assert returned is run
    assert server.requests == []


@pytest.mark.parametrize("status", ["requires_action", "queued", "paused"])
async def test_other_runs_are_fetched_first(status: str) -> None:
    """What a Run handed in says may be out of date, unless it is finished."""
    run = Run(id="run_1", thread_id="thread_1", status=status)

    async with HostileServer(script(DONE)) as server, client_of(server) as client:
        returned = await await_run(client, run)

    assert returned.status == "completed"
    assert [one.path for one in server.requests] == ["/v1/threads/thread_1/runs/run_1"]


async def test_run_id_needs_the_thread() -> None:
    """A bare run id is refused before any request."""
    async with HostileServer(script(DONE)) as server, client_of(server) as client:
        with pytest.raises(TypeError, match="thread_id"):
            await await_run(client, "run_1")

    assert server.requests == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": -1.0}, ValueError),
        ({"timeout": math.nan}, ValueError),
        ({"timeout": "60"}, TypeError),
        ({"request_timeout": 0}, ValueError),
        ({"interval": -1}, ValueError),
        ({"poll": 0.5}, TypeError),
        ({"on_cancel": "stop"}, ValueError),
        ({"on_timeout": None}, ValueError),
    ],
)
async def test_bad_options_are_refused_unsent(
    options: dict[str, Any], error: type[Exception]
) -> None:
    """What no wait could be made of is an error of the caller's, before any request."""
    async with HostileServer(script(DONE)) as server, client_of(server) as client:
        with pytest.raises(error):
            await await_run(client, **IDS, **options)

    assert server.requests == []


# --- on_status


async def test_on_status_is_called_on_changes_only() -> None:
    """Three polls with the same status are one call."""
    seen: list[str] = []
    answers = [QUEUED, QUEUED, of_run("in_progress"), of_run("in_progress"), DONE]

    await pauses(*answers, on_status=lambda run: seen.append(run.status))

    assert seen == ["queued", "in_progress", "completed"]


async def test_on_status_knows_the_status_handed_in() -> None:
    """The status of the Run handed in is no change."""
    seen: list[str] = []

    async with HostileServer(script(QUEUED, DONE)) as server, client_of(server) as client:
        await await_run(client, LASTS, on_status=lambda run: seen.append(run.status))

    assert seen == ["completed"]


async def test_on_status_may_be_async() -> None:
    """A coroutine function is awaited before the next poll."""
    seen: list[tuple[str, int]] = []

    async with (
        HostileServer(script(QUEUED, DONE)) as server,
        client_of(server, ManualClock()) as client,
    ):

        async def note(run: Run) -> None:
            seen.append((run.status, len(server.requests)))

        await await_run(client, **IDS, on_status=note)

    assert seen == [("queued", 1), ("completed", 2)]


async def test_on_status_ends_the_wait_by_raising() -> None:
    """What the callback raises reaches the caller, even if it is an error of ours."""
    error = APITimeoutError("of the callback's own call")

    def fail(run: Run) -> None:
        raise error

    async with HostileServer(script(QUEUED)) as server, client_of(server) as client:
        with pytest.raises(APITimeoutError) as caught:
            await await_run(client, **IDS, on_status=fail)

    assert caught.value is error
    assert len(server.requests) == 1


# --- the deadline


async def waited(answer: Answer, **options: Any) -> tuple[RunWaitTimeout, ManualClock, float]:
    """Return how a wait for a run that never ends, ends; and how long it took."""
    clock = ManualClock()
    began = clock.now
    async with HostileServer(script(answer)) as server, client_of(server, clock) as client:
        with pytest.raises(RunWaitTimeout) as caught:
            await await_run(client, **{**IDS, "poll": UNHELD, **options})
    return caught.value, clock, clock.now - began


async def test_deadline_is_exact() -> None:
    """The wait ends at its deadline, after one last poll shortly before it."""
    times: list[float] = []
    clock = ManualClock()

    def handler(request: Any) -> Answer:
        times.append(clock.now - 1000)
        return QUEUED

    policy = PollPolicy(initial=4.0, factor=1.0, long_poll=0)
    async with HostileServer(handler) as server, client_of(server, clock) as client:
        with pytest.raises(RunWaitTimeout):
            await await_run(client, **IDS, poll=policy, timeout=10)

    assert clock.now - 1000 == pytest.approx(10)
    assert times == pytest.approx([0, 4, 8, 9.8])


async def test_timeout_carries_the_last_run() -> None:
    """The error is a TimeoutError, holds the last state seen and both ids, and pickles."""
    error, _, _ = await waited(of_run("in_progress", model="latest"), run=LASTS, timeout=7)

    assert isinstance(error, TimeoutError)
    assert (error.thread_id, error.run_id) == ("thread_1", "run_1")
    assert error.run.status == "in_progress"
    assert error.waited == pytest.approx(7)
    assert "in_progress" in str(error)
    assert pickle.loads(pickle.dumps(error)).run == error.run


async def test_timeout_is_an_api_error_where_nothing_was_seen() -> None:
    """Only ids, and never an answer: an APITimeoutError with the ids and the last failure."""
    clock = ManualClock()
    policy = PollPolicy(max_outage=math.inf)

    async with (
        HostileServer(script(Answer(503, {}))) as server,
        client_of(server, clock, poll=policy) as client,
    ):
        with pytest.raises(APITimeoutError) as caught:
            await await_run(client, **IDS, timeout=30)

    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")
    assert "503" in str(caught.value.__cause__)
    assert clock.now == pytest.approx(1030)


async def test_infinite_timeout_outlasts_the_run() -> None:
    """math.inf waits past any expiry, on purpose."""
    expired = of_run("queued", created_at=100, expires_at=101)

    slept = await pauses(*[expired] * 300, DONE, timeout=math.inf)

    assert sum(slept) > 1000


SENT_AT = 1_700_000_300


def at(moment: float) -> dict[str, str]:
    """Return the `Date` header of an answer sent then."""
    return {"Date": formatdate(moment, usegmt=True)}


@pytest.mark.parametrize(
    ("answer", "lasts"),
    [
        pytest.param(of_run("queued", at(SENT_AT), expires_at=SENT_AT + 50), 60, id="Date"),
        pytest.param(of_run("queued", expires_at=1_700_000_600), 610, id="created_at"),
        pytest.param(of_run("queued"), 600, id="no expiry"),
        pytest.param(of_run("queued", expires_at=1_700_000_600_000), 600, id="milliseconds"),
        pytest.param(of_run("queued", created_at=0, expires_at=99), 600, id="no creation"),
        pytest.param(of_run("queued", {"Date": "now"}, expires_at=1_700_000_600), 610, id="junk"),
        pytest.param(of_run("queued", at(SENT_AT), expires_at=SENT_AT - 9), 10, id="overdue"),
    ],
)
@pytest.mark.parametrize("off", [0, 600, -600])
async def test_default_timeout_is_by_the_servers_clock(
    answer: Answer, lasts: float, off: float
) -> None:
    """What the run has left is read from the answer; a local clock that is off is no matter."""
    clock = ManualClock()
    runtime: Runtime = clock.runtime(wall=lambda: SENT_AT + off)

    async with (
        HostileServer(script(answer)) as server,
        client_of(server, seams=runtime, poll=UNHELD) as client,
    ):
        with pytest.raises(RunWaitTimeout):
            await await_run(client, LASTS)

    assert clock.now - 1000 == pytest.approx(lasts)


async def test_default_timeout_counts_from_the_first_answer() -> None:
    """Time lost before the server was heard is not taken from the run's own."""
    clock = ManualClock()
    handler = script(
        Answer(503, {}, {"retry-after": "20"}),
        of_run("queued", at(SENT_AT), expires_at=SENT_AT + 50),
    )

    async with HostileServer(handler) as server, client_of(server, clock, poll=UNHELD) as client:
        with pytest.raises(RunWaitTimeout):
            await await_run(client, **IDS)

    assert clock.now - 1000 == pytest.approx(20 + 60)


async def test_metadata_mark_is_hidden() -> None:
    """The pair by which lost creates are found is not the caller's business."""
    run = run_json("completed", metadata={"a": "b", "openai_runs_key": "k"})

    async with HostileServer(script(Answer(json=run))) as server, client_of(server) as client:
        waited_for = await await_run(client, **IDS)

    assert waited_for.metadata == {"a": "b"}


async def test_extras_of_the_call_go_with_each_poll() -> None:
    """Headers and query that a gateway needs are on every poll, not on the create alone."""
    extras: dict[str, Any] = {"extra_headers": {"X-Tenant": "t"}, "extra_query": {"v": "1"}}

    async with (
        HostileServer(script(QUEUED, QUEUED, DONE)) as server,
        client_of(server, ManualClock()) as client,
    ):
        await client.runs.create_and_poll("thread_1", assistant_id="asst_1", **extras)

    assert len(server.requests) == 3
    assert {one.headers.get("x-tenant") for one in server.requests} == {"t"}
    assert [one.query for one in server.requests] == [{"v": ["1"]}] * 3
