"""The embedded server, started by several at once, and closed while it starts."""

import asyncio
import sys
from pathlib import Path

import anyio
import pytest

from openai_runs import APITimeoutError, AsyncClient, ConfigError

ONE = """
import asyncio, sys
from openai_runs import AsyncClient

async def main():
    async with AsyncClient.local(sys.argv[1]) as client:
        thread = await client.threads.create()
        print(thread.id, flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


async def test_processes_that_start_together_share_one_server(tmp_path: Path) -> None:
    """Four workers on one file: each makes its thread, none is refused."""
    path = str(tmp_path / "runs.db")
    pipe = asyncio.subprocess.PIPE
    workers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", ONE, path, stdin=pipe, stdout=pipe, stderr=pipe
        )
        for _ in range(4)
    ]
    threads = []
    for worker in workers:
        assert worker.stdout is not None
        threads.append((await worker.stdout.readline()).decode().strip())
    outcomes = [await worker.communicate(b"\n") for worker in workers]

    assert all(thread.startswith("thread_") for thread in threads), outcomes


async def test_clients_of_one_process_share_one_server(tmp_path: Path) -> None:
    """Three clients on one file, first used at the same moment."""
    clients = [AsyncClient.local(tmp_path / "runs.db") for _ in range(3)]
    urls = set()

    async def use(client: AsyncClient) -> None:
        await client.threads.create()
        urls.add(client.base_url)

    async with anyio.create_task_group() as group:
        for client in clients:
            group.start_soon(use, client)
    for client in clients:
        await client.aclose()

    assert len(urls) == 1


async def test_client_closed_while_its_server_starts_leaves_nothing() -> None:
    """No task and no socket is left, and the call ends with an error or an answer."""
    before = asyncio.all_tasks()
    client = AsyncClient.local()
    creating = asyncio.create_task(client.threads.create())
    await asyncio.sleep(0)

    await client.aclose()
    await asyncio.gather(creating, return_exceptions=True)

    assert {task for task in asyncio.all_tasks() - before if not task.done()} == set()


async def test_closed_client_starts_no_server() -> None:
    """A `local()` client that was closed before its first use says so."""
    client = AsyncClient.local()
    await client.aclose()

    with pytest.raises(ConfigError, match="closed"):
        await client.threads.create()


async def test_timeout_covers_the_start_of_the_server() -> None:
    """`timeout` is the whole call as the caller sees it."""
    client = AsyncClient.local()
    with pytest.raises(APITimeoutError):
        await client.threads.create(timeout=0.001)
    await client.aclose()
