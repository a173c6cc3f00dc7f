"""Runs: the object with its life's facts, and the bodies that make and change one."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from msgspec import UNSET, Meta, UnsetType, field

from openai_runs._printing import Pairs, facts, inline
from openai_runs.config import MAX_INTEGER
from openai_runs.errors import (
    RunCancelled,
    RunError,
    RunExpired,
    RunFailed,
    RunIncomplete,
    RunRequiresAction,
)
from openai_runs.types.base import (
    ACTIVE_STATUSES,
    TERMINAL_STATUSES,
    Answer,
    Metadata,
    Part,
    Request,
    RequestMetadata,
    Unknown,
    null,
)
from openai_runs.types.messages import CreateMessage
from openai_runs.types.threads import CreateThread
from openai_runs.types.tools import (
    RequestResponseFormat,
    RequestTool,
    RequestToolChoice,
    RequestToolResources,
    RequestTruncationStrategy,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolResources,
    TruncationStrategy,
)

if TYPE_CHECKING:
    from openai_runs.types.steps import RunStep
    from openai_runs.types.timeline import Timeline

__all__ = [
    "CreateRun",
    "CreateThreadAndRun",
    "FunctionCall",
    "IncompleteRunDetails",
    "ReasoningEffort",
    "RequiredAction",
    "RequiredActionType",
    "RequiredApproval",
    "RequiredCall",
    "RequiredToolCall",
    "Run",
    "RunErrorCode",
    "RunLastError",
    "RunSettings",
    "RunStatus",
    "SubmitToolApprovalAction",
    "SubmitToolOutputs",
    "SubmitToolOutputsAction",
    "ToolOutput",
    "UnknownToolCall",
    "UpdateRun",
    "Usage",
]

ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class RunStatus:
    """Values of a run's `status`; servers may send others."""

    QUEUED: Final = "queued"
    IN_PROGRESS: Final = "in_progress"
    REQUIRES_ACTION: Final = "requires_action"
    CANCELLING: Final = "cancelling"
    CANCELLED: Final = "cancelled"
    FAILED: Final = "failed"
    COMPLETED: Final = "completed"
    INCOMPLETE: Final = "incomplete"
    EXPIRED: Final = "expired"


class RequiredActionType:
    """Values of a required action's `type`."""

    SUBMIT_TOOL_OUTPUTS: Final = "submit_tool_outputs"


class RunErrorCode:
    """Values of a run's `last_error.code`."""

    SERVER_ERROR: Final = "server_error"
    RATE_LIMIT_EXCEEDED: Final = "rate_limit_exceeded"
    INVALID_PROMPT: Final = "invalid_prompt"


class Usage(Part, frozen=True, kw_only=True, gc=False):
    """Tokens used."""

    prompt_tokens: int
    completion_tokens: int = field(default_factory=int)
    total_tokens: int = field(default_factory=int)


class FunctionCall(Part, frozen=True, kw_only=True, gc=False):
    """The function the model wants called."""

    name: str
    arguments: str
    """JSON text, as the model wrote it: it may be broken."""


class RequiredToolCall(Part, frozen=True, kw_only=True):
    """A tool call that waits for its output."""

    id: str
    kind: Literal["function"] | str = field(name="type", default_factory=lambda: "function")
    function: FunctionCall

    @property
    def type(self) -> str:
        """Return the wire's `type`: always `function` so far."""
        return self.kind


class UnknownToolCall(Unknown):
    """A tool call of a kind this version does not know, such as Foundry's `mcp`."""

    @property
    def id(self) -> str:
        """Return the call's id, or an empty text."""
        value = self.get("id")
        return value if isinstance(value, str) else ""


if TYPE_CHECKING:
    RequiredCall: TypeAlias = RequiredToolCall | UnknownToolCall
else:  # lenient decoding adds the unknown kind
    RequiredCall: TypeAlias = RequiredToolCall


class SubmitToolOutputsAction(Part, frozen=True, kw_only=True):
    """The tool calls that wait."""

    tool_calls: list[RequiredCall] = field(default_factory=lambda: [])  # always written


class RequiredApproval(Part, frozen=True, kw_only=True):
    """A call of a hosted tool, such as an MCP server's, that waits for approval."""

    id: str
    kind: str = field(name="type", default="")
    name: str = ""
    arguments: str | dict[str, Any] = ""
    """JSON text, or the object."""
    server_label: str | None = None

    @property
    def type(self) -> str:
        """Return the wire's `type`, such as `mcp`."""
        return self.kind


if TYPE_CHECKING:
    WaitingApproval: TypeAlias = RequiredApproval | UnknownToolCall
