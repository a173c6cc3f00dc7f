"""Tools that hang, raise, return too much or are asked nonsense: each has its output, once."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import Enum
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pydantic
import pytest

from openai_runs import AsyncClient, ToolError, tool
from openai_runs.server import Call
from openai_runs.testing import RunsServer
from tests.canaries import CANARY_KEY
from tests.e2e.tooling import answer, answered, outputs, run_tools

TOO_LATE = {"error": "the tool did not finish within 0.05 s"}
SECRET = "tok_4711"


class Colour(str, Enum):  # noqa: UP042 - what older code has
    """A text that is an Enum too."""

    RED = "red"


class Model(pydantic.BaseModel):
    """A model of another library."""

    size: int


class Unwritable:
    """Nothing that JSON could hold."""


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What ends the threads of tools that hang, once the test is over."""
    event = threading.Event()
    yield event
    event.set()


async def test_hanging_tools_are_given_up_and_hold_nobody_up(
    runs_server: RunsServer, runs_client: AsyncClient, release: threading.Event
) -> None:
    """Sync and async, more of them than may run at once; the others are answered."""
    names = ["hang", "hang_async"] * 3 + ["work"] * 4
    runs_server.call_tools(*[Call(name) for name in names])

    @tool(timeout=0.05)
    def hang() -> None:
        release.wait()

    @tool(timeout=0.05)
    async def hang_async() -> None:
        await anyio.sleep_forever()

    def work() -> str:
        return "worked"

    await run_tools(runs_client, hang, hang_async, work, max_parallel=2)

    assert outputs(runs_server) == [TOO_LATE] * 6 + ["worked"] * 4


