"""Tools, what is said about their use, and the formats of an answer."""

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from msgspec import UNSET, Meta, UnsetType, field

from openai_runs.config import MAX_INTEGER
from openai_runs.types.base import Part, RequestMetadata, Unknown, null

__all__ = [
    "AutoChunking",
    "CodeInterpreterResources",
    "CodeInterpreterTool",
    "FileSearchOptions",
    "FileSearchRankingOptions",
    "FileSearchResources",
    "FileSearchTool",
    "FunctionDefinition",
    "FunctionTool",
    "JsonSchema",
    "NamedFunction",
    "NamedToolChoice",
    "RequestCodeInterpreterResources",
    "RequestFileSearchOptions",
    "RequestFileSearchResources",
    "RequestFileSearchTool",
    "RequestFunction",
    "RequestFunctionTool",
    "RequestJsonSchema",
    "RequestNamedToolChoice",
    "RequestRankingOptions",
    "RequestResponseFormat",
    "RequestResponseFormatJsonSchema",
    "RequestStaticChunking",
    "RequestTool",
    "RequestToolChoice",
    "RequestToolResources",
    "RequestTruncationStrategy",
    "RequestVectorStore",
    "ResponseFormat",
    "ResponseFormatJsonObject",
    "ResponseFormatJsonSchema",
    "ResponseFormatText",
    "RetrievalTool",
    "StaticChunking",
    "Tool",
    "ToolChoice",
    "ToolResources",
    "TruncationStrategy",
    "UnknownResponseFormat",
    "UnknownTool",
]

_FUNCTION_NAME: Final = "^[A-Za-z0-9_-]{1,64}$"


class UnknownTool(Unknown):
    """A tool of a kind this version does not know, such as Foundry's `bing_grounding`."""


class CodeInterpreterTool(Part, frozen=True, kw_only=True, gc=False, tag="code_interpreter"):
    """The hosted code interpreter."""


class RetrievalTool(Part, frozen=True, kw_only=True, gc=False, tag="retrieval"):
    """The v1 name of file search."""


class FileSearchRankingOptions(Part, frozen=True, kw_only=True, gc=False):
    """How file search ranks what it finds."""

    score_threshold: float = 0.0
    """From 0 to 1."""
    ranker: str | None = None
    """`auto` or `default_2024_08_21`."""


class FileSearchOptions(Part, frozen=True, kw_only=True):
    """Settings of file search."""

    max_num_results: int | None = None
    """From 1 to 50."""
    ranking_options: FileSearchRankingOptions | None = None


class FileSearchTool(Part, frozen=True, kw_only=True, tag="file_search"):
    """The hosted file search."""

    file_search: FileSearchOptions | None = None


class FunctionDefinition(Part, frozen=True, kw_only=True):
    """A function the model may ask for."""

    name: str
    """Letters, digits, `_` and `-`, at most 64 characters."""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema of the arguments."""
    strict: bool | None = None


class FunctionTool(Part, frozen=True, kw_only=True, tag="function"):
    """A function of the caller's, offered to the model."""

    function: FunctionDefinition


class RequestFunction(Part, frozen=True, kw_only=True):
    """A function as sent, with the API's bound on its name."""

    name: Annotated[str, Meta(pattern=_FUNCTION_NAME)]
    description: str | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET
    strict: bool | None | UnsetType = UNSET


class RequestFunctionTool(Part, frozen=True, kw_only=True, tag="function"):
    """A function tool as sent."""

    function: RequestFunction


class RequestRankingOptions(Part, frozen=True, kw_only=True):
    """Ranking options as sent, with the API's bounds."""

    score_threshold: Annotated[float, Meta(ge=0, le=1)]
    ranker: Literal["auto", "default_2024_08_21"] | UnsetType = UNSET


class RequestFileSearchOptions(Part, frozen=True, kw_only=True):
    """File search settings as sent, with the API's bounds."""

    max_num_results: Annotated[int, Meta(ge=1, le=50)] | UnsetType = UNSET
    ranking_options: RequestRankingOptions | UnsetType = UNSET


class RequestFileSearchTool(Part, frozen=True, kw_only=True, tag="file_search"):
    """A file search tool as sent."""

    file_search: RequestFileSearchOptions | UnsetType = UNSET


RequestTool: TypeAlias = CodeInterpreterTool | RequestFileSearchTool | RequestFunctionTool
"""A tool in a request body of the v2 API."""

if TYPE_CHECKING:
    Tool: TypeAlias = (
        CodeInterpreterTool | FileSearchTool | FunctionTool | RetrievalTool | UnknownTool
    )
else:  # msgspec decodes the known kinds; the mending decoder adds the unknown one
    Tool: TypeAlias = CodeInterpreterTool | FileSearchTool | FunctionTool | RetrievalTool


class NamedFunction(Part, frozen=True, kw_only=True, gc=False):
    """The function a run must call."""

    name: str


class NamedToolChoice(Part, frozen=True, kw_only=True):
    """The tool a run must use."""

    kind: Literal["function", "code_interpreter", "file_search"] | str = field(name="type")
    function: NamedFunction | None = None

    @property
    def type(self) -> str:
        """Return the wire's `type`: which kind of tool."""
        return self.kind


