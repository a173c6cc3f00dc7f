"""Hosted tools: a run that would use one is refused, or its model is not told of them."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from openai_runs.server import LocalServer, ModelRequest, ScriptedBackend
from tests.server.conftest import Serve
from tests.server.support import FUNCTION, Caller, run_path

SEARCH: dict[str, Any] = {"type": "file_search", "file_search": {"max_num_results": 3}}
CODE = {"type": "code_interpreter"}
TOOLS: dict[str, list[Any]] = {
    "search": [{"type": "file_search"}],
    "code": [CODE],
    "both": [CODE, SEARCH],
    "with-function": [FUNCTION, SEARCH],
}


@pytest.mark.parametrize("tools", TOOLS.values(), ids=TOOLS)
@pytest.mark.parametrize("path", ["/threads/runs", "/threads/{thread}/runs"])
async def test_run_with_a_hosted_tool_is_refused_and_told_how_to_ignore_it(
    caller: Caller, tools: list[Any], path: str
) -> None:
    """An assistant may hold one; the refusal names the tool, its place, and the ways out."""
    assistant_id = await caller.assistant(tools=tools)
    where = path.format(thread=await caller.thread())

    reply = await caller.send("POST", where, json={"assistant_id": assistant_id})

    number = next(number for number, tool in enumerate(tools) if tool != FUNCTION)
    assert (reply.status, reply.json["error"]["param"]) == (400, f"tools[{number}].type")
    assert f"'{tools[number]['type']}' is not offered" in reply.message
    for way in ("`tools` that are functions", "tool_choice", "--hosted-tools ignore"):
        assert way in reply.message
    allowed = {"assistant_id": assistant_id, "tools": [FUNCTION]}
    assert (await caller.send("POST", where, json=allowed)).status == 200


async def test_hosted_tool_of_the_run_itself_is_refused(caller: Caller) -> None:
    """What the run says wins over its assistant, here too."""
    body = {"assistant_id": await caller.assistant(tools=[FUNCTION]), "tools": [CODE]}

    reply = await caller.send("POST", "/threads/runs", json=body)

    assert (reply.status, reply.json["error"]["param"]) == (400, "tools[0].type")


@pytest.mark.parametrize("policy", ["error", "ignore"])
@pytest.mark.parametrize("tools", TOOLS.values(), ids=TOOLS)
async def test_run_that_may_call_no_tool_is_never_refused(
    serve: Serve, tools: list[Any], policy: str
) -> None:
    """`tool_choice: "none"`: there is nothing that could be left undone."""
    caller = await serve(hosted_tools=policy)
    assistant_id = await caller.assistant(tools=tools)

    run = await caller.post("/threads/runs", {"assistant_id": assistant_id, "tool_choice": "none"})
    run = await caller.settled(run)

    assert (run["status"], run["tools"]) == ("completed", tools)


CHOICES: dict[str, tuple[list[Any], Any, tuple[list[str], str]]] = {
    "auto": ([CODE, FUNCTION], "auto", (["function"], "auto")),
    "required-and-a-function": ([CODE, FUNCTION], "required", (["function"], "required")),
    "required-alone": ([CODE, SEARCH], "required", ([], "auto")),
    "named": ([SEARCH, FUNCTION], {"type": "file_search"}, (["function"], "auto")),
    "named-alone": ([CODE], {"type": "code_interpreter"}, ([], "auto")),
}


@pytest.mark.parametrize(("tools", "choice", "told"), CHOICES.values(), ids=CHOICES)
async def test_ignored_tools_are_left_out_of_what_the_model_is_told(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    tools: list[Any],
    choice: Any,
    told: tuple[list[str], str],
) -> None:
    """The run shows them, the model is given the rest, and the log says so once."""
    asked: list[ModelRequest] = []

    def answer(request: ModelRequest) -> str:
        asked.append(request)
        return "Fine."

    caller = await serve(backend=ScriptedBackend(answer), hosted_tools="ignore")
    body = {"assistant_id": await caller.assistant(tools=tools), "tool_choice": choice}

    with caplog.at_level(logging.INFO, "openai_runs.server"):
        run = await caller.settled(await caller.post("/threads/runs", body))

    assert (run["status"], run["tools"], run["tool_choice"]) == ("completed", tools, choice)
    seen = asked[0].run
    assert ([tool.type for tool in seen.tools], seen.tool_choice) == told
    assert await caller.get(run_path(run)) == run
    lines = [line for line in caplog.messages if "not told of" in line]
    assert len(lines) == 1
    assert run["id"] in lines[0]
    assert all(tool["type"] in lines[0] for tool in tools if tool != FUNCTION)


async def test_choice_of_a_hosted_tool_that_the_run_does_not_have_is_refused(serve: Serve) -> None:
    """Ignoring is for tools that are there."""
    caller = await serve(hosted_tools="ignore")
    body = {"assistant_id": await caller.assistant(tools=[CODE]), "model": "m"}

    reply = await caller.send(
        "POST", "/threads/runs", json={**body, "tool_choice": {"type": "file_search"}}
    )

    assert (reply.status, reply.json["error"]["param"]) == (400, "tool_choice")


def test_other_policy_is_refused_by_name() -> None:
    """A typing error must not open or close anything in silence."""
    with pytest.raises(ValueError, match="hosted_tools must be 'error' or 'ignore', got 'Ignore'"):
        LocalServer(hosted_tools="Ignore")  # type: ignore[arg-type]  # what is tested
