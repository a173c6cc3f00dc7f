"""The keywords of each call, and `parse`, which sorts those of one call once.

A test compares the keys here with the request Structs and with the OpenAPI file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final, Literal, TypedDict, cast, get_origin

import msgspec

from openai_runs._client.encoding import Model, plain
from openai_runs._client.tools.executor import ToolOptions
from openai_runs._client.tools.json_schema import response_format
from openai_runs._client.tools.tool import as_sent, to_local_tools
from openai_runs._client.usage import unexpected_keyword
from openai_runs._protocol.lifecycle import is_settled
from openai_runs._protocol.spec import check_id
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
    "Arguments",
    "AskCall",
    "CallOptions",
    "CreateAssistantArguments",
    "CreateMessageArguments",
    "CreateRunArguments",
    "CreateThreadAndRunArguments",
    "CreateThreadArguments",
    "Metadata",
    "OnActiveRun",
    "Reaction",
    "StartOptions",
    "StatusCallback",
    "UpdateAssistantArguments",
    "UpdateThreadArguments",
    "WaitArguments",
    "WaitOptions",
    "check_options",
    "follow_up_options",
    "parse",
    "wait_options_of",
]

JSONObject = Mapping[str, Any] | Model
"""A nested argument given as a mapping or pydantic model; sent as it is, unknown kinds too."""
Metadata = Mapping[str, str] | Model
"""At most 16 pairs, keys of 64 and values of 512 characters, in a mapping or pydantic model."""
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
    """Seconds for one attempt; None: the client's, for a poll 10 beyond what it may be held."""
    extra_headers: Mapping[str, str] | None
    extra_query: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None
    """Merged into the body, for fields that this version does not know."""
    idempotency_key: str | None
    """Sent as `Idempotency-Key` in place of a random one; POST only."""


class WaitArguments(TypedDict, total=False):
    """How a call waits for a run."""

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
    metadata: Metadata | None
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


class FormatArgument(TypedDict, total=False):
    """What every call that starts a run, or makes an assistant, may send."""

    response_format: RequestResponseFormat | JSONObject | type | None
    """A pydantic model, Struct, dataclass or TypedDict is sent as its strict JSON schema."""


class RunArguments(RunSettings, total=False):
    """What both calls that start a run send."""

    tools: Tools | None
    """In place of the assistant's; the API says at most 20."""


class TurnArguments(TypedDict, total=False):
    """Body fields only `runs.create` has."""

    reasoning_effort: ReasoningEffort | None
    additional_instructions: str | None
    """Appended to the instructions."""
    additional_messages: Iterable[CreateMessage | JSONObject] | None
    """Put on the thread before the run starts."""


class CreateRunArguments(RunArguments, FormatArgument, TurnArguments, total=False):
    """What `runs.create` sends besides the assistant's id."""


class ThreadArguments(TypedDict, total=False):
    """Body fields only `threads.create_and_run` has."""

    thread: CreateThread | JSONObject
    tool_resources: RequestToolResources | JSONObject | None


class CreateThreadAndRunArguments(RunArguments, FormatArgument, ThreadArguments, total=False):
    """What `threads.create_and_run` sends besides the assistant's id."""


class CreateThreadArguments(TypedDict, total=False):
    """What `threads.create` sends."""

    messages: Iterable[CreateMessage | JSONObject]
    tool_resources: RequestToolResources | JSONObject | None
    metadata: Metadata | None


class UpdateThreadArguments(TypedDict, total=False):
    """What `threads.update` sends."""

    tool_resources: RequestToolResources | JSONObject | None
    metadata: Metadata | None


class CreateMessageArguments(TypedDict, total=False):
    """What `messages.create` sends besides role and content."""

    attachments: Iterable[RequestAttachment | JSONObject] | None
    metadata: Metadata | None


class CreateAssistantArguments(FormatArgument, total=False):
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
    metadata: Metadata | None
    temperature: float | None
    top_p: float | None


class UpdateAssistantArguments(CreateAssistantArguments, total=False):
    """What `assistants.update` sends."""

    model: str


class StartOptions(TypedDict, total=False):
    """Options of creates on an existing thread."""

    include: Iterable[str] | None
    """`step_details.tool_calls[*].file_search.results[*].content`."""
    on_active_run: OnActiveRun
    """What to do when the thread has an active run: raise, wait for it, or cancel it."""


