"""A run that is over when it is to be cancelled is no failure; one that may go on is."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import pytest

from openai_runs import await_run
from tests.client.acting import client_of, refusal
from tests.support import (
    Action,
    Answer,
    Drop,
    Hang,
    HostileServer,
    ManualClock,
    Received,
    run_json,
)

IDS: Any = {"run": "run_1", "thread_id": "thread_1"}
OVER = ["completed", "cancelled", "expired", "failed", "incomplete", "cancelling"]
MISSING = refusal(404, "No run found with id 'run_1'.")


def running(status: str) -> Answer:
    """Return the run in that status."""
    return Answer(json=run_json(status))


async def cancel_late(
    cancelling: Action, then: Action, caplog: pytest.LogCaptureFixture
) -> tuple[list[str], list[Received]]:
    """Cancel a wait; return the warnings, and what was asked from the cancel on."""
    polled = anyio.Event()

    def handler(request: Received) -> Action:
        if request.path.endswith("/cancel"):
            return cancelling
        if len(server.seen("POST")):
            return then
        polled.set()
        return Hang() if len(server.requests) > 1 else running("in_progress")

    clock = ManualClock()
    runtime = clock.runtime(cancel_grace=0.3)
    with anyio.fail_after(20), caplog.at_level(logging.WARNING, "openai_runs"):
        async with HostileServer(handler) as server, client_of(server, seams=runtime) as client:
            task = asyncio.create_task(await_run(client, **IDS, on_cancel="cancel"))
            await polled.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    warned = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    asked = [one.method for one in server.requests]
    return warned, server.requests[asked.index("POST") :]


NAMED = {
    "ours": "Cannot cancel run with status '{}'.",
    "openai": "Cannot cancel run with status {}",
    "quoted": 'Cannot cancel run with status "{}".',
}


@pytest.mark.parametrize("status", OVER)
@pytest.mark.parametrize("text", NAMED)
async def test_cancel_of_a_run_that_is_over_meanwhile_warns_of_nothing(
    status: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The server names the status: nothing more is asked."""
    said = refusal(400, NAMED[text].format(status))

    warned, asked = await cancel_late(said, Hang(), caplog)

    assert warned == []
    assert [one.method for one in asked] == ["POST"]


REFUSALS = {
    "another-text": refusal(400, "The run has ended."),
    "conflict": refusal(409, "Run is not active."),
    "no-route": Answer(404, {"detail": "Not Found"}),
    "unknown-status": refusal(400, "Cannot cancel run with status 'vanished'."),
}


@pytest.mark.parametrize("status", OVER)
@pytest.mark.parametrize("said", REFUSALS)
async def test_run_is_retrieved_where_the_rejection_does_not_say_why(
    status: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What the server shows then decides."""
    warned, asked = await cancel_late(REFUSALS[said], running(status), caplog)

    assert warned == []
    assert asked[-1].method == "GET"


@pytest.mark.parametrize("said", [MISSING, *REFUSALS.values()], ids=["missing", *REFUSALS])
async def test_cancel_of_a_deleted_run_warns_of_nothing(
    said: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    """With its thread, as a rule."""
    warned, _ = await cancel_late(said, MISSING, caplog)

    assert warned == []


FAILURES: dict[str, tuple[Action, Action]] = {
    "goes-on": (REFUSALS["another-text"], running("in_progress")),
    "waits-for-tools": (REFUSALS["another-text"], running("requires_action")),
    "unknown-status": (REFUSALS["another-text"], running("vanished")),
    "no-such-route": (REFUSALS["no-route"], running("in_progress")),
    "cannot-be-retrieved": (REFUSALS["another-text"], refusal(401, "no")),
    "no-key": (refusal(401, "no"), running("completed")),
    "server-error": (refusal(500, "no"), refusal(500, "no")),
    "gone": (Drop(), Drop()),
    "hangs": (Hang(), Hang()),
    "hangs-then": (REFUSALS["another-text"], Hang()),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_cancel_that_fails_while_the_run_may_go_on_is_a_warning(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs the caller money: one line names the run."""
    warned, _ = await cancel_late(*FAILURES[case], caplog)

    (line,) = warned
    assert "cancelling run run_1" in line
