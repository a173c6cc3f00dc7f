"""The arguments of calls, declared once, and how they become bodies.

A test compares the keys here with the request Structs and with the OpenAPI file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, Final, Literal, TypedDict, cast

import msgspec

from openai_runs._client.encoding import plain
from openai_runs._client.tools.executor import ToolOptions
from openai_runs._client.tools.json_schema import response_format
from openai_runs._client.tools.tool import as_sent
from openai_runs._protocol.lifecycle import is_settled
from openai_runs.config import PollPolicy, check_timeout
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
    "RunSettings",
    "StartOptions",
    "StatusCallback",
    "TurnArguments",
    "UpdateAssistantArguments",
    "UpdateThreadArguments",
    "WaitArguments",
    "WaitOptions",
    "body_of",
    "check_options",
    "follow_up_options",
    "options_of",
    "refuse",
    "tool_options_of",
    "wait_options_of",
]

JSONObject = Mapping[str, Any]
"""A nested argument given as a plain mapping; foreign kinds go through untouched."""
OnActiveRun = Literal["raise", "wait", "cancel"]
Reaction = Literal["leave", "cancel"]
StatusCallback = Callable[[Run], Awaitable[object] | object]
Tools = Iterable[RequestTool | Tool | JSONObject | Callable[..., Any]]
"""Functions, made with `tool` or plain, and definitions of other tools."""


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


class WaitArguments(TypedDict, total=False):
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


class RunSettings(TypedDict, total=False):
    """What every call that starts a run sends, its tools apart."""

    model: str | None
    instructions: str | None
    """In place of the assistant's; at most 256,000 characters."""
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
    response_format: RequestResponseFormat | JSONObject | type | None
    """A Struct, dataclass or TypedDict is sent as its strict JSON schema."""


class RunArguments(RunSettings, total=False):
    """What both calls that start a run send."""

    tools: Tools | None
    """In place of the assistant's; the API says at most 20."""


class TurnArguments(TypedDict, total=False):
    """What is sent besides by a call that starts a run on a thread there is."""

    reasoning_effort: ReasoningEffort | None
    additional_instructions: str | None
    """Appended to the instructions."""
    additional_messages: Iterable[CreateMessage | JSONObject] | None
    """Put on the thread before the run starts."""


class CreateRunArguments(RunArguments, TurnArguments, total=False):
    """What `runs.create` sends besides the assistant's id."""


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
    tools: Tools
    """At most 128."""
    tool_resources: RequestToolResources | JSONObject | None
    metadata: Mapping[str, str] | None
    temperature: float | None
    top_p: float | None
    response_format: RequestResponseFormat | JSONObject | type | None


class UpdateAssistantArguments(CreateAssistantArguments, total=False):
    """What `assistants.update` sends."""

    model: str


class StartOptions(TypedDict, total=False):
    """What else a call takes that starts a run on a thread there is."""

    include: Iterable[str] | None
    """`step_details.tool_calls[*].file_search.results[*].content`."""
    on_active_run: OnActiveRun
    """What to do when the thread has an active run: raise, wait for it, or cancel it."""


class CreateRunCall(CreateRunArguments, StartOptions, CallOptions, total=False):
    """Everything `runs.create` takes by keyword."""


class CreateRunAndPollCall(CreateRunCall, WaitArguments, total=False):
    """Everything `runs.create_and_poll` takes by keyword."""


class CreateThreadAndRunCall(CreateThreadAndRunArguments, CallOptions, total=False):
    """Everything `threads.create_and_run` takes by keyword."""


class CreateThreadAndRunAndPollCall(CreateThreadAndRunCall, WaitArguments, total=False):
    """Everything `threads.create_and_run_poll` takes by keyword."""


class WaitCall(CallOptions, WaitArguments, total=False):
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


WAIT_OPTION_NAMES: Final = frozenset(WaitArguments.__annotations__)
_TOOL_OPTION_NAMES: Final = frozenset(ToolOptions.__annotations__)
_LOOK_NAMES: Final = frozenset({"request_timeout", "extra_headers", "extra_query"})
LIST_NAMES: Final = ("limit", "order", "after", "before")


