"""The arguments of calls, declared once, and how they become bodies.

A test compares the keys here with the request Structs and with the OpenAPI file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypedDict, cast

import msgspec

from openai_runs.config import PollPolicy
from openai_runs.types.messages import CreateMessage, RequestAttachment, RequestContent
from openai_runs.types.runs import ReasoningEffort, Run, ToolOutput
from openai_runs.types.threads import CreateThread
from openai_runs.types.tools import (
    RequestResponseFormat,
    RequestTool,
    RequestToolChoice,
    RequestToolResources,
    RequestTruncationStrategy,
    Tool,
)

__all__ = [
    "OPTION_NAMES",
    "CallOptions",
    "CreateAssistantArguments",
    "CreateMessageArguments",
    "CreateRunArguments",
    "CreateThreadAndRunArguments",
    "CreateThreadArguments",
    "OnActiveRun",
    "Reaction",
    "StatusCallback",
    "UpdateAssistantArguments",
    "UpdateThreadArguments",
    "WaitOptions",
    "body_of",
    "check_options",
    "look_options_of",
    "options_of",
    "plain",
    "tool_outputs_of",
]

JSONObject = Mapping[str, Any]
"""A nested argument given as a plain mapping; foreign kinds go through untouched."""
OnActiveRun = Literal["raise", "wait", "cancel"]
Reaction = Literal["leave", "cancel"]
StatusCallback = Callable[[Run], Awaitable[object] | object]


class CallOptions(TypedDict, total=False):
    """What every call takes besides its own arguments."""

    timeout: float | None
    """Seconds for the whole call, retries included; None: no deadline but each attempt's."""
    request_timeout: float | None
    """Seconds for one attempt; None: the client's."""
    extra_headers: Mapping[str, str] | None
    extra_query: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None
    """Keys laid over the body, for what this version does not know."""
    idempotency_key: str | None
    """Sent as `Idempotency-Key` in place of a random one; POST only."""


class WaitOptions(TypedDict, total=False):
    """How a call waits, where it waits for a run."""

    poll: PollPolicy | None
    """A `PollPolicy`."""
    interval: float | None
    """Seconds between polls in place of the policy's; the server's hint wins."""
    poll_interval_ms: float | None
    """`interval` in milliseconds, under the official SDK's name."""
    on_status: StatusCallback | None
    on_timeout: Reaction
    on_cancel: Reaction


class RunArguments(TypedDict, total=False):
    """What both calls that start a run send."""

    model: str | None
    instructions: str | None
    """In place of the assistant's; at most 256,000 characters."""
    tools: Iterable[RequestTool | Tool | JSONObject] | None
    """In place of the assistant's; the API says at most 20."""
    metadata: Mapping[str, str] | None
    """At most 16 pairs, keys of 64 and values of 512 characters."""
    temperature: float | None
    """From 0 to 2."""
    top_p: float | None
    """From 0 to 1."""
    max_prompt_tokens: int | None
    """At least 256."""
    max_completion_tokens: int | None
    """At least 256."""
    truncation_strategy: RequestTruncationStrategy | JSONObject | None
    tool_choice: RequestToolChoice | JSONObject | None
    parallel_tool_calls: bool
    response_format: RequestResponseFormat | JSONObject | None


class CreateRunArguments(RunArguments, total=False):
    """What `runs.create` sends besides the assistant's id."""

    reasoning_effort: ReasoningEffort | None
    additional_instructions: str | None
    """Appended to the instructions."""
    additional_messages: Iterable[CreateMessage | JSONObject] | None
    """Put on the thread before the run starts."""


class CreateThreadAndRunArguments(RunArguments, total=False):
    """What `threads.create_and_run` sends besides the assistant's id."""

    thread: CreateThread | JSONObject
    tool_resources: RequestToolResources | JSONObject | None


class CreateThreadArguments(TypedDict, total=False):
    """What `threads.create` sends."""

    messages: Iterable[CreateMessage | JSONObject]
    tool_resources: RequestToolResources | JSONObject | None
    metadata: Mapping[str, str] | None


class UpdateThreadArguments(TypedDict, total=False):
    """What `threads.update` sends."""

    tool_resources: RequestToolResources | JSONObject | None
    metadata: Mapping[str, str] | None


class CreateMessageArguments(TypedDict, total=False):
    """What `messages.create` sends besides role and content."""

    attachments: Iterable[RequestAttachment | JSONObject] | None
    metadata: Mapping[str, str] | None


class CreateAssistantArguments(TypedDict, total=False):
    """What `assistants.create` sends besides the model."""

    reasoning_effort: ReasoningEffort | None
    name: str | None
    """At most 256 characters."""
    description: str | None
    """At most 512 characters."""
    instructions: str | None
    """At most 256,000 characters."""
    tools: Iterable[RequestTool | Tool | JSONObject]
    """At most 128."""
    tool_resources: RequestToolResources | JSONObject | None
    metadata: Mapping[str, str] | None
    temperature: float | None
    top_p: float | None
    response_format: RequestResponseFormat | JSONObject | None


class UpdateAssistantArguments(CreateAssistantArguments, total=False):
    """What `assistants.update` sends."""

    model: str


class CreateRunCall(CreateRunArguments, CallOptions, total=False):
    """Everything `runs.create` takes by keyword."""

    include: Iterable[str] | None
    """`step_details.tool_calls[*].file_search.results[*].content`."""
    on_active_run: OnActiveRun
    """What to do when the thread has an active run: raise, wait for it, or cancel it."""


