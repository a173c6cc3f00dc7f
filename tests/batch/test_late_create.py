"""A create of a killed process that the server carries out late."""

from __future__ import annotations

from pathlib import Path

import anyio

from openai_runs import AsyncClient
from openai_runs.batch import Batch, read_jsonl
from tests.batch.batching import batch_line, results_of, write_lines
from tests.client.batching import EMPTY
from tests.client.ledger import error
from tests.support import Action, Answer, Hang, HostileServer, Received, run_json

THREAD = {"id": "thread_1", "object": "thread", "created_at": 1, "metadata": {}}
BUSY = "Thread thread_1 already has an active run run_late."


async def test_run_that_appears_after_the_search_is_adopted(tmp_path: Path) -> None:
    """A thread belongs to one line, so the run that is in the way is its own, marked or not."""
    arrived = anyio.Event()

    def first(request: Received) -> Action:
        if request.path.endswith("/threads"):
            return Answer(json=THREAD)
        arrived.set()
        return Hang()

    def second(request: Received) -> Action:
        if request.method == "POST":
            return error(400, BUSY)
        if request.path.endswith("/runs/run_late"):
            return Answer(json=run_json("completed", id="run_late"))
        return EMPTY

    line = batch_line("a", "asst_1", "hello")
    line["body"]["metadata"] = {f"key{n}": "" for n in range(16)}  # no space for a mark
    write_lines(tmp_path / "in.jsonl", [line])

    async with HostileServer(first) as server, AsyncClient(server.url) as client:

        async def run() -> None:
            batch = Batch(client, checkpoint=tmp_path / "batch.db")
            await batch.run(read_jsonl(tmp_path / "in.jsonl"), out=tmp_path / "out.jsonl")

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await arrived.wait()
            group.cancel_scope.cancel()
        server.answer_with(second)
        await run()

    (result,) = results_of(tmp_path / "out.jsonl")
    assert result["response"]["body"]["id"] == "run_late"
