"""Whoever comes first wins, and it stays at that: cancel, submit, expiry and the work itself.

Straight on the store, where the races are decided; the seeds make each order repeatable.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from openai_runs._protocol.lifecycle import TRANSITIONS
from openai_runs.server.api_errors import Refusal
from openai_runs.server.objects.builders import NewRun, build_assistant, build_new_run, build_thread
from openai_runs.server.objects.transitions import (
    Delta,
    Ending,
    LostRace,
    Opening,
    Writing,
    message_step,
    new_message,
    tool_step,
)
from openai_runs.server.store import (
    Change,
    Claim,
    Logged,
    Moved,
    PageQuery,
    RunState,
    Store,
    claims,
    open_store,
    operations,
    rows,
    runs,
)
from openai_runs.types.assistants import Assistant, CreateAssistant
from openai_runs.types.base import TERMINAL_STATUSES
from openai_runs.types.runs import CreateRun, Run, ToolOutput
from openai_runs.types.steps import FunctionCallResult, FunctionToolCall
from openai_runs.types.threads import CreateThread

NOW = 1_800_000_000
PAGE = PageQuery(limit=100)
CALL = FunctionToolCall(id="call_1", function=FunctionCallResult(name="f", arguments="{}"))
DONE = Ending(status="completed", text="Done.")


class Recorded:
    """A store, and what it announced."""

    def __init__(self) -> None:
        self.moves: list[Moved] = []
        self.told: list[bytes] = []
        self.store: Store

    def hear(self, change: Change) -> None:
        """Keep the change."""
        if isinstance(change, Moved):
            self.moves.append(change)
        elif isinstance(change, Logged):
            self.told += re.findall(rb"event: (.*)\n", change.chunk.body)

    async def new_run(self) -> Run:
        """Return a queued run."""
        assistant = build_assistant(CreateAssistant(model="m"), NOW)
        thread = build_thread(CreateThread(), NOW)
        await self.store.write(operations.add_assistant, assistant)
        await self.store.write(runs.add_thread, thread, [])

        def make(stored: Assistant) -> NewRun:
            return build_new_run(stored, thread.id, CreateRun(assistant_id=stored.id), NOW, 600)

        self.moves.clear()
        self.told.clear()
        state = await self.store.write(runs.create, thread.id, assistant.id, make)
        return rows.decode(Run, state.stored.decode())


@pytest.fixture
async def recorded(tmp_path: Path) -> AsyncIterator[Recorded]:
    """An open store."""
    used = Recorded()
    used.store = await open_store(tmp_path / "races.db", used.hear)
    yield used
    await used.store.aclose()


Act = Callable[[Store, Run], Awaitable[object]]


def opening(run: Run) -> list[Writing]:
    """Return the beginning of a message."""
    message = new_message(run, NOW)
    return [Opening(step=message_step(run, message, NOW), message=message)]


async def end(store: Store, run: Run, ending: Ending, epoch: int | None = None) -> RunState | None:
    """End the run, for its execution or from outside."""
    return await store.write(claims.end, run.id, ending, NOW, writings=[], epoch=epoch)


async def wait(
    store: Store, run: Run, epoch: int, writings: list[Writing], turn: Ending
) -> RunState | None:
    """Have the run wait for the outputs of the turn's calls."""
    work = claims.require_action
    return await store.write(work, run.id, epoch, writings, turn=turn, now=NOW)


async def _execute(store: Store, run: Run, turn: Callable[[Claim], Awaitable[object]]) -> None:
    claim = await store.write(claims.claim, run.id, NOW)
    if claim is not None:
        await store.write(claims.write, run, claim.epoch, opening(run), NOW)
        await turn(claim)


async def complete(store: Store, run: Run) -> None:
    """Execute the run to its end."""
    await _execute(store, run, lambda c: end(store, run, DONE, c.epoch))


async def call_tools(store: Store, run: Run) -> None:
    """Execute the run to a tool call."""
    turn = Ending(status="completed", text="Let me see.", calls=[CALL])
    step: list[Writing] = [Opening(step=tool_step(run, NOW))]
    await _execute(store, run, lambda c: wait(store, run, c.epoch, step, turn))


async def put_back(store: Store, run: Run) -> None:
    """Begin to execute the run, and give it back."""
    await _execute(store, run, lambda c: store.write(claims.put_back, run.id, c.epoch, NOW))


async def submit(store: Store, run: Run) -> None:
    """Answer the tool call."""
    outputs = [ToolOutput(tool_call_id="call_1", output="x")]
    await store.write(runs.submit, run.thread_id, run.id, outputs, NOW)


async def cancel(store: Store, run: Run) -> None:
    """Cancel the run, as request and engine do together."""
    await store.write(runs.cancel, run.thread_id, run.id, NOW)
    await end(store, run, Ending(status="cancelled"))


async def expire(store: Store, run: Run) -> None:
    """Let the run's time be up."""
    await end(store, run, Ending(status="expired"))


ACTS: list[Act] = [complete, complete, call_tools, put_back, submit, submit, cancel, expire]


