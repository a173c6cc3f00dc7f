"""Both seeds, end to end: `docs/pages/explain/seeds.md` names these tests row by row."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from openai_runs import (
    APITimeoutError,
    AsyncClient,
    RequiredActionType,
    RunStatus,
    SortOrder,
    await_run,
)
from openai_runs.testing import RunsServer
from openai_runs.types import (
    CodeInterpreterTool,
    FunctionTool,
    FunctionToolCall,
    RetrievalTool,
    ToolOutput,
)
from tests.e2e.starting import WEATHER, start, waiting
from tests.support import Answer, HostileServer, Received, run_json

STEP = {
    "id": "step_1",
    "object": "thread.run.step",
    "created_at": 1_700_000_000,
    "status": "completed",
    "step_details": {"type": "message_creation", "message_creation": {"message_id": "msg_1"}},
}


async def test_create_run(runs_server: RunsServer, runs_client: AsyncClient) -> None:
    """A run is made with everything a request of the seeds can say."""
    assistant = await runs_client.assistants.create(model="gpt-4o")
    thread = await runs_client.threads.create()

    run = await runs_client.runs.create(
        thread.id,
        assistant_id=assistant.id,
        model="gpt-4.1",
        instructions="Only yes or no.",
        tools=[WEATHER],
        metadata={"k": "v"},
    )

    assert (run.thread_id, run.assistant_id) == (thread.id, assistant.id)
    assert (run.model, run.instructions) == ("gpt-4.1", "Only yes or no.")
    assert isinstance(run.tools[0], FunctionTool)
    assert run.metadata == {"k": "v"}
    assert run.is_active


async def test_retrieve_run(runs_client: AsyncClient) -> None:
    """A run is read back by its two ids."""
    run = await await_run(runs_client, await start(runs_client), timeout=10)

    assert await runs_client.runs.retrieve(run.id, thread_id=run.thread_id) == run


async def test_update_run(runs_client: AsyncClient) -> None:
    """Metadata is replaced, and with None it is cleared."""
    run = await await_run(runs_client, await start(runs_client), timeout=10)

    changed = await runs_client.runs.update(
        run.id, thread_id=run.thread_id, metadata={"seed": "kotlin"}
    )
    cleared = await runs_client.runs.update(run.id, thread_id=run.thread_id, metadata=None)

    assert changed.metadata == {"seed": "kotlin"}
    assert not cleared.metadata


async def test_list_runs(runs_client: AsyncClient) -> None:
    """Runs are listed by limit, order, after and before."""
    first = await await_run(runs_client, await start(runs_client), timeout=10)
    ids = [first.id]
    for _ in range(2):
        run = await runs_client.runs.create_and_poll(
            first.thread_id, assistant_id=first.assistant_id, timeout=10
        )
        ids.append(run.id)

    async def listed(**arguments: object) -> list[str]:
        page = await runs_client.runs.list(first.thread_id, **arguments)  # type: ignore[arg-type]  # by name
        return [run.id for run in page.data]

    assert await listed(order=SortOrder.ASC) == ids
    assert await listed(order=SortOrder.DESC, limit=2) == ids[:0:-1]
    assert await listed(order="asc", after=ids[0]) == ids[1:]
    assert await listed(order="asc", before=ids[2]) == ids[:2]
    assert [run.id async for run in runs_client.runs.list(first.thread_id, limit=1)] == ids[::-1]


async def test_submit_tool_outputs(runs_server: RunsServer, runs_client: AsyncClient) -> None:
    """The required action names the calls, and their outputs let the run go on."""
    runs_server.call_tool("weather", {"city": "Oslo"})
    run = await await_run(runs_client, await start(runs_client, tools=True), timeout=10)
    assert run.required_action is not None
    assert run.required_action.type == RequiredActionType.SUBMIT_TOOL_OUTPUTS
    assert run.required_action.submit_tool_outputs
    assert run.required_action.submit_tool_outputs.tool_calls == run.tool_calls
    (call,) = run.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    assert "Oslo" in call.function.arguments
    runs_server.reply("It rains.")

    resumed = await runs_client.runs.submit_tool_outputs(
        run.id,
        thread_id=run.thread_id,
        tool_outputs=[ToolOutput(tool_call_id=call.id, output="rain")],
    )
    done = await await_run(runs_client, resumed, timeout=10)

    assert resumed.status == RunStatus.QUEUED
    assert done.status == RunStatus.COMPLETED
    assert (await runs_client.runs.result(done)).text == "It rains."


@pytest.mark.parametrize(
    ("output", "sent"),
    [("text", "text"), ({"deg": 3}, '{"deg":3}'), (42, "42"), (None, "null"), (["a"], '["a"]')],
    ids=["text", "object", "number", "null", "list"],
)
async def test_tool_outputs_of_any_type(
    runs_server: RunsServer, runs_client: AsyncClient, output: object, sent: str
) -> None:
    """An output that is no text is sent as JSON text, as the Go seed's `any` allows."""
    run = await waiting(runs_client, runs_server)

    await runs_client.runs.submit_tool_outputs_and_poll(
        run.id,
        thread_id=run.thread_id,
        tool_outputs=[{"tool_call_id": run.tool_calls[0].id, "output": output}],
        timeout=10,
    )

    page = await runs_client.runs.steps.list(run.id, thread_id=run.thread_id, order="asc")
    (call,) = page.data[0].tool_calls
    assert isinstance(call, FunctionToolCall)
    assert call.function.output == sent


