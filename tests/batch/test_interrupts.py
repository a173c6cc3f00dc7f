"""`Batch.stop_on_interrupt`: the first Ctrl-C stops the batch, a second one ends the program."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator

import anyio
import anyio.to_thread
import pytest

from openai_runs.batch import read_jsonl
from tests.batch.batching import Folder, Moody
from tests.cli.processes import clean_env, read_until

PROGRAM = """
import asyncio, sys
from openai_runs import AsyncClient
from openai_runs.batch import Batch, read_jsonl

async def main():
    async with AsyncClient(sys.argv[1], api_key=None) as client:
        batch = Batch(client, checkpoint="batch.db")
        with batch.stop_on_interrupt():
            async with asyncio.TaskGroup() as group:
                running = group.create_task(batch.run(read_jsonl("in.jsonl"), out="out.jsonl"))
                while not batch.is_stopping:
                    await asyncio.sleep(0.01)
                print("stopping", flush=True)
                await running

asyncio.run(main())
"""


@pytest.fixture
def interrupts() -> Iterator[list[int]]:
    """Collect the Ctrl-Cs that reach who handled them before."""
    found: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: found.append(number))
    yield found
    signal.signal(signal.SIGINT, before)


async def test_first_ctrl_c_finishes_what_is_in_progress(
    folder: Folder, backend: Moody, interrupts: list[int]
) -> None:
    """The second goes to who handled it before, and so does one after the batch."""
    folder.write(a="wait", b="next")
    batch = folder.batch(concurrency=1)

    async def interrupt() -> None:
        await backend.waiting.wait()
        signal.raise_signal(signal.SIGINT)
        assert interrupts == []
        signal.raise_signal(signal.SIGINT)
        backend.open.set()

    async with anyio.create_task_group() as group:
        group.start_soon(interrupt)
        with batch.stop_on_interrupt():
            status = await batch.run(read_jsonl(folder.source), out=folder.out)
    signal.raise_signal(signal.SIGINT)

    assert interrupts == [signal.SIGINT, signal.SIGINT]
    assert (batch.is_stopping, status.completed, status.waiting) == (True, 1, 1)


async def test_ctrl_c_after_the_batch_is_none_of_it(folder: Folder, interrupts: list[int]) -> None:
    """Whoever handled it before gets it, where none came meanwhile."""
    folder.write(a="one")
    batch = folder.batch()
    with batch.stop_on_interrupt():
        await batch.run(read_jsonl(folder.source), out=folder.out)

    signal.raise_signal(signal.SIGINT)

    assert (interrupts, batch.is_stopping) == ([signal.SIGINT], False)


async def test_second_ctrl_c_ends_a_program_at_once(folder: Folder, backend: Moody) -> None:
    """Though the model does not answer; the next start goes on with the run that is there."""
    folder.write(a="wait")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, folder.server.url),
        cwd=folder.path,
        env=clean_env(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await backend.waiting.wait()
    process.send_signal(signal.SIGINT)
    await read_until("stopping", process.stdout)
    process.send_signal(signal.SIGINT)
    assert await process.wait() == -signal.SIGINT
    backend.open.set()

    assert (await folder.run()).completed == 1
    assert await anyio.to_thread.run_sync(folder.server.count, "runs") == 1
