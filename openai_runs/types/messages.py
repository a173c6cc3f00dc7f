"""Messages: the object with its parts, and the bodies that make and change one."""

from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from msgspec import UNSET, Meta, UnsetType, field

from openai_runs._printing import Pairs
from openai_runs.types.base import (
    Answer,
    Metadata,
    Part,
    Request,
    RequestMetadata,
    Unknown,
    null,
)
from openai_runs.types.tools import CodeInterpreterTool, RequestFileSearchTool, Tool

__all__ = [
    "Annotation",
    "Attachment",
    "Content",
    "CreateMessage",
    "FileCitation",
    "FileCitationAnnotation",
    "FilePath",
    "FilePathAnnotation",
    "ImageFile",
    "ImageFileContent",
    "ImageURL",
    "ImageURLContent",
    "IncompleteMessageDetails",
    "Message",
    "MessageRole",
    "RefusalContent",
    "RequestAttachment",
    "RequestContent",
    "RequestImageFile",
    "RequestImageFileContent",
    "RequestImageURL",
    "RequestImageURLContent",
    "RequestTextContent",
    "Text",
    "TextContent",
    "UnknownAnnotation",
    "UnknownContent",
    "UpdateMessage",
]


class MessageRole:
    """Values of a message's `role`."""

    USER: Final = "user"
    ASSISTANT: Final = "assistant"


class UnknownContent(Unknown):
    """A part of a message of a kind this version does not know."""


class UnknownAnnotation(Unknown):
    """An annotation of a kind this version does not know."""


class FileCitation(Part, frozen=True, kw_only=True, gc=False):
    """The file a text cites."""

    file_id: str = ""
    quote: str | None = None
    """The cited words; sent by v1 and in deltas."""


class FileCitationAnnotation(Part, frozen=True, kw_only=True, tag="file_citation"):
    """A place in a text that cites a file."""

    text: str = field(default_factory=str)
    file_citation: FileCitation
    start_index: int = field(default_factory=int)
    end_index: int = field(default_factory=int)


class FilePath(Part, frozen=True, kw_only=True, gc=False):
    """The file a text links to."""

    file_id: str = ""


class FilePathAnnotation(Part, frozen=True, kw_only=True, tag="file_path"):
    """A place in a text that links to a file the run made."""

    text: str = field(default_factory=str)
    file_path: FilePath
    start_index: int = field(default_factory=int)
    end_index: int = field(default_factory=int)


if TYPE_CHECKING:
    Annotation: TypeAlias = FileCitationAnnotation | FilePathAnnotation | UnknownAnnotation
else:  # the mending decoder adds the unknown kind
    Annotation: TypeAlias = FileCitationAnnotation | FilePathAnnotation


class Text(Part, frozen=True, kw_only=True):
    """A text and the places in it that point elsewhere."""

    value: str
    annotations: list[Annotation] = field(default_factory=lambda: [])  # always written


class TextContent(Part, frozen=True, kw_only=True, tag="text"):
    """Text."""

    text: Text


class ImageFile(Part, frozen=True, kw_only=True, gc=False):
    """An uploaded image."""

    file_id: str
    detail: str | None = None
    """`auto`, `low` or `high`."""


class ImageFileContent(Part, frozen=True, kw_only=True, tag="image_file"):
    """An uploaded image."""

    image_file: ImageFile


class ImageURL(Part, frozen=True, kw_only=True, gc=False):
    """An image on the web."""

    url: str
    detail: str | None = None
    """`auto`, `low` or `high`."""


class ImageURLContent(Part, frozen=True, kw_only=True, tag="image_url"):
    """An image on the web."""

    image_url: ImageURL


class RefusalContent(Part, frozen=True, kw_only=True, gc=False, tag="refusal"):
    """The model's words for not answering."""

    refusal: str


if TYPE_CHECKING:
    Content: TypeAlias = (
        TextContent | ImageFileContent | ImageURLContent | RefusalContent | UnknownContent
    )