def wait_arguments_of(arguments: dict[str, Any]) -> WaitArguments:
    """Take the wait options out of `arguments` and return them."""
    found = WAIT_OPTION_NAMES & arguments.keys()
    return cast("WaitArguments", {name: arguments.pop(name) for name in found})


def tool_options_of(arguments: dict[str, Any]) -> ToolOptions:
    """Take the tool options out of `arguments` and return them."""
    found = _TOOL_OPTION_NAMES & arguments.keys()
    return cast("ToolOptions", {name: arguments.pop(name) for name in found})


def options_of(arguments: dict[str, Any]) -> CallOptions:
    """Take the call options out of `arguments` and return them."""
    found = OPTION_NAMES & arguments.keys()
    return cast("CallOptions", {name: arguments.pop(name) for name in found})


def check_options(call: str, options: CallOptions) -> None:
    """Refuse what no call takes; a method with no body of its own has let it through.

    Raises:
        TypeError: An option is not one of `CallOptions`.
    """
    refuse(call, options.keys() - OPTION_NAMES)


def refuse(call: str, left: Collection[str]) -> None:
    """Refuse the arguments that are left when a call has taken all it knows.

    Raises:
        TypeError: There are some.
    """
    if left:
        msg = f"{call}() got an unexpected keyword argument {min(left)!r}"
        raise TypeError(msg)


def follow_up_options(options: CallOptions) -> CallOptions:
    """Return what a look at the result of a lost call has in common with the call."""
    found = _LOOK_NAMES & options.keys()
    given = {name: options[name] for name in found if options[name] is not None}  # type: ignore[literal-required]  # names of options
    return cast("CallOptions", given)


_SENT: Final[dict[str, Callable[[object], object]]] = {
    "tools": as_sent,
    "response_format": response_format,
}
"""Arguments that may be given as Python objects which are no JSON."""


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
            body[name] = plain(_SENT[name](value) if name in _SENT else value)
    return body


_NO_OPTIONS: Final[CallOptions] = {}
"""Shared by all waits that bring none: ten thousand of them are ten thousand dicts less."""


class WaitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How one wait is done."""

    timeout: float | None = None
    """Seconds for the whole wait; None: what the run has left; `math.inf`: for ever."""
    options: CallOptions = {}
    """What each poll takes along: extra headers and query, and `request_timeout`, the seconds
    an answer may take beyond what the server was asked to hold it."""
    policy: PollPolicy
    interval: float | None = None
    on_status: StatusCallback | None = None
    on_timeout: Reaction = "leave"
    on_cancel: Reaction = "leave"
    until: Callable[[str], bool] = is_settled

    def __post_init__(self) -> None:
        """Refuse what no wait could be made of."""
        check_timeout("timeout", self.timeout)
        check_timeout("request_timeout", self.options.get("request_timeout"))
        check_timeout("interval", self.interval)
        for name, value in (("on_timeout", self.on_timeout), ("on_cancel", self.on_cancel)):
            if value not in {"leave", "cancel"}:
                msg = f"{name} must be 'leave' or 'cancel', got {value!r}"
                raise ValueError(msg)
        if self.on_status is not None and not callable(self.on_status):
            msg = f"on_status must be callable, got {self.on_status!r}"
            raise TypeError(msg)


def wait_options_of(
    default: PollPolicy, waiting: WaitArguments, options: CallOptions
) -> WaitOptions:
    """Return the plan these arguments ask for.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of bounds.
    """
    interval = waiting.get("interval")
    milliseconds = waiting.get("poll_interval_ms")
    if milliseconds is not None:
        interval = milliseconds / 1000
    poll = waiting.get("poll") or default
    if not isinstance(poll, PollPolicy):
        msg = f"poll must be a PollPolicy, got {poll!r}"
        raise TypeError(msg)
    return WaitOptions(
        timeout=options.get("timeout"),
        options=follow_up_options(options) or _NO_OPTIONS,
        policy=poll,
        interval=interval,
        on_status=waiting.get("on_status"),
        on_timeout=waiting.get("on_timeout", "leave"),
        on_cancel=waiting.get("on_cancel", "leave"),
    )