class StreamOptions(TypedDict, total=False):
    """How a stream is read."""

    idle_timeout: float | None
    """Seconds without an event before the run is polled; None: 30."""
    max_stream_bytes: int | None
    """Bytes read of the whole stream, decompressed; None: the client's, 128 MiB by default."""


class PageOptions(TypedDict, total=False):
    """Which items a list returns."""

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


class ListCall(PageOptions, CallOptions, total=False):
    """What every list takes by keyword."""


class _RunOptions(StartOptions, CallOptions, WaitArguments, ToolOptions, total=False):
    """What a call takes that starts a run and sees it to its end."""


class StreamTypedCall(RunArguments, TurnArguments, _RunOptions, StreamOptions, total=False):
    """What `runs.stream` takes beside a type as `response_format`."""


class StreamCall(StreamTypedCall, FormatArgument, total=False):
    """Everything `runs.stream` takes by keyword."""


class StreamWaitCall(WaitCall, StreamOptions, total=False):
    """Everything a stream of an existing run takes by keyword."""


class CreateThreadAndRunStreamTypedCall(
    RunArguments,
    ThreadArguments,
    CallOptions,
    WaitArguments,
    StreamOptions,
    ToolOptions,
    total=False,
):
    """What `threads.create_and_run_stream` takes beside a type as `response_format`."""


class CreateThreadAndRunStreamCall(CreateThreadAndRunStreamTypedCall, FormatArgument, total=False):
    """Everything `threads.create_and_run_stream` takes by keyword."""


class RunToolsTypedCall(RunSettings, TurnArguments, _RunOptions, total=False):
    """What `runs.run_tools` takes beside a type as `response_format`."""


class RunToolsCall(RunToolsTypedCall, FormatArgument, total=False):
    """Everything `runs.run_tools` takes by keyword, besides assistant and tools."""


class AskTypedCall(RunSettings, _RunOptions, total=False):
    """What `runs.ask` takes beside a type as `response_format`."""


class AskCall(AskTypedCall, FormatArgument, total=False):
    """Everything `runs.ask` takes by keyword, besides text, ids and tools."""


class ResumeCall(WaitCall, ToolOptions, total=False):
    """Everything `runs.resume` takes by keyword, besides ids, tools and format."""


class MapCall(RunSettings, FormatArgument, _RunOptions, total=False):
    """Everything `runs.map` takes by keyword, besides items, concurrency and tools."""

    assistant_id: str


class MapItemCall(CreateRunAndPollCall, ToolOptions, total=False):
    """Everything an item of `runs.map` takes that names a thread, besides ids."""


class MapThreadItemCall(CreateThreadAndRunAndPollCall, ToolOptions, total=False):
    """Everything an item of `runs.map` takes whose thread is created with its run."""


MessageContent = str | Iterable[RequestContent | JSONObject]
ToolOutputs = Iterable[ToolOutput | JSONObject]

_GROUPS: Final[Mapping[str, type]] = {
    "call": CallOptions,
    "wait": WaitArguments,
    "tool": ToolOptions,
    "stream": StreamOptions,
    "start": StartOptions,
    "page": PageOptions,
}
"""Field of `Arguments` -> the TypedDict of its keywords. All others belong to the body."""
_OPTION_NAMES: Final = frozenset(CallOptions.__annotations__)
_POLL_OPTION_NAMES: Final = frozenset({"request_timeout", "extra_headers", "extra_query"})
_METHODS: Final[Mapping[str, str]] = {
    "getAssistant": "client.assistants.retrieve",
    "deleteAssistant": "client.assistants.delete",
    "getThread": "client.threads.retrieve",
    "deleteThread": "client.threads.delete",
    "getMessage": "client.messages.retrieve",
    "modifyMessage": "client.messages.update",
    "deleteMessage": "client.messages.delete",
    "getRun": "client.runs.retrieve",
    "modifyRun": "client.runs.update",
    "cancelRun": "client.runs.cancel",
    "submitToolOuputsToRun": "client.runs.submit_tool_outputs",
    "getRunStep": "client.runs.steps.retrieve",
}
"""Operation -> the method that passes its `CallOptions` on without parsing them."""


