"""The statuses of the seeds, each one met by a run or a step of the real server."""

from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar, get_args, get_type_hints

import anyio
import pytest

from openai_runs import (
    AsyncClient,
    Run,
    RunErrorCode,
    RunStatus,
    RunStep,
    RunStepStatus,
    RunStepType,
    await_run,
)
from openai_runs.server import Fail, LocalServer, ScriptedBackend
from openai_runs.testing import RunsServer
from openai_runs.types import (
    FunctionToolCall,
    MessageCreation,
    MessageCreationDetails,
    ToolCallsDetails,
)
from tests.e2e.starting import start, waiting

T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T]], right: Callable[[T], object]) -> T:
    """Return what `look` finds, once it is right."""
    with anyio.fail_after(10):
        while not right(found := await look()):  # noqa: ASYNC110 - nobody announces it
            await anyio.sleep(0.01)
    return found


async def steps_of(client: AsyncClient, run: Run) -> list[RunStep]:
    """Return the run's steps, the oldest first."""
    return (await client.runs.steps.list(run.id, thread_id=run.thread_id, order="asc")).data


async def at_work(client: AsyncClient, server: RunsServer) -> Run:
    """Return a run that writes a message for ever, and has begun to."""
    server.hang(text="Half a")
    run = await start(client)
    await until(lambda: steps_of(client, run), len)
    return run


def stamps(step: RunStep) -> set[str]:
    """Return which of the times of a step's end are set."""
    ends = ("completed_at", "failed_at", "cancelled_at", "expired_at")
    return {name for name in ends if getattr(step, name) is not None}


async def test_step_fields(runs_server: RunsServer, runs_client: AsyncClient) -> None:
    """Steps carry every field of the seeds, for both kinds."""
    run = await waiting(runs_client, runs_server)
    output = {"tool_call_id": run.tool_calls[0].id, "output": "rain"}
    await runs_client.runs.submit_tool_outputs_and_poll(
        run.id, thread_id=run.thread_id, tool_outputs=[output], timeout=10
    )

    called, wrote = await steps_of(runs_client, run)

    assert (called.type, wrote.type) == (RunStepType.TOOL_CALLS, RunStepType.MESSAGE_CREATION)
    assert isinstance(called.step_details, ToolCallsDetails)
    assert called.step_details.type == RunStepType.TOOL_CALLS
    (call,) = called.step_details.tool_calls
    assert isinstance(call, FunctionToolCall)
    assert (call.id, call.function.name) == (run.tool_calls[0].id, "weather")
    assert isinstance(wrote.step_details, MessageCreationDetails)
    assert wrote.step_details.type == RunStepType.MESSAGE_CREATION
    assert isinstance(wrote.step_details.message_creation, MessageCreation)
    assert wrote.step_details.message_creation.message_id.startswith("msg_")
    for step in (called, wrote):
        assert step.id.startswith("step_")
        assert step.object == "thread.run.step"
        owners = (step.assistant_id, step.thread_id, step.run_id)
        assert owners == (run.assistant_id, run.thread_id, run.id)
        assert step.status == RunStepStatus.COMPLETED
        assert step.created_at >= run.created_at
        assert step.completed_at is not None
        assert stamps(step) == {"completed_at"}
        assert step.last_error is None
        assert step.metadata == {}


async def test_run_at_work(runs_server: RunsServer, runs_client: AsyncClient) -> None:
    """A run is queued, then in progress, and so is the step it takes."""
    runs_server.hang(text="Half a")
    queued = await start(runs_client)
    await until(lambda: steps_of(runs_client, queued), len)

    run = await runs_client.runs.retrieve(queued.id, thread_id=queued.thread_id)
    (step,) = await steps_of(runs_client, run)

    assert (queued.status, queued.started_at) == (RunStatus.QUEUED, None)
    assert run.status == RunStatus.IN_PROGRESS
    assert run.started_at is not None
    assert (step.type, step.status) == (RunStepType.MESSAGE_CREATION, RunStepStatus.IN_PROGRESS)
    assert (stamps(step), step.last_error) == (set(), None)


async def test_waiting_run(runs_server: RunsServer, runs_client: AsyncClient) -> None:
    """A run that requires an action has a step in progress, its outputs still open."""
    run = await waiting(runs_client, runs_server)

    (step,) = await steps_of(runs_client, run)

    assert (run.status, run.needs_action) == (RunStatus.REQUIRES_ACTION, True)
    assert (step.type, step.status) == (RunStepType.TOOL_CALLS, RunStepStatus.IN_PROGRESS)
    (call,) = step.tool_calls
    assert isinstance(call, FunctionToolCall)
    assert call.function.output is None