class CreateRunAndPollCall(CreateRunCall, WaitOptions, total=False):
    """Everything `runs.create_and_poll` takes by keyword."""


class CreateThreadAndRunCall(CreateThreadAndRunArguments, CallOptions, total=False):
    """Everything `threads.create_and_run` takes by keyword."""


class CreateThreadAndRunAndPollCall(CreateThreadAndRunCall, WaitOptions, total=False):
    """Everything `threads.create_and_run_poll` takes by keyword."""


class WaitCall(CallOptions, WaitOptions, total=False):
    """Everything a call that only waits takes by keyword."""


class CreateThreadCall(CreateThreadArguments, CallOptions, total=False):
    """Everything `threads.create` takes by keyword."""


class CreateMessageCall(CreateMessageArguments, CallOptions, total=False):
    """Everything `messages.create` takes by keyword."""

    on_active_run: OnActiveRun
    """What to do when the thread has an active run: raise, wait for it, or cancel it."""


class CreateAssistantCall(CreateAssistantArguments, CallOptions, total=False):
    """Everything `assistants.create` takes by keyword."""


class UpdateAssistantCall(UpdateAssistantArguments, CallOptions, total=False):
    """Everything `assistants.update` takes by keyword."""


class UpdateThreadCall(UpdateThreadArguments, CallOptions, total=False):
    """Everything `threads.update` takes by keyword."""


class ListCall(CallOptions, total=False):
    """What every list takes by keyword."""

    limit: int | None
    """Items on a page, 1 to 100; the server's default is 20."""
    order: Literal["asc", "desc"] | str | None
    """By creation time; the server's default is `desc`."""
    after: str | None
    """The id the page begins after."""
    before: str | None
    """The id the page ends before; iterating walks backwards from it."""
    max_items: int | None
    """The most items an iteration yields, over all pages."""


MessageContent = str | Iterable[RequestContent | JSONObject]
ToolOutputs = Iterable[ToolOutput | JSONObject]

OPTION_NAMES: Final = frozenset(CallOptions.__annotations__)


WAIT_OPTION_NAMES: Final = frozenset(WaitOptions.__annotations__)
_LOOK_NAMES: Final = frozenset({"request_timeout", "extra_headers", "extra_query"})
LIST_NAMES: Final = ("limit", "order", "after", "before")


def wait_options_of(arguments: dict[str, Any]) -> WaitOptions:
    """Take the wait options out of `arguments` and return them."""
    found = WAIT_OPTION_NAMES & arguments.keys()
    return cast("WaitOptions", {name: arguments.pop(name) for name in found})


def options_of(arguments: dict[str, Any]) -> CallOptions:
    """Take the call options out of `arguments` and return them."""
    found = OPTION_NAMES & arguments.keys()
    return cast("CallOptions", {name: arguments.pop(name) for name in found})


def check_options(call: str, options: CallOptions) -> None:
    """Refuse what no call takes; a method with no body of its own has let it through.

    Raises:
        TypeError: An option is not one of `CallOptions`.
    """
    unknown = options.keys() - OPTION_NAMES
    if unknown:
        msg = f"{call} got an unexpected keyword argument {sorted(unknown)[0]!r}"
        raise TypeError(msg)


def look_options_of(options: CallOptions) -> CallOptions:
    """Return what a look at the result of a lost call has in common with the call."""
    found = _LOOK_NAMES & options.keys()
    return cast("CallOptions", {name: value for name, value in options.items() if name in found})


def body_of(call: str, allowed: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON body made of `arguments`; UNSET is left out, None is sent as null.

    Raises:
        TypeError: An argument is not one of `allowed`'s keys.
    """
    known = allowed.__annotations__
    body: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in known:
            msg = f"{call}() got an unexpected keyword argument {name!r}"
            raise TypeError(msg)
        if value is not msgspec.UNSET:
            body[name] = plain(value)
    return body


def tool_outputs_of(outputs: ToolOutputs) -> list[dict[str, Any]]:
    """Return tool outputs as they are sent; an output that is no text becomes JSON text."""
    if isinstance(outputs, (Mapping, str)):
        msg = "tool_outputs must be a list of {'tool_call_id', 'output'}"
        raise TypeError(msg)
    return [_tool_output(item) for item in outputs]


def _tool_output(item: object) -> dict[str, Any]:
    if isinstance(item, Mapping):
        pair = dict(item)
    elif isinstance(item, ToolOutput):
        pair = msgspec.structs.asdict(item)
    else:
        msg = f"a tool output must be a mapping or a ToolOutput, got {type(item).__name__}"
        raise TypeError(msg)
    if "output" in pair and not isinstance(pair["output"], str):
        pair["output"] = msgspec.json.encode(pair["output"], enc_hook=_unfold).decode()
    return cast("dict[str, Any]", plain(pair))


def plain(value: Any) -> Any:
    """Return `value` as JSON would hold it, so that it can be sent more than once.

    >>> plain({"ids": (i for i in range(2))})
    {'ids': [0, 1]}

    Raises:
        TypeError: It cannot be written as JSON.
    """
    return msgspec.to_builtins(value, enc_hook=_unfold)


def _unfold(value: Any) -> Any:
    """Return what msgspec can write in place of `value`, which it cannot."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):  # a pydantic model, such as the official SDK's objects
        return dump(mode="json")
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    msg = f"{type(value).__name__} cannot be written as JSON"
    raise TypeError(msg)
