"""`AsyncClient.local()`: the embedded server, without a key or a network."""

import asyncio
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from openai_runs import AsyncClient, ConfigError, RunStatus
from openai_runs.server import Say, ScriptedBackend

OTHER = """
import asyncio, sys
from openai_runs import AsyncClient

async def main():
    async with AsyncClient.local(sys.argv[1]) as client:
        thread = await client.threads.create(metadata={"from": "another process"})
        print(client.base_url, thread.id)

asyncio.run(main())
"""


async def test_newcomer_gets_an_answer_when_nothing_is_set_up() -> None:
    """The ten lines of the README: create, run, wait, read."""
    async with AsyncClient.local() as client:
        assistant = await client.assistants.create(model="any")
        thread = await client.threads.create()
        run = await client.runs.create_and_poll(
            thread.id,
            assistant_id=assistant.id,
            additional_messages=[{"role": "user", "content": "Hello"}],
            timeout=20,
        )
        result = await client.runs.result(run)

    assert run.status == RunStatus.COMPLETED
    assert "Hello" in result.text
    assert result.usage is not None
    assert len(result.steps) == 1


async def test_first_request_starts_the_server_when_not_entered() -> None:
    """Without `async with` many first requests at once start one server."""
    client = AsyncClient.local(backend=ScriptedBackend([Say("x")]))
    threads = []

    async with anyio.create_task_group() as group:
        for _ in range(10):

            async def create() -> None:
                threads.append(await client.threads.create())

            group.start_soon(create)
    await client.aclose()

    assert len({thread.id for thread in threads}) == 10


async def test_file_is_kept_when_the_client_closes(tmp_path: Path) -> None:
    """A thread is there again in the next client of the same file."""
    path = tmp_path / "runs.db"
    async with AsyncClient.local(path) as client:
        thread = await client.threads.create(metadata={"k": "v"})

    async with AsyncClient.local(path) as client:
        again = await client.threads.retrieve(thread.id)

    assert again == thread


async def test_other_process_connects_when_the_file_is_served(tmp_path: Path) -> None:
    """The second process talks to the first one's server and leaves it running."""
    path = tmp_path / "runs.db"
    async with AsyncClient.local(path) as client:
        await client.threads.create()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", OTHER, str(path), stdout=subprocess.PIPE
        )
        output, _ = await process.communicate()
        url, thread_id = output.decode().split()

        assert url == client.base_url
        thread = await client.threads.retrieve(thread_id)

    assert thread.metadata == {"from": "another process"}


async def test_file_that_is_no_database_is_refused_plainly(tmp_path: Path) -> None:
    """A wrong file is named, and stays as it is."""
    path = tmp_path / "notes.txt"
    path.write_text("these are not runs\n" * 400)
    client = AsyncClient.local(path)

    with pytest.raises(ConfigError, match=r"notes\.txt"):
        await client.threads.create()
    await client.aclose()

    assert path.read_text() == "these are not runs\n" * 400


async def test_client_can_be_closed_in_another_task() -> None:
    """Opened here, used there, closed elsewhere: no scope is left behind."""
    client = AsyncClient.local()
    await asyncio.create_task(client.__aenter__())
    thread = await asyncio.create_task(client.threads.create())
    await asyncio.create_task(client.aclose())

    assert thread.id.startswith("thread_")