async def race(recorded: Recorded, chance: random.Random) -> Run:
    """Let a random choice of acts loose on one run; return it at its end."""
    run = await recorded.new_run()
    acts = chance.sample(ACTS, chance.randrange(2, len(ACTS) + 1))
    pauses = [chance.randrange(4) for _ in acts]

    async def attempt(act: Act, pause: int) -> None:
        for _ in range(pause):
            await anyio.lowlevel.checkpoint()
        with suppress(Refusal, LostRace):  # somebody else was first
            await act(recorded.store, run)

    async with anyio.create_task_group() as group:
        for act, pause in zip(acts, pauses, strict=True):
            group.start_soon(attempt, act, pause)
    await expire(recorded.store, run)
    state = await recorded.store.read(runs.get, run.thread_id, run.id)
    return rows.decode(Run, state.stored.decode())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(8))
async def test_one_end_and_only_legal_moves_whatever_the_order(
    recorded: Recorded, seed: int
) -> None:
    """40 races a seed: each move is in the table, one is the last, and nothing is left open."""
    chance = random.Random(seed)

    for _ in range(40):
        run = await race(recorded, chance)

        statuses = [move.status for move in recorded.moves]
        assert all(b in TRANSITIONS[a] for a, b in zip(statuses, statuses[1:], strict=False))
        assert [status in TERMINAL_STATUSES for status in statuses].count(True) == 1
        assert statuses[-1] == run.status
        assert recorded.told[-1] == f"thread.run.{run.status}".encode()
        told = [name for name in recorded.told if name.count(b".") == 2 and b"message" not in name]
        assert told == [b"thread.run.created", *(f"thread.run.{s}".encode() for s in statuses)]
        assert run.required_action is None
        assert run.expires_at is None
        steps = await recorded.store.read(operations.list_steps, run.thread_id, run.id, PAGE)
        assert all(step.status != "in_progress" for step in steps.data)
        messages = await recorded.store.read(operations.list_messages, run.thread_id, PAGE, None)
        assert all(message.status != "in_progress" for message in messages.data)


async def test_execution_that_lost_its_claim_writes_nothing(recorded: Recorded) -> None:
    """A worker that was thought dead wakes up: everything it tries is refused."""
    store, run = recorded.store, await recorded.new_run()
    zombie = await store.write(claims.claim, run.id, NOW)
    heir = await store.write(claims.claim, run.id, NOW)
    assert zombie is not None
    assert heir is not None
    await store.write(claims.write, run, heir.epoch, opening(run), NOW)

    late: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: store.write(claims.write, run, zombie.epoch, opening(run), NOW),
        lambda: wait(store, run, zombie.epoch, [], DONE),
        lambda: store.write(claims.put_back, run.id, zombie.epoch, NOW),
    )
    for write in late:
        with pytest.raises(LostRace):
            await write()
    assert await end(store, run, DONE, zombie.epoch) is None
    ended = await end(store, run, DONE, heir.epoch)

    assert ended is not None
    assert ended.status == "completed"
    assert [move.status for move in recorded.moves] == ["queued", "in_progress", "completed"]


async def test_cancelled_caller_takes_nothing_back(recorded: Recorded) -> None:
    """A write that was asked for is done whole, also if nobody waits for it any more."""
    store = recorded.store
    assistants = [build_assistant(CreateAssistant(model="m"), NOW) for _ in range(50)]

    async with anyio.create_task_group() as group:
        for assistant in assistants:
            group.start_soon(store.write, operations.add_assistant, assistant)
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    await store.write(rows.touch, NOW)  # queued behind them
    listed = await store.read(rows.page, Assistant, PAGE)

    assert {each.id for each in listed.data} == {each.id for each in assistants}


async def test_cancel_just_before_tool_calls_keeps_what_was_written(recorded: Recorded) -> None:
    """The turn does not move the run any more, but all of its pieces are told."""
    store, run = recorded.store, await recorded.new_run()
    claim = await store.write(claims.claim, run.id, NOW)
    assert claim is not None
    await store.write(claims.write, run, claim.epoch, opening(run), NOW)
    rest: list[Writing] = [Opening(step=tool_step(run, NOW)), Delta("thread.run.step.delta", b"{}")]
    turn = Ending(status="completed", text="Let me see.", calls=[CALL])

    await store.write(runs.cancel, run.thread_id, run.id, NOW)
    unmoved = await wait(store, run, claim.epoch, rest, turn)
    ended = await end(store, run, Ending(status="cancelled", calls=[CALL]))

    assert unmoved is None
    assert ended is not None
    assert ended.status == "cancelled"
    assert recorded.told.count(b"thread.run.step.delta") == 1
    assert recorded.told.index(b"thread.run.step.delta") < recorded.told.index(
        b"thread.run.step.cancelled"
    )
    steps = await store.read(operations.list_steps, run.thread_id, run.id, PAGE)
    assert [step.status for step in steps.data] == ["cancelled", "cancelled"]