else:
    Content: TypeAlias = TextContent | ImageFileContent | ImageURLContent | RefusalContent


class Attachment(Part, frozen=True, kw_only=True):
    """A file that came with a message, and the tools that may read it."""

    file_id: str | None = None
    tools: list[Tool] | None = None


class IncompleteMessageDetails(Part, frozen=True, kw_only=True, gc=False):
    """Why a message was broken off."""

    reason: (
        Literal["content_filter", "max_tokens", "run_cancelled", "run_expired", "run_failed"] | str
    )


class Message(Answer, frozen=True, kw_only=True):
    """One message of a thread."""

    id: str
    object: str = field(default_factory=lambda: "thread.message")
    created_at: int = field(default_factory=int)
    """Unix seconds."""
    thread_id: str = field(default_factory=str)
    status: Literal["in_progress", "incomplete", "completed"] | str = field(
        default_factory=lambda: "completed"
    )
    incomplete_details: IncompleteMessageDetails | None = null()
    completed_at: int | None = null()
    """Unix seconds."""
    incomplete_at: int | None = null()
    """Unix seconds."""
    role: Literal["user", "assistant"] | str = field(default_factory=str)
    content: list[Content] = field(default_factory=lambda: [])  # always written
    assistant_id: str | None = null()
    run_id: str | None = null()
    """The run that wrote this message, or that it was created with."""
    attachments: list[Attachment] | None = null()
    metadata: Metadata | None = null()
    """At most 16 pairs, keys of 64 and values of 512 characters."""
    file_ids: list[str] | None = None
    """v1 only."""

    def _printed(self) -> Pairs:
        """Return the text in place of the parts it is in."""
        content = self.content
        if not content or not all(isinstance(part, TextContent) for part in content):
            return super()._printed()
        given = dict(super()._printed())
        del given["content"]
        first = {name: given.pop(name) for name in ("id", "status", "role") if name in given}
        return [*first.items(), ("text", self.text), *given.items()]

    @property
    def text(self) -> str:
        """Return all text parts, one after the other."""
        return "".join(part.text.value for part in self.content if isinstance(part, TextContent))


class RequestTextContent(Part, frozen=True, kw_only=True, tag="text"):
    """Text as sent: the bare words."""

    text: str


class RequestImageFile(Part, frozen=True, kw_only=True):
    """An uploaded image as sent."""

    file_id: str
    detail: Literal["auto", "low", "high"] | UnsetType = UNSET


class RequestImageFileContent(Part, frozen=True, kw_only=True, tag="image_file"):
    """An uploaded image as sent."""

    image_file: RequestImageFile


class RequestImageURL(Part, frozen=True, kw_only=True):
    """An image on the web as sent."""

    url: str
    detail: Literal["auto", "low", "high"] | UnsetType = UNSET


class RequestImageURLContent(Part, frozen=True, kw_only=True, tag="image_url"):
    """An image on the web as sent."""

    image_url: RequestImageURL


RequestContent: TypeAlias = RequestTextContent | RequestImageFileContent | RequestImageURLContent


class RequestAttachment(Part, frozen=True, kw_only=True):
    """A file that goes with a message."""

    file_id: str
    tools: list[CodeInterpreterTool | RequestFileSearchTool]


class CreateMessage(Request, frozen=True, kw_only=True):
    """Body of POST /threads/{thread_id}/messages, and an item of `additional_messages`."""

    role: Literal["user", "assistant"]
    content: str | Annotated[list[RequestContent], Meta(min_length=1)]
    attachments: list[RequestAttachment] | None | UnsetType = UNSET
    metadata: RequestMetadata | None | UnsetType = UNSET


class UpdateMessage(Request, frozen=True, kw_only=True):
    """Body of POST /threads/{thread_id}/messages/{message_id}."""

    metadata: RequestMetadata | None | UnsetType = UNSET
