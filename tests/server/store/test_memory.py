"""What is over is let go of at once: no request and no answer waits for the garbage collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest

from openai_runs.server import Fail, Hang, Say, ScriptedTurn
from openai_runs.server.api_errors import Refusal
from openai_runs.server.store import Transaction, open_store
from tests.server.conftest import Serve
from tests.server.support import run_path

TEXT = "x" * 300_000
"""Nothing else that these tests make is as large."""


@contextmanager
def cycles() -> Iterator[list[object]]:
    """Give a list that has all objects that cycles held at the end."""
    found: list[object] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.extend(gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def large_ones(held: list[object]) -> list[str]:
    """Return the types of those that hold a large text."""
    return [
        type(holder).__name__
        for holder in held
        for text in gc.get_referents(holder)
        if isinstance(text, str | bytes | bytearray) and len(text) >= len(TEXT)
    ]


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "k"}], ids=["plain", "with a key"])
async def test_refused_request_is_held_by_nothing(serve: Serve, key: dict[str, str]) -> None:
    """Its error was raised in another thread, and its traceback would lead back to the body."""
    caller = await serve()
    body = {"role": "user", "content": TEXT}
    path = "/threads/thread_none/messages"
    await caller.send("POST", path, json=body)

    with cycles() as held:
        for _ in range(2):  # with a key, the second is the replay of the first
            reply = await caller.send("POST", path, json=body, headers=key)
            assert reply.status == 404

    assert large_ones(held) == []


@pytest.mark.parametrize(
    ("ending", "turn"),
    [
        ("completed", Say([TEXT, "."], pause=0.2)),
        ("cancelled", Hang(TEXT)),
        ("failed", Fail(text=[TEXT, "."])),
    ],
)
async def test_answer_of_a_run_that_is_over_is_held_by_nothing(
    serve: Serve, ending: str, turn: ScriptedTurn
) -> None:
    """Whatever its cancelled tasks and its failure leave behind."""
    caller = await serve(turn, turn)

    async def run() -> None:
        begun = await caller.start()
        if ending == "cancelled":
            await anyio.sleep(0.3)
            await caller.post(f"{run_path(begun)}/cancel")
        ended = await caller.settled(begun)
        assert ended["status"] == ending
        await anyio.sleep(0.1)

    await run()
    with cycles() as held:
        await run()

    assert large_ones(held) == []


class Carried:
    """What a piece of work brings along, such as the body of its request."""


def refuse() -> None:
    """Refuse the work.

    Raises:
        Refusal: Always.
    """
    message = "no"
    raise Refusal(message)


@pytest.mark.parametrize("at_once", [1, 10])
@pytest.mark.parametrize("act", [lambda: None, refuse], ids=["done", "refused"])
async def test_work_that_is_over_is_held_by_nothing_while_the_server_is_idle(
    tmp_path: Path, act: Callable[[], None], at_once: int
) -> None:
    """The thread that writes waits for the next piece of work without the last ones."""
    store = await open_store(tmp_path / "runs.db", lambda change: None)
    held: list[weakref.ref[Carried]] = []

    async def write() -> None:
        carried = Carried()
        held.append(weakref.ref(carried))

        def work(tx: Transaction, carried: Carried = carried) -> None:
            act()

        with suppress(Refusal):
            await store.write(work)

    try:
        async with anyio.create_task_group() as group:
            for _ in range(at_once):
                group.start_soon(write)
        while any(one() is not None for one in held):  # noqa: ASYNC110 - a thread ends its turn
            await anyio.sleep(0.01)
    finally:
        await store.aclose()
    assert len(held) == at_once