async def test_cancel_run(runs_server: RunsServer, runs_client: AsyncClient) -> None:
    """A run that waits is cancelled, by way of `cancelling`."""
    run = await waiting(runs_client, runs_server)

    asked = await runs_client.runs.cancel(run.id, thread_id=run.thread_id)
    done = await await_run(runs_client, asked, timeout=10)

    assert asked.status in {RunStatus.CANCELLING, RunStatus.CANCELLED}
    assert done.status == RunStatus.CANCELLED
    assert done.cancelled_at is not None


async def test_create_thread_and_run(runs_client: AsyncClient) -> None:
    """Thread, messages and run are made in one request."""
    assistant = await runs_client.assistants.create(model="gpt-4o")

    run = await runs_client.threads.create_and_run(
        assistant_id=assistant.id,
        model="gpt-4.1",
        instructions="Only yes or no.",
        tools=[WEATHER],
        thread={"messages": [{"role": "user", "content": "Hi"}], "metadata": {"t": "1"}},
        metadata={"r": "2"},
    )
    done = await await_run(runs_client, run, timeout=10)

    thread = await runs_client.threads.retrieve(run.thread_id)
    messages = await runs_client.messages.list(run.thread_id, order="asc")
    assert messages.data[0].text == "Hi"
    assert (thread.metadata, run.metadata) == ({"t": "1"}, {"r": "2"})
    assert (run.model, run.instructions) == ("gpt-4.1", "Only yes or no.")
    assert isinstance(run.tools[0], FunctionTool)
    assert done.status == RunStatus.COMPLETED


async def test_retrieve_step(runs_client: AsyncClient) -> None:
    """A step is read back by its three ids."""
    run = await await_run(runs_client, await start(runs_client), timeout=10)
    page = await runs_client.runs.steps.list(run.id, thread_id=run.thread_id)

    step = await runs_client.runs.steps.retrieve(
        page.data[0].id, thread_id=run.thread_id, run_id=run.id
    )

    assert step == page.data[0]


async def test_list_steps(runs_server: RunsServer, runs_client: AsyncClient) -> None:
    """Steps are listed by limit, order, after and before."""
    run = await waiting(runs_client, runs_server)
    await runs_client.runs.submit_tool_outputs_and_poll(
        run.id,
        thread_id=run.thread_id,
        tool_outputs=[{"tool_call_id": run.tool_calls[0].id, "output": "rain"}],
        timeout=10,
    )

    async def listed(**arguments: object) -> list[str]:
        page = await runs_client.runs.steps.list(run.id, thread_id=run.thread_id, **arguments)  # type: ignore[arg-type]  # by name
        return [step.id for step in page.data]

    ids = await listed(order="asc")
    assert len(ids) == 2
    assert await listed(order="desc") == ids[::-1]
    assert await listed(order="asc", limit=1) == ids[:1]
    assert await listed(order="asc", after=ids[0]) == ids[1:]
    assert await listed(order="asc", before=ids[1]) == ids[:1]


async def test_run_fields(runs_client: AsyncClient) -> None:
    """A finished run carries every field of the seeds."""
    queued = await start(runs_client)
    assert queued.expires_at is not None
    run = await await_run(runs_client, queued, timeout=10)

    assert (run.id[:4], run.thread_id[:7], run.assistant_id[:5]) == ("run_", "thread_", "asst_")
    assert run.object == "thread.run"
    assert run.status == RunStatus.COMPLETED
    assert run.started_at
    assert run.completed_at
    assert run.created_at <= run.started_at <= run.completed_at
    assert queued.expires_at > run.created_at
    assert (run.model, run.instructions, run.tools) == ("gpt-4o", "Be brief.", [])
    assert run.metadata == {"seed": "go"}
    unset = (run.required_action, run.last_error, run.cancelled_at, run.failed_at)
    assert unset == (None, None, None, None)