else:  # lenient decoding adds the unknown kind
    WaitingApproval: TypeAlias = RequiredApproval


class SubmitToolApprovalAction(Part, frozen=True, kw_only=True):
    """The calls that wait for approval."""

    tool_calls: list[WaitingApproval] = field(default_factory=lambda: [])  # always written


class RequiredAction(Part, frozen=True, kw_only=True):
    """What the run waits for."""

    kind: Literal["submit_tool_outputs"] | str = field(name="type")
    submit_tool_outputs: SubmitToolOutputsAction | None = null()
    submit_tool_approval: SubmitToolApprovalAction | None = None
    """Sent by Azure, with the type `submit_tool_approval`."""

    @property
    def type(self) -> str:
        """Return the wire's `type`: `submit_tool_outputs`, or what the server calls it."""
        return self.kind


class RunLastError(Part, frozen=True, kw_only=True, gc=False):
    """Why a run or a step failed."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"] | str = field(
        default_factory=str
    )
    message: str


class IncompleteRunDetails(Part, frozen=True, kw_only=True, gc=False):
    """Which limit a run met."""

    reason: Literal["max_completion_tokens", "max_prompt_tokens"] | str | None = None


class Run(Answer, frozen=True, kw_only=True):
    """An assistant at work on a thread.

    A field that the API always sends defaults to `null()`: our server writes it, null or not. One
    that only some servers send defaults to None, and is not written where it is None.
    """

    id: str
    object: str = field(default_factory=lambda: "thread.run")
    created_at: int = field(default_factory=int)
    """Unix seconds."""
    thread_id: str
    assistant_id: str = field(default_factory=str)
    status: (
        Literal[
            "queued",
            "in_progress",
            "requires_action",
            "cancelling",
            "cancelled",
            "failed",
            "completed",
            "incomplete",
            "expired",
        ]
        | str
    )
    """One of `RunStatus`, or what the server calls it."""
    required_action: RequiredAction | None = null()
    """Set exactly while the status is `requires_action`."""
    last_error: RunLastError | None = null()
    expires_at: int | None = null()
    """Unix seconds; null once the run is finished."""
    started_at: int | None = null()
    """Unix seconds."""
    cancelled_at: int | None = null()
    """Unix seconds."""
    failed_at: int | None = null()
    """Unix seconds."""
    completed_at: int | None = null()
    """Unix seconds."""
    incomplete_details: IncompleteRunDetails | None = null()
    model: str = field(default_factory=str)
    instructions: str | None = null()
    tools: list[Tool] = field(default_factory=lambda: [])  # always written
    metadata: Metadata | None = null()
    """At most 16 pairs, keys of 64 and values of 512 characters."""
    usage: Usage | None = null()
    """Null until the run is finished."""
    temperature: float | None = null()
    top_p: float | None = null()
    max_prompt_tokens: int | None = null()
    max_completion_tokens: int | None = null()
    truncation_strategy: TruncationStrategy | None = null()
    tool_choice: ToolChoice | None = null()
    parallel_tool_calls: bool = field(default_factory=lambda: True)
    response_format: ResponseFormat | None = null()
    tool_resources: ToolResources | None = None
    """Sent by Azure."""
    file_ids: list[str] | None = None
    """v1 only."""

    @property
    def is_active(self) -> bool:
        """Return whether the run is queued, at work, waiting for outputs, or being cancelled."""
        return self.status in ACTIVE_STATUSES

    @property
    def is_terminal(self) -> bool:
        """Return whether the run is finished; False for a status this version does not know."""
        return self.status in TERMINAL_STATUSES

    @property
    def needs_action(self) -> bool:
        """Return whether the run waits for tool outputs."""
        return self.status == RunStatus.REQUIRES_ACTION

    @property
    def tool_calls(self) -> list[RequiredToolCall]:
        """Return the function calls that wait for outputs; empty unless `needs_action`.

        Calls of a kind this version does not know are in `required_action` only.
        """
        action = self.required_action
        if action is None or action.submit_tool_outputs is None:
            return []
        calls = action.submit_tool_outputs.tool_calls
        return [call for call in calls if isinstance(call, RequiredToolCall)]

    def timeline(self, steps: "Iterable[RunStep]" = (), *, now: float | None = None) -> "Timeline":
        """Return where the run's time went: in the queue, in each step, and between them.

        `client.runs.timeline(run)` fetches the steps; `RunResult.timeline()` has them.

        Args:
            steps: All steps of the run, in any order; without them there is only the queue and
                the time after it.
            now: Unix seconds; what is not over lasts until then. Without it, it has no duration.

        Raises:
            ValueError: A step is of another run.
        """
        from openai_runs.types.timeline import build_timeline  # which reads runs and steps

        return build_timeline(self, steps, now)

    def _printed(self) -> Pairs:
        """Return the calls that wait for outputs in place of the objects they are in."""
        pairs = super()._printed()
        calls = self.tool_calls
        if not calls:
            return pairs
        rest = [pair for pair in pairs if pair[0] not in {"id", "status", "required_action"}]
        return [("id", self.id), ("status", self.status), ("tool_calls", calls), *rest]

    def _repr_markdown_(self) -> str:
        """Return what there is to know of the run at once, for a notebook."""
        error, details = self.last_error, self.incomplete_details
        waiting = ", ".join(call.function.name for call in self.tool_calls)
        return facts(
            f"Run: {inline(self.status)}",
            [
                ("id", self.id),
                ("thread", self.thread_id),
                ("assistant", self.assistant_id),
                ("model", self.model or None),
                ("tokens", None if self.usage is None else self.usage.total_tokens),
                ("waits for the output of", waiting or None),
                ("error", None if error is None else f"{error.code}: {error.message}"),
                ("incomplete", None if details is None else details.reason),
            ],
        )

    def raise_for_status(self) -> "Run":
        """Return this run if it completed or is still at work.

        Raises:
            RunFailed: The status is `failed`.
            RunExpired: The status is `expired`.
            RunCancelled: The status is `cancelled` or `cancelling`.
            RunIncomplete: The status is `incomplete`.
            RunRequiresAction: The status is `requires_action`.
            RunError: The status is one this version does not know.
        """
        if self.status in _HEALTHY:
            return self
        raise _ERRORS.get(self.status, RunError)(self)


_HEALTHY: Final = frozenset({RunStatus.QUEUED, RunStatus.IN_PROGRESS, RunStatus.COMPLETED})
_ERRORS: Final[dict[str, type[RunError]]] = {
    RunStatus.FAILED: RunFailed,
    RunStatus.EXPIRED: RunExpired,
    RunStatus.CANCELLED: RunCancelled,
    RunStatus.CANCELLING: RunCancelled,
    RunStatus.INCOMPLETE: RunIncomplete,
    RunStatus.REQUIRES_ACTION: RunRequiresAction,
}


class RunSettings(Request, frozen=True, kw_only=True):
    """What both bodies that start a run have in common."""

    assistant_id: str
    model: str | None | UnsetType = UNSET
    instructions: Annotated[str, Meta(max_length=256_000)] | None | UnsetType = UNSET
    tools: Annotated[list[RequestTool], Meta(max_length=128)] | None | UnsetType = UNSET
    metadata: RequestMetadata | None | UnsetType = UNSET
    temperature: Annotated[float, Meta(ge=0, le=2)] | None | UnsetType = UNSET
    top_p: Annotated[float, Meta(ge=0, le=1)] | None | UnsetType = UNSET
    stream: bool | None | UnsetType = UNSET
    max_prompt_tokens: Annotated[int, Meta(ge=256, le=MAX_INTEGER)] | None | UnsetType = UNSET
    max_completion_tokens: Annotated[int, Meta(ge=256, le=MAX_INTEGER)] | None | UnsetType = UNSET
    truncation_strategy: RequestTruncationStrategy | None | UnsetType = UNSET
    tool_choice: RequestToolChoice | None | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    response_format: RequestResponseFormat | None | UnsetType = UNSET


class CreateRun(RunSettings, frozen=True, kw_only=True):
    """Body of POST /threads/{thread_id}/runs."""

    reasoning_effort: ReasoningEffort | None | UnsetType = UNSET
    additional_instructions: str | None | UnsetType = UNSET
    additional_messages: list[CreateMessage] | None | UnsetType = UNSET


class CreateThreadAndRun(RunSettings, frozen=True, kw_only=True):
    """Body of POST /threads/runs."""

    thread: CreateThread | UnsetType = UNSET
    tool_resources: RequestToolResources | None | UnsetType = UNSET


class UpdateRun(Request, frozen=True, kw_only=True):
    """Body of POST /threads/{thread_id}/runs/{run_id}."""

    metadata: RequestMetadata | None | UnsetType = UNSET


class ToolOutput(Request, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The answer to one tool call."""

    tool_call_id: str
    output: str = ""


class SubmitToolOutputs(Request, frozen=True, kw_only=True):
    """Body of POST .../submit_tool_outputs; all calls are answered in one request."""

    tool_outputs: list[ToolOutput]
    stream: bool | None | UnsetType = UNSET