def check_options(operation: str, options: CallOptions) -> None:
    """Reject unknown options of methods that take nothing else and pass them unparsed.

    Raises:
        TypeError: An option is not one of `CallOptions`.
    """
    for keyword in options:
        if keyword not in _OPTION_NAMES:
            call = _METHODS.get(operation, "client.request")
            raise unexpected_keyword(call, keyword, _OPTION_NAMES)


def follow_up_options(options: CallOptions) -> CallOptions:
    """Return the options that a follow-up request shares with its call."""
    found = _POLL_OPTION_NAMES & options.keys()
    given = {name: options[name] for name in found if options[name] is not None}  # type: ignore[literal-required]  # names of options
    return cast("CallOptions", given)


_NO_OPTIONS: Final[CallOptions] = {}
"""Shared by all waits without options: 10,000 waits need no 10,000 dicts."""


class WaitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How one wait is carried out."""

    timeout: float | None = None
    """Seconds for the whole wait; None: what the run has left; `math.inf`: without end."""
    options: CallOptions = {}
    """Of each poll: extra headers and query, and `request_timeout`, the seconds
    an answer may take beyond what the server was asked to hold it."""
    policy: PollPolicy
    interval: float | None = None
    on_status: StatusCallback | None = None
    on_timeout: Reaction = "leave"
    on_cancel: Reaction = "leave"
    until: Callable[[str], bool] = is_settled

    def __post_init__(self) -> None:
        """Check each value."""
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
    """Return the options of these arguments; `default` is the client's policy.

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


_NO_WAIT: Final = WaitOptions(policy=PollPolicy())
"""The wait of a call that does not wait."""


class Arguments(msgspec.Struct, frozen=True, kw_only=True):
    """The keywords of one call, sorted by what they are for; made by `parse`."""

    body: dict[str, Any]
    """The JSON body."""
    call: CallOptions
    wait: WaitOptions
    tool: ToolOptions
    stream: StreamOptions
    start: StartOptions
    page: PageOptions
    tools: list[object] | None = None
    """The tools of the body, functions as `LocalTool`; None where none were given."""
    response_format: type | None = None
    """The type given as `response_format`, if it was given as a type."""


def parse(
    name: str, kind: type, given: Mapping[str, Any], poll: PollPolicy | None = None, /, **own: Any
) -> Arguments:
    """Return the keywords of one call, sorted; UNSET is left out, None is sent as null.

    Args:
        name: The method that was called, for errors.
        kind: The TypedDict of its keywords.
        given: Its keywords.
        poll: The client's policy, for a call that waits.
        **own: Parts of the body which the method takes by name.

    Raises:
        TypeError: A keyword is not one of `kind`'s, or of the wrong kind.
        ValueError: A value is out of bounds.
    """
    groups = _groups_of(kind)
    fields: dict[str, Any] = {
        "body": own,
        "call": {},
        "wait": {},
        "tool": {},
        "stream": {},
        "start": {},
        "page": {},
    }
    for keyword, value in given.items():
        if keyword not in groups:
            call = f"client.{name}"
            raise unexpected_keyword(call, keyword, {**groups, **own})
        if value is not msgspec.UNSET:
            fields[groups[keyword]][keyword] = value
    if poll is not None:
        fields["wait"] = wait_options_of(poll, fields["wait"], fields["call"])
    else:
        fields["wait"] = _NO_WAIT
    if "assistant_id" in own:
        check_id("assistant_id", own["assistant_id"])
    if own.get("tools") is not None:
        fields["tools"] = to_local_tools(own["tools"])
        own["tools"] = as_sent(fields["tools"])
    if "response_format" in own:
        fields["response_format"] = _type_in(own["response_format"])
        own["response_format"] = response_format(own["response_format"])
    if own:
        fields["body"] = plain(own)
    start = fields["start"]
    if "include" in start and start["include"] is not None:
        start["include"] = [*start["include"]]
    return Arguments(**fields)


def _type_in(response_format: object) -> type | None:
    """Return the type a response format was given as, if it was given as one."""
    is_type = isinstance(response_format, type) or get_origin(response_format) is not None
    return response_format if is_type else None  # type: ignore[return-value]  # or an alias


@cache
def _groups_of(kind: type) -> dict[str, str]:
    """Return to each keyword of `kind` the field of `Arguments` it goes to."""
    known = {name: group for group, its in _GROUPS.items() for name in its.__annotations__}
    return {name: known.get(name, "body") for name in kind.__annotations__}
