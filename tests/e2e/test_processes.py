"""Several processes on one PostgreSQL: one is killed, stalls or stops, and the others go on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest

from openai_runs import APIConnectionError, AsyncClient, PollPolicy, Run, StreamError
from openai_runs.server import LocalServer, ScriptedBackend
from openai_runs.server.worker import Worker
from openai_runs.types.events import MessageDeltaEvent
from tests.chaos.callers import Caller, Journal
from tests.chaos.cluster import free_port
from tests.chaos.looking import look
from tests.chaos.model import Model, question, serve_model, text_of
from tests.chaos.processes import Process
from tests.chaos.reading import check_frames, frames_of

OTHER = "Said by another process."

Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    """The model that processes ask."""
    async with serve_model() as served:
        yield served
        served.let_go.set()


@pytest.fixture
async def start(tmp_path: Path, postgres_db: str, model: Model) -> AsyncIterator[Start]:
    """A function that starts a process on the database: `worker`, or `serve` and more."""
    numbers = count(1)
    async with AsyncExitStack() as stack:

        async def begin(*arguments: str) -> Process:
            name = f"{arguments[0]}-{next(numbers)}"
            more = ["--db", postgres_db, "--model-url", model.url]
            log = tmp_path / f"{name}.log"
            process = Process(name, [*arguments, *more], log, executes=True)
            stack.push_async_callback(process.clear)
            await process.start()
            return process

        yield begin


@pytest.fixture
async def client(postgres_db: str) -> AsyncIterator[AsyncClient]:
    """A client of a server that executes nothing."""
    async with (
        LocalServer(postgres_db, executes=False) as server,
        AsyncClient(server.url) as made,
    ):
        yield made


def other_worker(db: str) -> Worker:
    """Return a worker in this process, whose runs are told by what they say."""
    return Worker(db, ScriptedBackend(lambda request: OTHER))


async def create(client: AsyncClient, asked: str) -> Run:
    """Return a new run that asks this."""
    assistant = await client.assistants.create(model="any")
    thread = await client.threads.create()
    message = {"role": "user", "content": asked}
    return await client.runs.create(
        thread.id, assistant_id=assistant.id, additional_messages=[message]
    )


async def asked_of(model: Model, asked: str) -> None:
    """Return once the model was asked that."""
    while not model.asked[asked]:  # noqa: ASYNC110 - nobody announces that
        await anyio.sleep(0.01)


async def log_has(db: str, run: Run, text: str) -> None:
    """Return once the run's log has this text."""
    while text not in str([frame.data for frame in log_of(db, run)]):  # noqa: ASYNC110 - the same
        await anyio.sleep(0.02)


def log_of(db: str, run: Run) -> list[Any]:
    """Return the events of the run, as they are stored."""
    with psycopg.connect(db) as connection:
        sql = "SELECT body FROM events WHERE run_id = %s ORDER BY last"
        rows = connection.execute(sql, (run.id,)).fetchall()
    return frames_of(b"".join(body for (body,) in rows))


def attempts_of(db: str, run: Run) -> int:
    """Return how many processes in a row count as gone that executed the run."""
    with psycopg.connect(db) as connection:
        row = connection.execute("SELECT attempts FROM runs WHERE id = %s", (run.id,)).fetchone()
    assert row is not None
    return int(row[0])


async def text_in(client: AsyncClient, run: Run) -> str:
    """Return the run's only answer, once it has ended."""
    ended = await client.runs.wait(run, timeout=60)
    messages = [one async for one in client.messages.list(run.thread_id, run_id=run.id)]
    answers = [one for one in messages if one.role == "assistant"]
    assert ended.status == "completed"
    assert len(answers) == 1
    return answers[0].text


async def read(stream: Any, pieces: list[str], ids: list[str], server: Process) -> None:
    """Read the stream; in the middle of its text, the server is killed."""
    async for event in stream:
        ids.append(event.id)
        if isinstance(event, MessageDeltaEvent):
            pieces.append(event.data.text)
            if len(pieces) == 20 and server.runs:
                await server.kill()


