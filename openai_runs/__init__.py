"""An async SDK for runs: start an assistant, wait for it, answer its tool calls.

Names are loaded when first used, so that `import openai_runs` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from openai_runs._client.await_run import await_run
    from openai_runs._client.client import AsyncClient
    from openai_runs._client.core.rate_limiter import LimitState
    from openai_runs._client.core.state import Outage
    from openai_runs._client.flows.results import RunResult
    from openai_runs._client.flows.run_map import RunMap
    from openai_runs._client.flows.run_progress import Progress
    from openai_runs._client.polling.as_completed import CompletedRuns
    from openai_runs._client.streams.run_stream import RunStream
    from openai_runs._client.tools.signature import ToolContext
    from openai_runs._client.tools.tool import LocalTool, LocalToolCall, tool
    from openai_runs.config import PollPolicy, RateLimits, RetryPolicy
    from openai_runs.errors import (
        ActiveRunError,
        APIConnectionError,
        APIError,
        APIResponseValidationError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        ConfigError,
        ConflictError,
        InternalServerError,
        NotFoundError,
        OpenAIRunsError,
        PermissionDeniedError,
        RateLimitError,
        RunCancelled,
        RunError,
        RunExpired,
        RunFailed,
        RunIncomplete,
        RunRequiresAction,
        RunWaitTimeout,
        StreamError,
        StreamInterrupted,
        StreamTooLarge,
        ToolError,
        UnprocessableEntityError,
    )
    from openai_runs.types.assistants import Assistant
    from openai_runs.types.base import Deleted, Page, SortOrder
    from openai_runs.types.messages import Message
    from openai_runs.types.runs import RequiredActionType, Run, RunErrorCode, RunStatus
    from openai_runs.types.steps import RunStep, RunStepStatus, RunStepType
    from openai_runs.types.threads import Thread

_MODULES: Final = {
    "AsyncClient": "openai_runs._client.client",
    "await_run": "openai_runs._client.await_run",
    "CompletedRuns": "openai_runs._client.polling.as_completed",
    "LocalTool": "openai_runs._client.tools.tool",
    "LocalToolCall": "openai_runs._client.tools.tool",
    "tool": "openai_runs._client.tools.tool",
    "RunMap": "openai_runs._client.flows.run_map",
    "ToolContext": "openai_runs._client.tools.signature",
    "LimitState": "openai_runs._client.core.rate_limiter",
    "Outage": "openai_runs._client.core.state",
    "Progress": "openai_runs._client.flows.run_progress",
    "RunResult": "openai_runs._client.flows.results",
    "RunStream": "openai_runs._client.streams.run_stream",
    "PollPolicy": "openai_runs.config",
    "RateLimits": "openai_runs.config",
    "RetryPolicy": "openai_runs.config",
    "Assistant": "openai_runs.types.assistants",
    "Deleted": "openai_runs.types.base",
    "Page": "openai_runs.types.base",
    "SortOrder": "openai_runs.types.base",
    "Message": "openai_runs.types.messages",
    "RequiredActionType": "openai_runs.types.runs",
    "Run": "openai_runs.types.runs",
    "RunErrorCode": "openai_runs.types.runs",
    "RunStatus": "openai_runs.types.runs",
    "RunStep": "openai_runs.types.steps",
    "RunStepStatus": "openai_runs.types.steps",
    "RunStepType": "openai_runs.types.steps",
    "Thread": "openai_runs.types.threads",
}

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "ActiveRunError",
    "Assistant",
    "AsyncClient",
    "AuthenticationError",
    "BadRequestError",
    "CompletedRuns",
    "ConfigError",
    "ConflictError",
    "Deleted",
    "InternalServerError",
    "LimitState",
    "LocalTool",
    "LocalToolCall",
    "Message",
    "NotFoundError",
    "OpenAIRunsError",
    "Outage",
    "Page",
    "PermissionDeniedError",
    "PollPolicy",
    "Progress",
    "RateLimitError",
    "RateLimits",
    "RequiredActionType",
    "RetryPolicy",
    "Run",
    "RunCancelled",
    "RunError",
    "RunErrorCode",
    "RunExpired",
    "RunFailed",
    "RunIncomplete",
    "RunMap",
    "RunRequiresAction",
    "RunResult",
    "RunStatus",
    "RunStep",
    "RunStepStatus",
    "RunStepType",
    "RunStream",
    "RunWaitTimeout",
    "SortOrder",
    "StreamError",
    "StreamInterrupted",
    "StreamTooLarge",
    "Thread",
    "ToolContext",
    "ToolError",
    "UnprocessableEntityError",
    "await_run",
    "tool",
]


def __getattr__(name: str) -> Any:
    """Load `name` from its module."""
    if name == "__version__":
        return import_module("openai_runs.config").VERSION
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(_MODULES.get(name, "openai_runs.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__, "__version__"]