ToolChoice: TypeAlias = Literal["none", "auto", "required"] | str | NamedToolChoice


class TruncationStrategy(Part, frozen=True, kw_only=True, gc=False):
    """Which messages of the thread the model sees."""

    kind: Literal["auto", "last_messages"] | str = field(name="type")
    last_messages: int | None = null()
    """How many, at least 1, with `last_messages`."""

    @property
    def type(self) -> str:
        """Return the wire's `type`: `auto` or `last_messages`."""
        return self.kind


class ResponseFormatText(Part, frozen=True, kw_only=True, gc=False, tag="text"):
    """Plain text."""


class ResponseFormatJsonObject(Part, frozen=True, kw_only=True, gc=False, tag="json_object"):
    """Any JSON object."""


class JsonSchema(Part, frozen=True, kw_only=True):
    """The schema an answer must fit."""

    name: str
    """Letters, digits, `_` and `-`, at most 64 characters."""
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormatJsonSchema(Part, frozen=True, kw_only=True, tag="json_schema"):
    """JSON that fits a schema."""

    json_schema: JsonSchema


class UnknownResponseFormat(Unknown):
    """A format this version does not know."""


if TYPE_CHECKING:
    ResponseFormat: TypeAlias = (
        str
        | ResponseFormatText
        | ResponseFormatJsonObject
        | ResponseFormatJsonSchema
        | UnknownResponseFormat
    )
else:
    ResponseFormat: TypeAlias = (
        str | ResponseFormatText | ResponseFormatJsonObject | ResponseFormatJsonSchema
    )


class CodeInterpreterResources(Part, frozen=True, kw_only=True):
    """Files the code interpreter may read; at most 20."""

    file_ids: list[str] | None = None


class FileSearchResources(Part, frozen=True, kw_only=True):
    """Vector stores file search looks into; at most 1."""

    vector_store_ids: list[str] | None = None


class ToolResources(Part, frozen=True, kw_only=True):
    """What hosted tools may use."""

    code_interpreter: CodeInterpreterResources | None = None
    file_search: FileSearchResources | None = None


class RequestJsonSchema(Part, frozen=True, kw_only=True):
    """A schema as sent, with the API's bound on its name."""

    name: Annotated[str, Meta(pattern=_FUNCTION_NAME)]
    description: str | UnsetType = UNSET
    schema: dict[str, Any] | UnsetType = UNSET
    strict: bool | None | UnsetType = UNSET


class RequestResponseFormatJsonSchema(Part, frozen=True, kw_only=True, tag="json_schema"):
    """The `json_schema` format as sent."""

    json_schema: RequestJsonSchema


RequestResponseFormat: TypeAlias = (
    Literal["auto"]
    | ResponseFormatText
    | ResponseFormatJsonObject
    | RequestResponseFormatJsonSchema
)


class RequestTruncationStrategy(Part, frozen=True, kw_only=True):
    """A truncation strategy as sent, with the API's bounds."""

    kind: Literal["auto", "last_messages"] = field(name="type")
    last_messages: Annotated[int, Meta(ge=1, le=MAX_INTEGER)] | None | UnsetType = UNSET


class RequestNamedToolChoice(Part, frozen=True, kw_only=True):
    """A named tool choice as sent."""

    kind: Literal["function", "code_interpreter", "file_search"] = field(name="type")
    function: NamedFunction | UnsetType = UNSET


RequestToolChoice: TypeAlias = Literal["none", "auto", "required"] | RequestNamedToolChoice


class RequestStaticChunking(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of static chunks, in tokens."""

    max_chunk_size_tokens: Annotated[int, Meta(ge=100, le=4096)]
    chunk_overlap_tokens: Annotated[int, Meta(le=MAX_INTEGER)]


class AutoChunking(Part, frozen=True, kw_only=True, tag="auto", forbid_unknown_fields=True):
    """The default chunking."""


class StaticChunking(Part, frozen=True, kw_only=True, tag="static", forbid_unknown_fields=True):
    """Chunks of a chosen size."""

    static: RequestStaticChunking


class RequestVectorStore(Part, frozen=True, kw_only=True):
    """A vector store to be made with the object."""

    file_ids: list[str] | UnsetType = UNSET
    chunking_strategy: AutoChunking | StaticChunking | UnsetType = UNSET
    metadata: RequestMetadata | None | UnsetType = UNSET


class RequestCodeInterpreterResources(Part, frozen=True, kw_only=True):
    """Code interpreter files as sent: at most 20."""

    file_ids: Annotated[list[str], Meta(max_length=20)] | UnsetType = UNSET


class RequestFileSearchResources(Part, frozen=True, kw_only=True):
    """File search stores as sent: at most one, by id or to be made."""

    vector_store_ids: Annotated[list[str], Meta(max_length=1)] | UnsetType = UNSET
    vector_stores: Annotated[list[RequestVectorStore], Meta(max_length=1)] | UnsetType = UNSET


class RequestToolResources(Part, frozen=True, kw_only=True):
    """Tool resources as sent."""

    code_interpreter: RequestCodeInterpreterResources | UnsetType = UNSET
    file_search: RequestFileSearchResources | UnsetType = UNSET
