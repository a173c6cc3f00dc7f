"""Run steps: what a run did, one thing at a time."""

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from msgspec import field

from openai_runs.types.base import Answer, Metadata, Part, Unknown, null
from openai_runs.types.runs import RunLastError, UnknownToolCall, Usage

__all__ = [
    "CodeInterpreterCall",
    "CodeInterpreterImage",
    "CodeInterpreterLogs",
    "CodeInterpreterOutput",
    "CodeInterpreterToolCall",
    "FileSearchCall",
    "FileSearchResult",
    "FileSearchResultContent",
    "FileSearchToolCall",
    "FunctionCallResult",
    "FunctionToolCall",
    "MessageCreation",
    "MessageCreationDetails",
    "OutputImage",
    "RankingOptionsUsed",
    "RetrievalToolCall",
    "RunStep",
    "RunStepStatus",
    "RunStepType",
    "StepDetails",
    "StepToolCall",
    "ToolCallsDetails",
    "UnknownOutput",
    "UnknownStepDetails",
]


class RunStepStatus:
    """Values of a step's `status`."""

    IN_PROGRESS: Final = "in_progress"
    CANCELLED: Final = "cancelled"
    FAILED: Final = "failed"
    COMPLETED: Final = "completed"
    EXPIRED: Final = "expired"


class RunStepType:
    """Values of a step's `type`."""

    MESSAGE_CREATION: Final = "message_creation"
    TOOL_CALLS: Final = "tool_calls"


class UnknownStepDetails(Unknown):
    """Details of a kind this version does not know."""


class UnknownOutput(Unknown):
    """A code interpreter output of a kind this version does not know."""


class CodeInterpreterLogs(Part, frozen=True, kw_only=True, gc=False, tag="logs"):
    """What the code printed."""

    logs: str


class OutputImage(Part, frozen=True, kw_only=True, gc=False):
    """An image the code made."""

    file_id: str


class CodeInterpreterImage(Part, frozen=True, kw_only=True, tag="image"):
    """An image the code made."""

    image: OutputImage


if TYPE_CHECKING:
    CodeInterpreterOutput: TypeAlias = CodeInterpreterLogs | CodeInterpreterImage | UnknownOutput
else:  # the mending decoder adds the unknown kind
    CodeInterpreterOutput: TypeAlias = CodeInterpreterLogs | CodeInterpreterImage


class CodeInterpreterCall(Part, frozen=True, kw_only=True):
    """The code, and what came of it."""

    input: str = field(default_factory=str)
    outputs: list[CodeInterpreterOutput] = field(default_factory=lambda: [])  # always written


class CodeInterpreterToolCall(Part, frozen=True, kw_only=True, tag="code_interpreter"):
    """A call of the code interpreter."""

    id: str
    code_interpreter: CodeInterpreterCall


class RankingOptionsUsed(Part, frozen=True, kw_only=True, gc=False):
    """How file search ranked what it found."""

    ranker: str = field(default_factory=str)
    score_threshold: float = field(default_factory=float)


class FileSearchResultContent(Part, frozen=True, kw_only=True, gc=False):
    """A piece of a found file; sent only if asked for with `include`."""

    kind: str = field(name="type", default_factory=lambda: "text")
    text: str = field(default_factory=str)

    @property
    def type(self) -> str:
        """Return the wire's `type`: always `text` so far."""
        return self.kind


class FileSearchResult(Part, frozen=True, kw_only=True):
    """A file that was found."""

    file_id: str
    file_name: str = field(default_factory=str)
    score: float = field(default_factory=float)
    """From 0 to 1."""
    content: list[FileSearchResultContent] | None = None


class FileSearchCall(Part, frozen=True, kw_only=True):
    """What file search found."""

    ranking_options: RankingOptionsUsed | None = None
    results: list[FileSearchResult] | None = None


class FileSearchToolCall(Part, frozen=True, kw_only=True, tag="file_search"):
    """A call of file search."""

    id: str
    file_search: FileSearchCall


class RetrievalToolCall(Part, frozen=True, kw_only=True, tag="retrieval"):
    """A call of v1's file search."""

    id: str
    retrieval: dict[str, str] = field(default_factory=lambda: {})  # always written


class FunctionCallResult(Part, frozen=True, kw_only=True, gc=False):
    """A function call and its output."""

    name: str
    arguments: str
    """JSON text, as the model wrote it."""
    output: str | None = null()
    """Null until submitted."""


class FunctionToolCall(Part, frozen=True, kw_only=True, tag="function"):
    """A call of one of the caller's functions."""

    id: str
    function: FunctionCallResult


if TYPE_CHECKING:
    StepToolCall: TypeAlias = (
        CodeInterpreterToolCall
        | FileSearchToolCall
        | RetrievalToolCall
        | FunctionToolCall
        | UnknownToolCall
    )
else:
    StepToolCall: TypeAlias = (
        CodeInterpreterToolCall | FileSearchToolCall | RetrievalToolCall | FunctionToolCall
    )


class MessageCreation(Part, frozen=True, kw_only=True, gc=False):
    """The message the step wrote."""

    message_id: str


class MessageCreationDetails(Part, frozen=True, kw_only=True, tag="message_creation"):
    """The step wrote a message."""

    message_creation: MessageCreation


class ToolCallsDetails(Part, frozen=True, kw_only=True, tag="tool_calls"):
    """The step called tools."""

    tool_calls: list[StepToolCall] = field(default_factory=lambda: [])  # always written


if TYPE_CHECKING:
    StepDetails: TypeAlias = MessageCreationDetails | ToolCallsDetails | UnknownStepDetails
else:
    StepDetails: TypeAlias = MessageCreationDetails | ToolCallsDetails


class RunStep(Answer, frozen=True, kw_only=True):
    """One thing a run did: it wrote a message, or called tools."""

    id: str
    object: str = field(default_factory=lambda: "thread.run.step")
    created_at: int = field(default_factory=int)
    """Unix seconds."""
    assistant_id: str = field(default_factory=str)
    thread_id: str = field(default_factory=str)
    run_id: str = field(default_factory=str)
    type: Literal["message_creation", "tool_calls"] | str = field(default_factory=str)
    """One of `RunStepType`, or what the server calls it."""
    status: Literal["in_progress", "cancelled", "failed", "completed", "expired"] | str
    """One of `RunStepStatus`, or what the server calls it."""
    step_details: StepDetails
    last_error: RunLastError | None = null()
    expired_at: int | None = null()
    """Unix seconds."""
    cancelled_at: int | None = null()
    """Unix seconds."""
    failed_at: int | None = null()
    """Unix seconds."""
    completed_at: int | None = null()
    """Unix seconds."""
    metadata: Metadata | None = null()
    usage: Usage | None = null()
    """Null while in progress."""
    expires_at: int | None = None
    """Sent by Foundry in place of `expired_at`."""

    @property
    def tool_calls(self) -> list[StepToolCall]:
        """Return the tool calls of this step; empty if it wrote a message."""
        details = self.step_details
        return details.tool_calls if isinstance(details, ToolCallsDetails) else []