async def test_client_whose_server_is_killed_in_mid_stream_goes_on_at_another(
    start: Start, model: Model
) -> None:
    """The text is whole, and no event comes twice."""
    asked = question("stream", 40).replace("say", "hold")
    ports = [free_port(), free_port()]
    first, *_ = await asyncio.gather(
        *(start("serve", "--no-execute", "--port", str(port)) for port in ports), start("worker")
    )
    pieces: list[str] = []
    ids: list[str] = []
    quick = PollPolicy(max_outage=0.5)
    async with (
        AsyncClient(f"http://127.0.0.1:{ports[0]}/v1", poll=quick) as client,
        AsyncClient(f"http://127.0.0.1:{ports[1]}/v1") as other,
    ):
        assistant = await client.assistants.create(model="any")
        thread = await client.threads.create()
        message = {"role": "user", "content": asked}
        with pytest.raises((StreamError, APIConnectionError)):
            async with client.runs.stream(
                thread.id, assistant_id=assistant.id, additional_messages=[message]
            ) as stream:
                await read(stream, pieces, ids, first)
        assert stream.run is not None
        model.let_go.set()
        async with other.runs.follow(
            stream.run.id, thread_id=thread.id, last_event_id=ids[-1]
        ) as again:
            await read(again, pieces, ids, first)
            result = await again.result()

    assert "".join(pieces) == text_of(asked)
    assert result.text == text_of(asked)
    assert [int(one.partition("-")[2]) for one in ids] == list(range(1, len(ids) + 1))


async def test_runs_of_a_killed_and_of_a_stalled_worker_are_taken_over(
    start: Start, model: Model, client: AsyncClient, postgres_db: str
) -> None:
    """Within 20 seconds; and the one that stalled writes nothing any more when it is back."""
    questions = [question(name, 20).replace("say", "hold") for name in ("stalled", "killed")]
    begun = []
    stalled = await start("worker")
    begun.append(await create(client, questions[0]))
    await log_has(postgres_db, begun[0], "stalled:9 ")
    stalled.send(signal.SIGSTOP)
    killed = await start("worker")
    begun.append(await create(client, questions[1]))
    await log_has(postgres_db, begun[1], "killed:9 ")
    await killed.kill()

    with anyio.fail_after(20):
        async with other_worker(postgres_db):
            texts = [await text_in(client, run) for run in begun]
    stalled.send(signal.SIGCONT)
    model.let_go.set()
    await stalled.stop()  # once what it executes is over

    assert texts == [OTHER, OTHER]
    assert [await text_in(client, run) for run in begun] == texts
    for run in begun:
        frames = log_of(postgres_db, run)
        assert check_frames(frames, first=1) == []
        assert frames[-1].name == "thread.run.completed"


async def test_worker_that_is_stopped_finishes_what_it_can_and_puts_back_the_rest(
    start: Start, model: Model, client: AsyncClient, postgres_db: str
) -> None:
    """What goes back is finished by another at once, and not as if a process had gone."""
    worker = await start("worker")
    short, long = question("short", 20), question("long", 20).replace("say", "hold")
    finished, put_back = await create(client, short), await create(client, long)
    await asked_of(model, short)
    await log_has(postgres_db, put_back, "long:9 ")

    worker.send(signal.SIGTERM)
    async with other_worker(postgres_db):
        assert await text_in(client, finished) == text_of(short)
        worker.send(signal.SIGTERM)  # at once
        assert await text_in(client, put_back) == OTHER
        await worker.stop()

    assert attempts_of(postgres_db, put_back) == 0
    assert check_frames(log_of(postgres_db, put_back), first=1) == []


async def test_nothing_is_lost_or_doubled_where_servers_and_workers_are_killed(
    start: Start, model: Model, postgres_db: str
) -> None:
    """All that was acknowledged is there, ended, with one answer, and its log is whole."""
    ports = [free_port(), free_port()]
    serving = [["serve", "--no-execute", "--port", str(port)] for port in ports]
    processes = await asyncio.gather(*(start(*one) for one in [*serving, ["worker"], ["worker"]]))
    urls = [f"http://127.0.0.1:{port}/v1" for port in ports]
    async with AsyncClient(urls[0]) as client:
        assistant = await client.assistants.create(model="any")
        threads = [(await client.threads.create()).id]
    journal = Journal()
    async with asyncio.TaskGroup() as group:
        for number in range(6):
            caller = Caller(urls, journal, assistant.id, threads, f"few-{number}")
            group.create_task(caller.call())
        for process in (processes[2], processes[0], processes[3]):
            await anyio.sleep(0.4)  # so that they are hit at work
            await process.kill()
            await process.start()
        journal.enough = True
    found = await asyncio.to_thread(look, postgres_db, journal.runs)

    assert journal.wrong == []
    assert found.is_right, found
    assert found.runs >= 6
