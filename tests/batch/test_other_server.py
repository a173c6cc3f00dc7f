"""A batch that is started again before another server, or before one that is silent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute, SocketStream

from openai_runs import AsyncClient
from openai_runs.batch import Batch, BatchError, read_jsonl
from openai_runs.server import EchoBackend, LocalServer
from tests.batch.batching import ECHO, Folder, Moody, anonymous, errors_of


@asynccontextmanager
async def other_server() -> AsyncIterator[AsyncClient]:
    """Yield a client of a server that knows nothing of the batch."""
    async with (
        LocalServer(backend=EchoBackend()) as other,
        AsyncClient(other.url, api_key=None) as client,
    ):
        yield client


async def test_other_server_ends_the_batch_before_a_line_is_begun(folder: Folder) -> None:
    """It does not know the assistant of the batch; on the first one the same call goes on."""
    await folder.batch(assistant=ECHO).run(anonymous("one"), out=folder.out)
    pairs = anonymous("one", "two", "three")

    async with other_server() as client:
        for _ in range(2):  # the second one, too, knows the first server
            batch = Batch(client, checkpoint=folder.checkpoint, assistant=ECHO)
            with pytest.raises(BatchError, match=r"does not know asst_.*last start, then at ") as e:
                await batch.run(pairs, out=folder.out)
            assert str(e.value).endswith(f", then at {folder.server.url}?")

    assert errors_of(folder.path) == []
    assert (await folder.batch(assistant=ECHO).run(pairs, out=folder.out)).completed == 3


async def test_other_server_ends_the_batch_where_a_line_was_begun(
    folder: Folder, backend: Moody
) -> None:
    """It does not know the thread and the run; the line stays open, and has one run in the end."""
    folder.write(a="wait")
    async with anyio.create_task_group() as group:
        group.start_soon(folder.run)
        await backend.waiting.wait()
        group.cancel_scope.cancel()
    backend.open.set()

    async with other_server() as client:
        batch = Batch(client, checkpoint=folder.checkpoint)
        with pytest.raises(
            BatchError, match=r"does not know thread_.*the last start, then at http"
        ):
            await batch.run(read_jsonl(folder.source), out=folder.out)

    assert errors_of(folder.path) == []
    assert (await folder.run()).completed == 1
    assert await anyio.to_thread.run_sync(folder.server.count, "runs") == 1


async def test_assistant_that_is_deleted_meanwhile_ends_the_batch(
    folder: Folder, backend: Moody
) -> None:
    """The lines after it stay open: no other would fare better."""
    batch = folder.batch(assistant=ECHO, concurrency=1)

    async def work() -> None:
        with pytest.raises(BatchError, match="does not know asst_"):
            await batch.run(anonymous("wait", "next", "last"), out=folder.out)

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await backend.waiting.wait()
        (made, *_) = (await folder.client.assistants.list(limit=1, order="desc")).data
        await folder.client.assistants.delete(made.id)
        backend.open.set()

    assert errors_of(folder.path) == []
    assert len(folder.results()) == 1


async def test_assistant_of_a_line_that_was_missing_may_be_there_at_the_next_start(
    folder: Folder,
) -> None:
    """Another server was asked, where the line failed: `retry_failed` sends it again."""
    folder.write(a="hello")
    async with other_server() as client:
        batch = Batch(client, checkpoint=folder.checkpoint)
        wrong = await batch.run(read_jsonl(folder.source), out=folder.out)
    assert [reason[:3] for reason in wrong.reasons] == ["404"]

    right = await folder.run(retry_failed=True)

    assert (right.completed, right.failed) == (1, 0)


async def test_stop_before_the_first_line_ends_the_wait_for_a_server_that_is_silent(
    tmp_path: Path,
) -> None:
    """The assistant of the batch is asked for in vain; nothing is in progress."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    async with (
        listener,
        AsyncClient(f"http://127.0.0.1:{port}/v1", api_key=None) as client,
        anyio.create_task_group() as group,
    ):
        batch = Batch(client, checkpoint=tmp_path / "batch.db", assistant=ECHO)

        async def stop(stream: SocketStream) -> None:
            async with stream:
                batch.stop()
                await anyio.sleep_forever()

        group.start_soon(listener.serve, stop)
        with anyio.fail_after(30):
            status = await batch.run([("a", "Hello")], out=tmp_path / "out.jsonl")
        group.cancel_scope.cancel()

    assert (status.completed, status.failed) == (0, 0)
