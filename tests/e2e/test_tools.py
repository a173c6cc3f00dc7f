"""Tools answered by functions, against the real server: from the question to the result."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any, Literal

import anyio
import anyio.lowlevel
import msgspec
import pytest

from openai_runs import (
    AsyncClient,
    LocalToolCall,
    RunExpired,
    RunFailed,
    ToolContext,
    ToolError,
    tool,
)
from openai_runs.server import Call
from openai_runs.testing import RunsServer
from tests.e2e.tooling import answer, answered, calls_of, outputs, run_tools, waiting_run

TENANT: ContextVar[str] = ContextVar("TENANT", default="nobody")


class Place(msgspec.Struct):
    """Where it is."""

    city: str
    country: str = "NO"


class Report(msgspec.Struct):
    """What the weather is."""

    city: str
    degrees: int


@tool
async def weather(place: Place, unit: Literal["c", "f"] = "c") -> Report:
    """Return the weather."""
    return Report(place.city, 12 if unit == "c" else 54)


def greet(name: Annotated[str, msgspec.Meta(min_length=1)]) -> str:
    """Return a greeting."""
    return f"Hello {name}"


async def test_run_is_answered_from_its_create_to_its_result(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """Two rounds of sync and async functions; the result has the text and every output."""
    runs_server.call_tools(
        Call("weather", {"place": {"city": "Oslo"}}), Call("greet", {"name": "Kari"})
    )
    runs_server.call_tool("weather", {"place": {"city": "Rome"}, "unit": "f"})
    runs_server.reply("Done.")

    result = await run_tools(runs_client, weather, greet)

    assert (result.run.status, result.text, result.recovered) == ("completed", "Done.", False)
    assert outputs(runs_server) == [
        {"city": "Oslo", "degrees": 12},
        "Hello Kari",
        {"city": "Rome", "degrees": 54},
    ]
    assert [output for _, output in calls_of(result)] == [
        one["output"] for one in answered(runs_server)
    ]
    assert len(runs_server.seen("POST", "submit_tool_outputs")) == 2


async def test_functions_are_sent_as_definitions(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """By every call that takes tools; definitions go through as they are."""
    given = {"type": "function", "function": {"name": "given", "parameters": {"type": "object"}}}
    tools: list[Any] = [weather, greet, given]
    sent = [weather.definition, tool(greet).definition, given]

    assistant = await runs_client.assistants.create(model="m", tools=tools)
    await runs_client.assistants.update(assistant.id, tools=tools)
    run = await runs_client.threads.create_and_run_poll(assistant_id=assistant.id, tools=tools)
    await runs_client.runs.create_and_poll(run.thread_id, assistant_id=assistant.id, tools=tools)
    await runs_client.runs.run_tools(run.thread_id, assistant_id=assistant.id, tools=tools)

    bodies = [request.json for request in runs_server.requests if request.method == "POST"]
    assert [body["tools"] for body in bodies] == [sent] * 5


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_calls_run_at_once_and_never_more_than_the_limit(
    runs_server: RunsServer, runs_client: AsyncClient, kind: str
) -> None:
    """Of 20 calls five are under way at once, and never a sixth."""
    runs_server.call_tools(*[Call("work", {"number": number}) for number in range(20)])
    lock, running, most = threading.Lock(), 0, 0
    five = threading.Barrier(5, timeout=20)
    together = anyio.Event()

    def begin() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)

    def end() -> None:
        nonlocal running
        with lock:
            running -= 1

    def work_in_thread(number: int) -> int:
        begin()
        five.wait()  # passes only if five are here at once
        end()
        return number

    async def work(number: int) -> int:
        begin()
        if running == 5:
            together.set()
        await together.wait()
        await anyio.sleep(0.001)
        end()
        return number

    function: Any = tool(work_in_thread, name="work") if kind == "sync" else work
    result = await run_tools(runs_client, function, max_parallel=5)

    assert most == 5
    assert outputs(runs_server) == list(range(20))
    assert len({call_id for call_id, _ in calls_of(result)}) == 20


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_thousand_calls_are_answered_in_one_request(
    runs_server: RunsServer, runs_client: AsyncClient, kind: str
) -> None:
    """Each once, in the order they were asked in."""
    runs_server.call_tools(*[Call("double", {"number": number}) for number in range(1000)])

    def double(number: int) -> int:
        return 2 * number

    async def double_in_loop(number: int) -> int:
        await anyio.lowlevel.checkpoint()
        return 2 * number

    function: Any = double if kind == "sync" else tool(double_in_loop, name="double")
    result = await run_tools(runs_client, function)

    assert outputs(runs_server) == [2 * number for number in range(1000)]
    assert len(runs_server.seen("POST", "submit_tool_outputs")) == 1
    assert [call_id for call_id, _ in calls_of(result)] == [
        one["tool_call_id"] for one in answered(runs_server)
    ]


async def test_tool_is_told_of_its_run_and_runs_in_the_callers_context(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """`ToolContext` and context variables reach sync tools in their threads and async ones."""
    seen: list[tuple[str, str, str]] = []

    def look(context: ToolContext, number: int) -> None:
        seen.append((TENANT.get(), context.run_id, context.call_id))

    async def look_async(number: int, about: ToolContext) -> None:
        seen.append((TENANT.get(), about.run.id, about.call_id))
        assert about.thread_id == about.run.thread_id

    runs_server.call_tool("look", {"number": 1}, id="call_a")
    runs_server.call_tool("look_async", {"number": 1}, id="call_b")
    TENANT.set("acme")

    result = await run_tools(runs_client, look, look_async)

    run_id = result.run.id
    assert seen == [("acme", run_id, "call_a"), ("acme", run_id, "call_b")]
    assert outputs(runs_server) == [None, None]


Verdict = bool | str


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("verdict", "output"),
    [
        (True, "Hello Kari"),
        (False, {"error": "the call was not approved"}),
        ("", {"error": "the call was not approved"}),
        ("ask your mother", {"error": "ask your mother"}),
    ],
)
async def test_call_is_made_only_when_it_is_approved(
    runs_server: RunsServer, runs_client: AsyncClient, kind: str, verdict: Verdict, output: Any
) -> None:
    """The hook sees the call as it will be made; a text says why it is not."""
    asked: list[LocalToolCall] = []
    runs_server.call_tool("greet", {"name": "Kari"}, id="call_a")

    def approve(call: LocalToolCall) -> Verdict:
        asked.append(call)
        return verdict

    async def approve_later(call: LocalToolCall) -> Verdict:
        await anyio.lowlevel.checkpoint()
        return approve(call)

    hook: Callable[[LocalToolCall], Any] = approve if kind == "sync" else approve_later
    result = await run_tools(runs_client, greet, approve=hook)

    (call,) = asked
    assert (call.id, call.name, call.arguments) == ("call_a", "greet", {"name": "Kari"})
    assert (call.raw, call.run.id) == ('{"name":"Kari"}', result.run.id)
    assert answer(runs_server) == output


async def test_calls_that_cannot_be_made_are_not_put_to_approval(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """There is nothing to approve."""
    runs_server.call_tools(Call("greet", {"name": ""}), Call("nobody", {}))

    await run_tools(runs_client, greet, approve=lambda call: pytest.fail(call.name))

    assert [set(output) for output in outputs(runs_server)] == [{"error"}, {"error"}]


async def test_caller_is_told_of_each_call(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """Once when it begins and once with its output; one that cannot be made only once."""
    told: list[tuple[str, str | None]] = []
    runs_server.call_tools(Call("greet", {"name": "Kari"}), Call("greet", "{"))

    await run_tools(runs_client, greet, on_tool_call=lambda call, out: told.append((call.raw, out)))

    broken = '{"error":"the arguments do not fit: Input data was truncated"}'
    good = '{"name":"Kari"}'
    assert [one for one in told if one[0] == good] == [(good, None), (good, "Hello Kari")]
    assert [one for one in told if one[0] != good] == [("{", broken)]


@pytest.mark.parametrize("hook", ["approve", "on_tool_call"])
async def test_what_a_hook_raises_ends_the_call_and_leaves_the_run_waiting(
    runs_server: RunsServer, runs_client: AsyncClient, hook: str
) -> None:
    """It is the caller's own error: raised as it is, not in a group; `resume` goes on."""
    runs_server.call_tools(Call("greet", {"name": "Kari"}), Call("greet", {"name": "Ola"}))

    async def broken(*arguments: Any) -> bool:
        raise LookupError(arguments)

    with pytest.raises(LookupError, match="LocalToolCall"):
        await run_tools(runs_client, greet, **{hook: broken})

    assert answered(runs_server) == []
    (create,) = runs_server.seen("POST", "runs")
    thread_id = create.path.split("/")[2]
    (run,) = await runs_client.runs.list(thread_id)
    result = await runs_client.runs.resume(run.id, thread_id=thread_id, tools=[greet])
    assert result.run.status == "completed"
    assert outputs(runs_server) == ["Hello Kari", "Hello Ola"]


