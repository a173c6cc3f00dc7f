"""Tools that only OpenAI hosts: nothing here can carry them out. Pure.

A run that would use one is refused, or the model is not told of it. The run shows it either way.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, cast, get_args

import msgspec

from openai_runs.server.api_errors import Refusal
from openai_runs.types.runs import Run
from openai_runs.types.tools import FunctionTool, NamedToolChoice

__all__ = ["HostedTools", "check_hosted", "check_policy", "hosted_tools", "without_hosted"]

HostedTools: TypeAlias = Literal["error", "ignore"]
"""What becomes of a run that holds one: it is refused, or goes on without."""


def check_policy(value: str) -> HostedTools:
    """Return `value` if it is a policy, else raise `ValueError`."""
    if value not in get_args(HostedTools):
        message = f"hosted_tools must be 'error' or 'ignore', got {value!r}"
        raise ValueError(message)
    return cast("HostedTools", value)


def hosted_tools(run: Run) -> list[str]:
    """Return the types of the run's hosted tools, each once, in their order."""
    return list(dict.fromkeys(tool.type for tool in run.tools if _is_hosted(tool)))


def _is_hosted(tool: Any) -> bool:
    return not isinstance(tool, FunctionTool)


def check_hosted(run: Run, policy: HostedTools) -> None:
    """Refuse what would be left undone in silence; assistants may well hold such tools.

    Raises:
        Refusal: The run may call a hosted tool, and `policy` is "error".
    """
    if policy == "ignore" or run.tool_choice == "none":
        return
    for number, tool in enumerate(run.tools):
        if _is_hosted(tool):
            message = (
                f"The hosted tool '{tool.type}' is not offered by this server. Start the run with "
                '`tools` that are functions or with `tool_choice: "none"`, or have hosted tools '
                "ignored: start the server with `--hosted-tools ignore` (in Python: "
                '`hosted_tools="ignore"`).'
            )
            raise Refusal(message, param=f"tools[{number}].type")


def without_hosted(run: Run) -> Run:
    """Return the run as its model is told of it: with functions, and no choice of anything else."""
    if not any(_is_hosted(tool) for tool in run.tools):
        return run
    functions = [tool for tool in run.tools if not _is_hosted(tool)]
    choice = run.tool_choice
    if (isinstance(choice, NamedToolChoice) and choice.kind != "function") or (
        choice == "required" and not functions
    ):
        choice = "auto"
    return msgspec.structs.replace(run, tools=functions, tool_choice=choice)
