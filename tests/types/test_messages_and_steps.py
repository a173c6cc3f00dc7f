"""Messages and steps: the shortcuts to what is mostly wanted."""

from typing import Any

import pytest

from openai_runs._protocol.lenient import decoder_for
from openai_runs.types import (
    FunctionToolCall,
    Message,
    MessageRole,
    RunStep,
    RunStepStatus,
    RunStepType,
)
from tests.samples import raw

FOREIGN = ["openapi", "bing_grounding", "azure_ai_search", "mcp"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("getMessage/completed.json", "See [1] and here"),
        ("getMessage/in_progress.json", ""),
        ("getMessage/foundry_foreign_parts.json", "See"),
    ],
)
def test_text_is_all_text_parts(name: str, text: str) -> None:
    """Images, refusals and unknown parts are not in the way."""
    assert decoder_for(Message).decode(raw(name)).text == text


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("message_creation", []),
        ("tool_calls", ["code_interpreter", "file_search", "function", "file_search"]),
        ("v1_retrieval", ["retrieval"]),
        (
            "foundry_foreign_calls",
            ["openapi", "bing_grounding", "azure_ai_search", "mcp", "function"],
        ),
        ("foundry_foreign_details", []),
    ],
)
def test_tool_calls_of_a_step(name: str, kinds: list[str]) -> None:
    """All calls in order, each with its type; none where the step did something else."""
    step = decoder_for(RunStep).decode(raw(f"getRunStep/{name}.json"))

    assert [call.type for call in step.tool_calls] == kinds


def test_function_call_of_a_step_has_its_output() -> None:
    """The last call of Foundry's step is an ordinary function call."""
    step = decoder_for(RunStep).decode(raw("getRunStep/foundry_foreign_calls.json"))

    call = step.tool_calls[-1]
    assert isinstance(call, FunctionToolCall)
    assert (call.function.name, call.function.output) == ("get_weather", "4")


@pytest.mark.parametrize("constants", [MessageRole, RunStepStatus, RunStepType])
def test_constants_are_the_wire_names(constants: Any) -> None:
    """A constant's value is its name in lower case."""
    named = {name: value for name, value in vars(constants).items() if name.isupper()}

    assert named == {name: name.lower() for name in named}
    assert named
