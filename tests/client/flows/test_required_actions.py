"""A run that waits for something else than tool outputs: approved, or an error that names it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from openai_runs import AsyncClient, PollPolicy, RunRequiresAction, ToolError
from openai_runs.types import RequiredApproval, Run, UnknownToolCall
from tests.support import Action, Answer, HostileServer, ManualClock, Received, run_json

PATH = "/submit_tool_outputs"
MCP = {
    "id": "call_1",
    "type": "mcp",
    "name": "search",
    "arguments": '{"query": "duck"}',
    "server_label": "docs",
}
THREAD: dict[str, Any] = {"thread_id": "thread_1"}


def asking(*calls: dict[str, Any]) -> dict[str, Any]:
    """Return a run that waits for approval of these calls."""
    action = {"type": "submit_tool_approval", "submit_tool_approval": {"tool_calls": calls}}
    return run_json("requires_action", required_action=action)


class OneRun:
    """A server with one run that shows these states, the last for ever."""

    def __init__(self, *states: dict[str, Any]) -> None:
        """Take the states that GETs show."""
        self.states = list(states)

    def __call__(self, request: Received) -> Action:
        """Answer one request."""
        if request.method == "POST":
            return Answer(json=run_json("queued"))
        if request.path.endswith(("/messages", "/steps")):
            return Answer(json={"object": "list", "data": [], "has_more": False})
        return Answer(json=self.states.pop(0) if len(self.states) > 1 else self.states[0])


def note(text: str) -> str:
    """Return the text."""
    return text


Finish = Callable[..., Awaitable[Run]]


async def run_tools(client: AsyncClient, tools: list[Any], **options: Any) -> Run:
    """Finish a run by `runs.run_tools`."""
    result = await client.runs.run_tools("thread_1", assistant_id="a", tools=tools, **options)
    return result.run


async def resume(client: AsyncClient, tools: list[Any], **options: Any) -> Run:
    """Finish it by `runs.resume`."""
    return (await client.runs.resume("run_1", **THREAD, tools=tools, **options)).run


async def stream(client: AsyncClient, tools: list[Any], **options: Any) -> Run:
    """Finish it by `runs.stream`."""
    given: dict[str, Any] = {"tools": tools, **options} if tools else options
    async with client.runs.stream("thread_1", assistant_id="a", **given) as events:
        return (await events.result()).run


@pytest.fixture(params=[run_tools, resume, stream], ids=lambda way: way.__name__)
def finish(request: pytest.FixtureRequest) -> Finish:
    """Return each way in which a run is brought to its end."""
    way: Finish = request.param
    return way


@pytest.fixture(params=["with functions", "without"])
def tools(request: pytest.FixtureRequest) -> list[Any]:
    """Return the tools of the run."""
    return [note] if request.param == "with functions" else []


def client_of(server: HostileServer) -> AsyncClient:
    """Return a client whose pauses take no time."""
    return AsyncClient(server.url, "k", seams=ManualClock().runtime(), poll=PollPolicy(long_poll=0))


ANSWERS: dict[str, tuple[Any, bool]] = {
    "allowed": (True, True),
    "refused": (False, False),
    "refused with a reason": ("not now", False),
}


@pytest.mark.parametrize(("answer", "approved"), ANSWERS.values(), ids=ANSWERS)
async def test_approval_is_asked_for_and_submitted(
    finish: Finish, tools: list[Any], answer: Any, approved: bool
) -> None:
    """`approve` gets the call as the model wrote it; its answer is sent, and the run goes on."""
    asked: list[Any] = []

    async def approve(call: Any) -> Any:
        asked.append(call)
        return answer

    server = HostileServer(OneRun(asking(MCP), asking(MCP), run_json("completed")))
    async with server, client_of(server) as client:
        run = await finish(client, tools, approve=approve)

    (call,) = asked
    assert (call.id, call.type, call.name, call.server_label) == ("call_1", "mcp", "search", "docs")
    assert call.arguments == {"query": "duck"}
    assert call.run.id == "run_1"
    (request,) = server.seen("POST", PATH)
    approvals = [{"tool_call_id": "call_1", "approve": approved}]
    assert {name: value for name, value in request.json.items() if name != "stream"} == {
        "tool_approvals": approvals
    }
    assert run.status == "completed"


async def test_approval_without_anybody_to_ask_is_an_error(
    finish: Finish, tools: list[Any]
) -> None:
    """It names the kind, the call and the way out; nothing is submitted."""
    server = HostileServer(OneRun(asking(MCP)))
    async with server, client_of(server) as client:
        with pytest.raises(
            ToolError, match=r"'submit_tool_approval'.*'search'.*approve="
        ) as caught:
            await finish(client, tools)

    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")
    assert server.seen("POST", PATH) == []


UNKNOWN: dict[str, dict[str, Any]] = {
    "another object": {"type": "submit_payment", "submit_payment": {"amount": 1}},
    "nothing but a name": {"type": "confirm_identity"},
    "a name without end": {"type": "x" * 10_000},
}


@pytest.mark.parametrize("action", UNKNOWN.values(), ids=UNKNOWN)
async def test_action_of_an_unknown_kind_is_an_error_that_names_it(
    finish: Finish, tools: list[Any], action: dict[str, Any]
) -> None:
    """Also where there is an `approve`, which cannot answer it."""
    server = HostileServer(OneRun(run_json("requires_action", required_action=action)))
    async with server, client_of(server) as client:
        with pytest.raises(ToolError, match=action["type"][:100]) as caught:
            await finish(client, tools, approve=lambda _: True)

    assert caught.value.run_id == "run_1"
    assert len(str(caught.value)) < 1000


ODD_CALLS: dict[str, dict[str, Any]] = {
    "arguments as an object": {**MCP, "arguments": {"query": "duck"}},
    "a name that is no text": {**MCP, "name": {"first": "search"}},
    "nothing but an id": {"id": "call_1"},
    "arguments that are no JSON": {**MCP, "arguments": "{bro"},
}


@pytest.mark.parametrize("call", ODD_CALLS.values(), ids=ODD_CALLS)
async def test_call_in_another_shape_is_offered_too(finish: Finish, call: dict[str, Any]) -> None:
    """What can be read of it is there, and it is answered under its id."""
    server = HostileServer(OneRun(asking(call), asking(call), run_json("completed")))
    async with server, client_of(server) as client:
        await finish(client, [], approve=lambda call: call.id == "call_1")

    (request,) = server.seen("POST", PATH)
    assert request.json["tool_approvals"] == [{"tool_call_id": "call_1", "approve": True}]


async def test_what_approve_raises_is_raised(finish: Finish) -> None:
    """The run is left waiting."""

    def approve(_: Any) -> bool:
        raise LookupError

    server = HostileServer(OneRun(asking(MCP)))
    async with server, client_of(server) as client:
        with pytest.raises(LookupError):
            await finish(client, [], approve=approve)

    assert server.seen("POST", PATH) == []


async def test_item_of_a_map_that_waits_for_approval_is_an_error_of_its_own() -> None:
    """No result in silence."""
    server = HostileServer(OneRun(asking(MCP)))
    async with server, client_of(server) as client:
        items = [("one", {"thread_id": "thread_1", "assistant_id": "a"})]
        async with client.runs.map(items, concurrency=1) as outcomes:
            ((_, outcome),) = [one async for one in outcomes]

    assert isinstance(outcome, ToolError)


async def test_approval_is_answered_by_hand() -> None:
    """`submit_tool_outputs` takes such an answer, alone or beside outputs."""
    approval = {"tool_call_id": "call_1", "approve": True}
    output = {"tool_call_id": "call_2", "output": "x"}
    server = HostileServer(OneRun(asking(MCP)))
    async with server, client_of(server) as client:
        await client.runs.submit_tool_outputs("run_1", **THREAD, tool_outputs=[approval])
        await client.runs.submit_tool_outputs("run_1", **THREAD, tool_outputs=[output, approval])

    alone, both = server.seen("POST", PATH)
    assert alone.json == {"tool_approvals": [approval]}
    assert both.json == {"tool_approvals": [approval], "tool_outputs": [output]}


ADVICE = {
    "approval": ("submit_tool_approval", "approve="),
    "unknown": ("submit_payment", "'submit_payment'"),
    "outputs": ("submit_tool_outputs", "submit_tool_outputs()"),
}


@pytest.mark.parametrize(("kind", "advice"), ADVICE.values(), ids=ADVICE)
async def test_raise_for_status_advises_what_works(kind: str, advice: str) -> None:
    """It never says to submit outputs where none are waited for."""
    state = run_json("requires_action", required_action={"type": kind})
    server = HostileServer(OneRun(state))
    async with server, client_of(server) as client:
        run = await client.runs.retrieve("run_1", **THREAD)

    with pytest.raises(RunRequiresAction) as caught:
        run.raise_for_status()
    assert advice in str(caught.value)
    assert ("submit_tool_outputs" in str(caught.value)) is (kind == "submit_tool_outputs")


async def test_calls_that_wait_for_approval_are_on_the_run() -> None:
    """One in a shape that nobody knows costs only itself."""
    server = HostileServer(OneRun(asking(MCP, {"id": 7})))
    async with server, client_of(server) as client:
        run = await client.runs.retrieve("run_1", **THREAD)

    assert run.required_action is not None
    assert run.required_action.submit_tool_approval is not None
    first, second = run.required_action.submit_tool_approval.tool_calls
    assert isinstance(first, RequiredApproval)
    assert (first.name, first.server_label) == ("search", "docs")
    assert isinstance(second, UnknownToolCall)