@pytest.mark.parametrize("state", ["waiting", "finished", "at work"])
async def test_run_is_taken_over_where_it_is(
    runs_server: RunsServer, runs_client: AsyncClient, state: str
) -> None:
    """Waiting, at work or finished: no tool list is sent, and its result comes."""
    if state != "finished":
        runs_server.call_tool("greet", {"name": "Kari"}, delay=0.2 if state == "at work" else 0)
    runs_server.reply("Done.")
    assistant = await runs_client.assistants.create(model="m")
    run = await runs_client.threads.create_and_run(assistant_id=assistant.id)
    if state != "at work":
        run = await runs_client.runs.wait(run, timeout=30)

    result = await runs_client.runs.resume(
        run.id, thread_id=run.thread_id, tools=[greet], timeout=30
    )

    assert (result.run.id, result.run.status, result.text) == (run.id, "completed", "Done.")
    assert outputs(runs_server) == ([] if state == "finished" else ["Hello Kari"])


async def test_run_that_ends_badly_is_a_result_all_the_same(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """Failed after its tools: the caller asks the run."""
    runs_server.call_tool("greet", {"name": "Kari"})
    runs_server.fail(message="The model is tired.")

    result = await run_tools(runs_client, greet)

    assert result.run.status == "failed"
    with pytest.raises(RunFailed, match="The model is tired"):
        result.run.raise_for_status()


async def test_rounds_are_bounded(runs_server: RunsServer, runs_client: AsyncClient) -> None:
    """A model that never stops asking: the run is left waiting, or cancelled where asked."""
    for number in range(8):
        runs_server.call_tool("greet", {"name": str(number)})

    with pytest.raises(ToolError, match=r"asked for tools more than 3 times") as left:
        await run_tools(runs_client, greet, max_rounds=3)
    with pytest.raises(ToolError) as cancelled:
        await run_tools(runs_client, greet, max_rounds=3, on_timeout="cancel")

    assert outputs(runs_server) == [f"Hello {number}" for number in (0, 1, 2, 4, 5, 6)]
    for caught, status in ((left, "requires_action"), (cancelled, "cancelled")):
        assert caught.value.run_id is not None
        run = await runs_client.runs.wait(caught.value.run_id, thread_id=caught.value.thread_id)
        assert run.status == status


async def test_run_whose_time_is_up_is_answered_before_it_expires() -> None:
    """A tool without a time-out of its own is given up in time for its output to arrive."""
    async with RunsServer(run_lifetime=6) as server:
        server.call_tools(Call("hang"), Call("greet", {"name": "Kari"}))
        server.reply("Too late for one.")

        @tool(timeout=None)
        async def hang() -> None:
            await anyio.sleep_forever()

        async with AsyncClient(server.url) as client:
            result = await run_tools(client, hang, greet)

        assert (result.run.status, result.text) == ("completed", "Too late for one.")
        late = {"error": "the run's time was up before the tool had finished"}
        assert outputs(server) == [late, "Hello Kari"]


async def test_run_that_expires_while_a_tool_holds_on_is_a_result() -> None:
    """The tool does not let itself be cancelled: the submit is refused, and that is all."""
    async with RunsServer(run_lifetime=3) as server, AsyncClient(server.url) as client:
        server.call_tool("stubborn")

        async def stubborn(context: ToolContext) -> None:
            with anyio.CancelScope(shield=True):
                run = context.run
                while run.is_active:
                    await anyio.sleep(0.05)
                    run = await client.runs.retrieve(run.id, thread_id=run.thread_id)

        result = await run_tools(client, stubborn)

        assert result.run.status == "expired"
        with pytest.raises(RunExpired):
            result.run.raise_for_status()
        assert len(server.seen("POST", "submit_tool_outputs")) == 1


async def test_two_that_resume_the_same_run_answer_it_once(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """Both call the tool, one output is taken, and both have the same result."""
    runs_server.call_tool("meet", id="call_a")
    runs_server.reply("Done.")
    run = await waiting_run(runs_client)
    both = asyncio.Barrier(2)

    async def meet() -> str:
        await both.wait()
        return "met"

    async def resume() -> Any:
        return await runs_client.runs.resume(run.id, thread_id=run.thread_id, tools=[meet])

    one, other = await asyncio.gather(resume(), resume())

    assert one.text == other.text == "Done."
    assert calls_of(one) == [("call_a", "met")]
    assert one.run.status == other.run.status == "completed"
