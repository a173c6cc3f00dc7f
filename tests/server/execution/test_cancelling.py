"""Ending a run from outside: cancelling it, or deleting its thread."""

from __future__ import annotations

from typing import Any

import anyio

from openai_runs.server import Call, CallTools, Hang
from tests.server.conftest import Serve
from tests.server.support import Caller, run_path

CALLS = CallTools([Call("weather", {"city": "Oslo"}), Call("weather", {"city": "Rome"})])


async def test_cancel_of_a_run_at_work_ends_what_it_was_writing(serve: Serve) -> None:
    """`cancelling`, then `cancelled`; the partial message is kept as incomplete."""
    caller = await serve(Hang("Half a"))
    run = await caller.reaches(await caller.start(), "in_progress")
    await caller.begun(run)

    cancelling = await caller.send(
        "POST", f"{run_path(run)}/cancel", headers={"content-type": "application/json"}
    )
    done = await caller.settled(cancelling.json)

    (step,) = await caller.steps(done)
    message = (await caller.messages(done))[-1]
    assert cancelling.json["status"] == "cancelling"
    assert (done["status"], done["cancelled_at"] is not None) == ("cancelled", True)
    assert (step["status"], step["cancelled_at"] is not None) == ("cancelled", True)
    assert message["incomplete_details"] == {"reason": "run_cancelled"}
    assert message["content"][0]["text"]["value"] == "Half a"


async def test_cancel_of_a_waiting_run_cancels_its_step(serve: Serve) -> None:
    """The open tool calls are over, and their outputs are refused."""
    caller = await serve(CALLS)
    waiting = await caller.settled(await caller.start())

    await caller.post(f"{run_path(waiting)}/cancel")
    done = await caller.reaches(await caller.get(run_path(waiting)), "cancelled")
    late = await caller.submit(waiting)

    (step,) = await caller.steps(done)
    assert (step["status"], done["required_action"]) == ("cancelled", None)
    assert late.status == 400
    assert late.message == 'Runs in status "cancelled" do not accept tool outputs.'


async def test_cancel_of_a_finished_run_is_refused(caller: Caller) -> None:
    """In the text that clients match on."""
    run = await caller.settled(await caller.start())

    reply = await caller.send("POST", f"{run_path(run)}/cancel")

    assert (reply.status, reply.message) == (400, "Cannot cancel run with status 'completed'.")


async def test_queued_runs_wait_for_a_slot_in_their_order(serve: Serve) -> None:
    """With one slot the second run waits, can be cancelled there, and the third follows."""
    caller = await serve(Hang(), "Third.", max_concurrent_runs=1)
    first = await caller.reaches(await caller.start(), "in_progress")
    second, third = await caller.start(), await caller.start()

    await caller.post(f"{run_path(second)}/cancel")
    second = await caller.settled(second)
    third_waits = await caller.get(run_path(third))
    await caller.post(f"{run_path(first)}/cancel")

    assert (second["status"], second["started_at"]) == ("cancelled", None)
    assert third_waits["status"] == "queued"
    assert (await caller.settled(third))["status"] == "completed"


async def test_deleted_thread_takes_its_run_along(serve: Serve) -> None:
    """The work stops, a held request is told, and nothing of the thread is found."""
    caller = await serve(Hang("Half a"), "Next.", max_concurrent_runs=1)
    run = await caller.reaches(await caller.start(), "in_progress")
    held: list[Any] = []

    async def hold() -> None:
        held.append(await caller.send("GET", run_path(run), headers={"Prefer": "wait=30"}))

    async with anyio.create_task_group() as group:
        group.start_soon(hold)
        gone = await caller.send("DELETE", f"/threads/{run['thread_id']}")
    after = await caller.settled(await caller.start())

    assert gone.status == 200
    assert held[0].status == 404
    assert (await caller.send("GET", run_path(run))).status == 404
    assert after["status"] == "completed"  # the slot is free again
    assert (await caller.ready()).json["in_progress"] == 0