async def test_v1_header() -> None:
    """With `assistants_version="v1"` each request carries the seeds' first header."""

    def answer(request: Received) -> Answer:
        return Answer(json=run_json("completed"))

    async with (
        HostileServer(answer) as server,
        AsyncClient(server.url, "k", assistants_version="v1") as client,
    ):
        await client.runs.retrieve("run_1", thread_id="thread_1")
        await client.with_options(assistants_version="v2").runs.retrieve(
            "run_1", thread_id="thread_1"
        )

    assert [request.headers["openai-beta"] for request in server.requests] == [
        "assistants=v1",
        "assistants=v2",
    ]


async def test_v1_file_ids() -> None:
    """What only v1 servers send is read: `file_ids` and the `retrieval` tool."""

    def answer(request: Received) -> Answer:
        tools = [{"type": "retrieval"}, {"type": "code_interpreter"}]
        return Answer(json=run_json("completed", file_ids=["file_1"], tools=tools))

    async with HostileServer(answer) as server, AsyncClient(server.url, "k") as client:
        run = await client.runs.retrieve("run_1", thread_id="thread_1")

    assert run.file_ids == ["file_1"]
    assert [type(tool) for tool in run.tools] == [RetrievalTool, CodeInterpreterTool]


async def test_http_facts() -> None:
    """Each answer carries its HTTP side, as the Go seed's objects carry their headers."""

    def answer(request: Received) -> Answer:
        headers = {
            "x-request-id": "req_1",
            "x-ratelimit-limit-requests": "100",
            "x-ratelimit-remaining-requests": "99",
            "x-ratelimit-reset-requests": "6m0s",
        }
        step = request.path.rpartition("/steps")[1]
        one = STEP if step else run_json()
        page = {"object": "list", "data": [one], "has_more": False}
        listed = request.path.endswith("s")
        return Answer(json=page if listed else one, headers=headers)

    async with HostileServer(answer) as server, AsyncClient(server.url, "k") as client:
        run = await client.runs.retrieve("run_1", thread_id="thread_1")
        runs = await client.runs.list("thread_1")
        step = await client.runs.steps.retrieve("step_1", thread_id="thread_1", run_id="run_1")
        steps = await client.runs.steps.list("run_1", thread_id="thread_1")

    for http in (run.http, runs.http, step.http, steps.http):
        assert http
        assert (http.status, http.request_id, http.attempts) == (200, "req_1", 1)
        assert http.headers["X-Request-Id"] == "req_1"
        assert http.rate_limit.remaining_requests == 99
        assert http.rate_limit.reset_requests == "6m0s"
    assert (runs.data[0].http, steps.data[0].http) == (None, None)


@asynccontextmanager
async def listener() -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """Yield the URL of a server that never answers, and when it heard and lost a client."""
    heard, lost = asyncio.Event(), asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        heard.set()
        assert await reader.read() == b""  # the client has hung up
        lost.set()
        writer.close()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1", heard, lost


async def test_timeout_and_cancellation(runs_server: RunsServer, runs_client: AsyncClient) -> None:
    """What the seeds give to a context: a deadline for each call, and an end to it at will."""
    run = await start(runs_client)
    runs_server.hang_connection(method="GET")

    with pytest.raises(APITimeoutError) as caught:
        await runs_client.runs.retrieve(run.id, thread_id=run.thread_id, timeout=0.2)

    assert (caught.value.thread_id, caught.value.run_id) == (run.thread_id, run.id)

    async with listener() as (url, heard, lost), AsyncClient(url, "k") as client:
        call = asyncio.create_task(client.runs.retrieve(run.id, thread_id=run.thread_id))
        async with asyncio.timeout(10):
            await heard.wait()
            assert not lost.is_set()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await lost.wait()

    assert call.cancelled()


async def test_beta_is_the_same(runs_client: AsyncClient) -> None:
    """The names of the official SDK lead to the same resources."""
    beta = runs_client.beta

    assert beta.assistants is runs_client.assistants
    assert beta.threads is runs_client.threads
    assert beta.threads.runs is runs_client.runs
    assert beta.threads.runs.steps is runs_client.runs.steps
    assert beta.threads.messages is runs_client.messages
