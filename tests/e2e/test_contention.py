"""Many callers at one thread of the real server: one run at a time, nothing lost or doubled."""

from typing import Any

import anyio
import anyio.abc

from openai_runs import ActiveRunError, AsyncClient, Run, RunStatus
from openai_runs.testing import RunsServer

CALLERS = 50


async def outcomes_of(client: AsyncClient, thread_id: str, **arguments: Any) -> list[object]:
    """Return what each of 50 concurrent creates came to."""
    assistant = await client.assistants.create(model="gpt-4o")
    outcomes: list[object] = []

    async def create() -> None:
        try:
            run = await client.runs.create(thread_id, assistant_id=assistant.id, **arguments)
        except ActiveRunError as error:
            outcomes.append(error)
        else:
            outcomes.append(run)

    async with anyio.create_task_group() as group:
        for _ in range(CALLERS):
            group.start_soon(create)
    return outcomes


async def test_one_create_wins_when_fifty_want_the_thread(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """One run, and 49 `ActiveRunError` that name it."""
    runs_server.hang()
    thread = await runs_client.threads.create()

    outcomes = await outcomes_of(runs_client, thread.id)

    (run,) = [one for one in outcomes if isinstance(one, Run)]
    errors = [one for one in outcomes if isinstance(one, ActiveRunError)]
    assert len(errors) == CALLERS - 1
    assert {error.blocking_run_id for error in errors} == {run.id}
    assert {error.thread_id for error in errors} == {thread.id}
    assert [one.id async for one in runs_client.runs.list(thread.id)] == [run.id]


async def test_all_run_in_turn_when_fifty_wait(runs_client: AsyncClient) -> None:
    """With `on_active_run="wait"` each of the 50 creates becomes a run of its own."""
    thread = await runs_client.threads.create()

    outcomes = await outcomes_of(runs_client, thread.id, on_active_run="wait", timeout=50)

    assert all(isinstance(one, Run) for one in outcomes)
    runs = [one async for one in runs_client.runs.list(thread.id, order="asc", limit=100)]
    assert {one.id for one in runs} == {one.id for one in outcomes if isinstance(one, Run)}
    assert len(runs) == CALLERS
    assert all(one.status == RunStatus.COMPLETED for one in runs[:-1])


async def test_blocker_is_cancelled_when_asked_to(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """With `on_active_run="cancel"` the run in the way ends as cancelled, and ours runs."""
    assistant = await runs_client.assistants.create(model="gpt-4o")
    thread = await runs_client.threads.create()
    runs_server.hang()
    blocker = await runs_client.runs.create(thread.id, assistant_id=assistant.id)

    run = await runs_client.runs.create_and_poll(
        thread.id, assistant_id=assistant.id, on_active_run="cancel", timeout=20
    )

    ended = await runs_client.runs.retrieve(blocker.id, thread_id=thread.id)
    assert ended.status == RunStatus.CANCELLED
    assert run.status == RunStatus.COMPLETED


async def test_list_shows_each_run_once_while_others_are_created(runs_client: AsyncClient) -> None:
    """Both orders, `limit=2`, with `after` and `before`, under concurrent creates."""
    assistant = await runs_client.assistants.create(model="gpt-4o")
    thread = await runs_client.threads.create()

    async def create() -> Run:
        return await runs_client.runs.create_and_poll(
            thread.id, assistant_id=assistant.id, on_active_run="wait", timeout=20
        )

    ids = [(await create()).id for _ in range(5)]

    async def more(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        task_status.started()
        for _ in range(5):
            await create()

    async def listed(**arguments: object) -> list[str]:
        runs = runs_client.runs.list(thread.id, limit=2, **arguments)  # type: ignore[arg-type]  # by name
        return [run.id async for run in runs]

    async with anyio.create_task_group() as group:
        await group.start(more)
        ascending = await listed(order="asc")
        descending = await listed(order="desc", after=ids[4])
        later = await listed(order="asc", after=ids[1])
        backwards = await listed(order="asc", before=ids[3])

    assert ascending[:5] == ids
    assert len(set(ascending)) == len(ascending)
    assert descending == ids[3::-1]
    assert later[:3] == ids[2:]
    assert backwards == ids[2::-1]


async def test_own_key_means_the_same_run_before_and_after_the_server_is_known(
    runs_server: RunsServer,
) -> None:
    """A fresh client marks its create, one that knows the server does not: one run all the same."""
    async with AsyncClient(runs_server.url) as client, AsyncClient(runs_server.url) as knowing:
        assistant = await knowing.assistants.create(model="gpt-4o")
        thread = await knowing.threads.create()

        first = await client.runs.create(
            thread.id, assistant_id=assistant.id, idempotency_key="order-1"
        )
        second = await knowing.runs.create(
            thread.id, assistant_id=assistant.id, idempotency_key="order-1"
        )

    assert first.id == second.id