@pytest.mark.parametrize("begun", [waiting, at_work], ids=["waiting", "at_work"])
async def test_cancelled_run(
    runs_server: RunsServer,
    runs_client: AsyncClient,
    begun: Callable[[AsyncClient, RunsServer], Awaitable[Run]],
) -> None:
    """A cancel is answered with `cancelling`; then run and step are cancelled."""
    run = await begun(runs_client, runs_server)

    asked = await runs_client.runs.cancel(run.id, thread_id=run.thread_id)
    done = await await_run(runs_client, asked, timeout=10)
    (step,) = await steps_of(runs_client, run)

    assert asked.status == RunStatus.CANCELLING
    assert done.status == RunStatus.CANCELLED
    assert done.cancelled_at is not None
    assert (done.failed_at, done.completed_at, done.last_error) == (None, None, None)
    assert step.status == RunStepStatus.CANCELLED
    assert step.cancelled_at is not None
    assert done.created_at <= step.cancelled_at
    assert (stamps(step), step.last_error) == ({"cancelled_at"}, None)


@pytest.mark.parametrize("code", [RunErrorCode.SERVER_ERROR, RunErrorCode.RATE_LIMIT_EXCEEDED])
async def test_failed_run(code: str) -> None:
    """A run that fails in mid-sentence says why, and so does its step."""
    backend = ScriptedBackend([Fail("Slow down.", code=code, text="Half a")])
    async with LocalServer(backend=backend) as server, AsyncClient(server.url) as client:
        run = await await_run(client, await start(client), timeout=10)
        (step,) = await steps_of(client, run)

    assert run.status == RunStatus.FAILED
    assert run.failed_at is not None
    assert run.last_error is not None
    assert (run.last_error.code, run.last_error.message) == (code, "Slow down.")
    assert step.status == RunStepStatus.FAILED
    assert step.failed_at is not None
    assert stamps(step) == {"failed_at"}
    assert step.last_error == run.last_error


async def test_run_last_error(runs_server: RunsServer, runs_client: AsyncClient) -> None:
    """A run that fails before it did anything has an error, and no step."""
    runs_server.fail(RunErrorCode.RATE_LIMIT_EXCEEDED, "Slow down.")

    run = await await_run(runs_client, await start(runs_client), timeout=10)

    assert (run.status, run.completed_at, run.cancelled_at) == (RunStatus.FAILED, None, None)
    assert run.last_error is not None
    assert run.last_error.code == RunErrorCode.RATE_LIMIT_EXCEEDED
    assert await steps_of(runs_client, run) == []


@pytest.fixture
def hasty_server() -> Iterator[RunsServer]:
    """A server whose runs live for two seconds, the first of which has begun."""
    with RunsServer(run_lifetime=2) as server:
        yield server


@pytest.mark.parametrize("begun", [waiting, at_work], ids=["waiting", "at_work"])
async def test_expired_run(
    hasty_server: RunsServer,
    begun: Callable[[AsyncClient, RunsServer], Awaitable[Run]],
) -> None:
    """A run whose time is up has expired, and its step with it."""
    async with AsyncClient(hasty_server.url) as client:
        run = await begun(client, hasty_server)
        ended = await until(
            lambda: client.runs.retrieve(run.id, thread_id=run.thread_id),
            lambda run: run.is_terminal,
        )
        (step,) = await steps_of(client, run)

    assert ended.status == RunStatus.EXPIRED
    assert (ended.failed_at, ended.completed_at, ended.cancelled_at) == (None, None, None)
    assert (ended.required_action, ended.expires_at) == (None, None)
    assert step.status == RunStepStatus.EXPIRED
    assert step.expired_at == run.expires_at
    assert (stamps(step), step.last_error) == ({"expired_at"}, None)


@pytest.mark.parametrize("reason", ["max_completion_tokens", "max_prompt_tokens"])
async def test_incomplete_run(
    runs_server: RunsServer, runs_client: AsyncClient, reason: str
) -> None:
    """A run that met a limit is incomplete; what it wrote so far is a finished step."""
    runs_server.incomplete(reason, text="Half a")  # type: ignore[arg-type]  # one of the two

    run = await await_run(runs_client, await start(runs_client), timeout=10)
    (step,) = await steps_of(runs_client, run)

    assert run.status == RunStatus.INCOMPLETE
    assert run.incomplete_details is not None
    assert run.incomplete_details.reason == reason
    assert (run.failed_at, run.completed_at, run.last_error) == (None, None, None)
    assert (step.status, stamps(step)) == (RunStepStatus.COMPLETED, {"completed_at"})


def constants(of: type) -> set[str]:
    """Return the values of a class of constants."""
    return {value for name, value in vars(of).items() if name.isupper()}


def test_run_statuses() -> None:
    """The constants are exactly the statuses that `Run.status` spells out."""
    literal = get_args(get_type_hints(Run)["status"])[0]

    assert constants(RunStatus) == set(get_args(literal))


def test_step_statuses() -> None:
    """The constants are exactly the statuses and types that `RunStep` spells out."""
    hints = get_type_hints(RunStep)

    assert constants(RunStepStatus) == set(get_args(get_args(hints["status"])[0]))
    assert constants(RunStepType) == set(get_args(get_args(hints["type"])[0]))