async def test_time_out_of_the_call_holds_for_tools_without_their_own(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """`tool_timeout` is for those that say nothing; a tool's None is the run's own time."""
    runs_server.call_tools(Call("slow"), Call("patient"))

    async def slow() -> None:
        await anyio.sleep_forever()

    @tool(timeout=None)
    async def patient() -> str:
        await anyio.sleep(0.2)
        return "here"

    await run_tools(runs_client, slow, patient, tool_timeout=0.05)

    assert outputs(runs_server) == [TOO_LATE, "here"]


async def test_event_loop_goes_on_while_a_sync_tool_works(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """The tool waits for what only the event loop can do."""
    runs_server.call_tool("work")
    loop, done = asyncio.get_running_loop(), threading.Event()

    def work() -> str:
        loop.call_soon_threadsafe(done.set)
        return "worked" if done.wait(20) else "the loop stood still"

    await run_tools(runs_client, work)

    assert answer(runs_server) == "worked"


def refuse() -> None:
    """Tell the model why not."""
    reason = "only on Mondays"
    raise ToolError(reason)


def refuse_in_halves() -> None:
    """Tell the model half a character."""
    reason = "no \ud800"
    raise ToolError(reason)


def fail() -> None:
    """Fail with a secret in the text."""
    raise RuntimeError(SECRET)


async def fail_async() -> None:
    """Fail with a secret in the text."""
    raise RuntimeError(SECRET)


def stop() -> None:
    """Raise what ends a generator."""
    raise StopIteration


async def time_out() -> None:
    """Run into a time-out of its own."""
    raise TimeoutError


async def cancel_itself() -> None:
    """Be cancelled from within."""
    raise asyncio.CancelledError


async def cancel_its_task() -> None:
    """Cancel the task it runs in."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


def abort() -> None:
    """Raise what no `except Exception` catches."""
    raise BaseException(SECRET)


def unwritable() -> Unwritable:
    """Return no JSON."""
    return Unwritable()


def surrogate() -> str:
    """Return half a character."""
    return "\ud800"


def broken_iterator() -> Iterator[int]:
    """Break in the middle of the result."""
    yield 1
    raise RuntimeError(SECRET)


FAILED = {"error": "the tool failed"}
CANCELLED = {"error": "the tool was cancelled"}
UNSENDABLE = {"error": "the result cannot be written as JSON"}
FAILURES: dict[Callable[[], Any], Any] = {
    refuse: {"error": "only on Mondays"},
    refuse_in_halves: {"error": "no ?"},
    fail: FAILED,
    fail_async: FAILED,
    stop: FAILED,
    time_out: FAILED,
    abort: FAILED,
    cancel_itself: CANCELLED,
    cancel_its_task: CANCELLED,
    unwritable: UNSENDABLE,
    surrogate: UNSENDABLE,
    broken_iterator: UNSENDABLE,
}


@pytest.mark.parametrize(
    ("function", "output"), FAILURES.items(), ids=[function.__name__ for function in FAILURES]
)
async def test_failure_of_a_tool_is_an_output_without_internals(
    runs_server: RunsServer, runs_client: AsyncClient, function: Any, output: Any
) -> None:
    """The model is told that it failed, the other call is answered, and the run goes on."""
    runs_server.call_tools(Call(function.__name__), Call("work"))

    def work() -> str:
        return "worked"

    result = await run_tools(runs_client, function, work)

    assert outputs(runs_server) == [output, "worked"]
    assert result.run.status == "completed"


NONSENSE: dict[str, tuple[str, str, str]] = {
    "no-such-tool": ("nobody", "{}", "there is no tool named 'nobody'; there are: look, other"),
    "no-json": ("look", "{", "the arguments do not fit: Input data was truncated"),
    "no-object": ("look", "[]", "the arguments do not fit: Expected `object`, got `array`"),
    "wrong-type": (
        "look",
        '{"number":"x"}',
        "the arguments do not fit: Expected `int`, got `str` - at `$.number`",
    ),
    "missing": ("look", "", "the arguments do not fit: Object missing required field `number`"),
    "too-deep": ("look", "[" * 100_000, "the arguments do not fit: "),
    "own-check": ("other", '{"even":{"number":1}}', "the arguments do not fit: 1 is odd"),
    "own-failure": ("other", '{"even":{"number":0}}', "the arguments do not fit"),
}


class Even(msgspec.Struct):
    """A number that checks itself, and badly."""

    number: int

    def __post_init__(self) -> None:
        """Refuse odd numbers, and fail for 0."""
        if self.number % 2:
            msg = f"{self.number} is odd"
            raise ValueError(msg)
        1 / self.number


@pytest.mark.parametrize(("name", "raw", "problem"), NONSENSE.values(), ids=NONSENSE)
async def test_call_that_cannot_be_made_is_explained(
    runs_server: RunsServer, runs_client: AsyncClient, name: str, raw: str, problem: str
) -> None:
    """The model reads what is wrong, and where."""
    runs_server.call_tool(name, raw)

    def look(number: int) -> None:
        pytest.fail(str(number))

    def other(even: Even) -> None:
        pytest.fail(str(even))

    await run_tools(runs_client, look, other)

    assert answer(runs_server)["error"].startswith(problem)


RESULTS: dict[str, tuple[Any, str]] = {
    "text": ("plain", "plain"),
    "number-as-text": ("42", "42"),
    "enum-text": (Colour.RED, "red"),
    "none": (None, "null"),
    "number": (42, "42"),
    "decimal": (Decimal("1.5"), '"1.5"'),
    "list": ([1, "x"], '[1,"x"]'),
    "struct": (Even(2), '{"number":2}'),
    "pydantic": (Model(size=3), '{"size":3}'),
    "iterable": (iter((1, 2)), "[1,2]"),
}


@pytest.mark.parametrize(("result", "output"), RESULTS.values(), ids=RESULTS)
async def test_result_is_sent_as_text_or_json(
    runs_server: RunsServer, runs_client: AsyncClient, result: Any, output: str
) -> None:
    """A text as it is, anything else as JSON."""
    runs_server.call_tool("look")

    await run_tools(runs_client, tool(lambda: result, name="look"))

    (sent,) = answered(runs_server)
    assert sent["output"] == output


async def test_sync_function_that_hands_out_a_coroutine_is_awaited(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """As a decorator that is not async makes of one that is."""
    runs_server.call_tool("look")

    async def later() -> str:
        await anyio.lowlevel.checkpoint()
        return "later"

    await run_tools(runs_client, tool(lambda: later(), name="look"))

    assert answer(runs_server) == "later"


async def test_result_of_ten_megabytes_is_not_sent(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """The server would refuse all outputs for it; the model is told to ask for less."""
    runs_server.call_tools(Call("huge"), Call("work"))

    def huge() -> str:
        return "x" * 10_000_000

    await run_tools(runs_client, huge, tool(lambda: "worked", name="work"))

    problem = "the result has 10000000 bytes, too many to be sent; ask for less"
    assert outputs(runs_server) == [{"error": problem}, "worked"]


async def test_outputs_that_are_too_large_together_lose_the_largest(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """The limit is on all of them; as many as fit are sent."""
    runs_server.call_tools(*[Call("fill", {"size": size}) for size in (300, 500, 400)])

    def fill(size: int) -> str:
        return "é" * (size // 2)

    await run_tools(runs_client, fill, max_output_bytes=800)

    first, second, third = outputs(runs_server)
    assert (len(first), len(third)) == (150, 200)
    assert second["error"].startswith("the result has 500 bytes")


async def test_debug_mode_of_the_event_loop_logs_no_words_of_a_tool(
    runs_server: RunsServer, runs_client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Asyncio writes the arguments of slow callbacks down; ours have none."""
    runs_server.call_tool("look")

    def look() -> None:
        raise LookupError(CANARY_KEY[-12:])

    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    await run_tools(runs_client, look)

    lines = [one.getMessage() for one in caplog.records if one.name == "asyncio"]
    assert any("Executing" in line for line in lines)
    assert [line for line in lines if CANARY_KEY[-12:] in line] == []


async def test_log_tells_of_failures_and_not_of_arguments(
    runs_server: RunsServer, runs_client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The traceback is there; what the model wrote is said at DEBUG only."""
    caplog.set_level(logging.DEBUG, "openai_runs.tools")
    runs_server.call_tool("look", {"number": 4711})

    def look(number: int) -> None:
        raise LookupError

    await run_tools(runs_client, look)

    records = [one for one in caplog.records if one.name == "openai_runs.tools"]
    (warning,) = [one for one in records if one.levelno == logging.WARNING]
    assert warning.exc_info is not None
    assert warning.exc_info[0] is LookupError
    assert "tool look" in warning.message
    assert ["4711" in one.getMessage() for one in records] == [True, False]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_end_of_the_program_is_no_failure_of_a_tool(
    runs_server: RunsServer, runs_client: AsyncClient, stop: type[BaseException], kind: str
) -> None:
    """It passes through, alone and not in a group, and nothing is answered."""
    runs_server.call_tools(Call("end"), Call("hang"))

    async def end_async() -> None:
        raise stop

    def end() -> None:
        raise stop

    async def hang() -> None:
        await anyio.sleep_forever()

    function: Any = end if kind == "sync" else tool(end_async, name="end")
    with pytest.raises(stop):
        await run_tools(runs_client, function, hang)

    assert answered(runs_server) == []
