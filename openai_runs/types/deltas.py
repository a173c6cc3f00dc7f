"""Deltas: the pieces of messages and steps that arrive in a stream.

Pieces of the same `index` belong together at each level of nesting. What a piece does not
speak of is None.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import field

from openai_runs._printing import Pairs
from openai_runs.types.base import Part, Unknown
from openai_runs.types.messages import FileCitation, FilePath
from openai_runs.types.steps import MessageCreation

__all__ = [
    "AnnotationDelta",
    "CodeInterpreterCallDelta",
    "CodeInterpreterImageDelta",
    "CodeInterpreterLogsDelta",
    "CodeInterpreterOutputDelta",
    "CodeInterpreterToolCallDelta",
    "ContentDelta",
    "FileCitationDelta",
    "FilePathDelta",
    "FileSearchToolCallDelta",
    "FunctionCallDelta",
    "FunctionToolCallDelta",
    "ImageFileContentDelta",
    "ImageFileDelta",
    "ImageURLContentDelta",
    "ImageURLDelta",
    "MessageCreationDelta",
    "MessageDelta",
    "MessageDeltaBody",
    "OutputImageDelta",
    "RefusalContentDelta",
    "RunStepDelta",
    "RunStepDeltaBody",
    "StepDetailsDelta",
    "TextContentDelta",
    "TextDelta",
    "ToolCallDelta",
    "ToolCallsDelta",
    "UnknownAnnotationDelta",
    "UnknownContentDelta",
    "UnknownOutputDelta",
    "UnknownStepDetailsDelta",
    "UnknownToolCallDelta",
]


class UnknownAnnotationDelta(Unknown):
    """A piece of an annotation of a kind this version does not know."""


class UnknownContentDelta(Unknown):
    """A piece of a message part of a kind this version does not know."""


class UnknownOutputDelta(Unknown):
    """A piece of a code interpreter output of a kind this version does not know."""


class UnknownToolCallDelta(Unknown):
    """A piece of a tool call of a kind this version does not know."""


class UnknownStepDetailsDelta(Unknown):
    """A piece of step details of a kind this version does not know."""


class FileCitationDelta(Part, frozen=True, kw_only=True, gc=False, tag="file_citation"):
    """A place in the text that cites a file, or more of one."""

    index: int
    text: str | None = None
    file_citation: FileCitation | None = None
    start_index: int | None = None
    end_index: int | None = None


class FilePathDelta(Part, frozen=True, kw_only=True, gc=False, tag="file_path"):
    """A place in the text that links to a file the run made, or more of one."""

    index: int
    text: str | None = None
    file_path: FilePath | None = None
    start_index: int | None = None
    end_index: int | None = None


if TYPE_CHECKING:
    AnnotationDelta: TypeAlias = FileCitationDelta | FilePathDelta | UnknownAnnotationDelta
else:  # the mending decoder adds the unknown kind
    AnnotationDelta: TypeAlias = FileCitationDelta | FilePathDelta


class TextDelta(Part, frozen=True, kw_only=True, gc=False):
    """More text, and more of the places in it that point elsewhere."""

    value: str | None = None
    annotations: list[AnnotationDelta] | None = None


class TextContentDelta(Part, frozen=True, kw_only=True, gc=False, tag="text"):
    """More of a text part."""

    index: int
    text: TextDelta | None = None


class ImageFileDelta(Part, frozen=True, kw_only=True, gc=False):
    """An uploaded image, or more of what is known of it."""

    file_id: str | None = None
    detail: str | None = None


class ImageFileContentDelta(Part, frozen=True, kw_only=True, gc=False, tag="image_file"):
    """An uploaded image."""

    index: int
    image_file: ImageFileDelta | None = None


class ImageURLDelta(Part, frozen=True, kw_only=True, gc=False):
    """An image on the web, or more of what is known of it."""

    url: str | None = None
    detail: str | None = None


class ImageURLContentDelta(Part, frozen=True, kw_only=True, gc=False, tag="image_url"):
    """An image on the web."""

    index: int
    image_url: ImageURLDelta | None = None


class RefusalContentDelta(Part, frozen=True, kw_only=True, gc=False, tag="refusal"):
    """More of the model's words for not answering."""

    index: int
    refusal: str | None = None


if TYPE_CHECKING:
    ContentDelta: TypeAlias = (
        TextContentDelta
        | ImageFileContentDelta
        | ImageURLContentDelta
        | RefusalContentDelta
        | UnknownContentDelta
    )
else:
    ContentDelta: TypeAlias = (
        TextContentDelta | ImageFileContentDelta | ImageURLContentDelta | RefusalContentDelta
    )


class MessageDeltaBody(Part, frozen=True, kw_only=True, gc=False):
    """What is new of a message."""

    role: str | None = None
    content: list[ContentDelta] | None = None


class MessageDelta(Part, frozen=True, kw_only=True, gc=False):
    """A piece of a message."""

    id: str
    """The message's id."""
    object: str = field(default_factory=lambda: "thread.message.delta")
    delta: MessageDeltaBody

    @property
    def text(self) -> str:
        """Return the new text of all text parts."""
        new = [
            part.text.value
            for part in self.delta.content or ()
            if isinstance(part, TextContentDelta) and part.text is not None and part.text.value
        ]
        return new[0] if len(new) == 1 else "".join(new)

    def _printed(self) -> Pairs:
        """Return the text in place of the parts it is in."""
        return [("id", self.id), ("text", self.text)] if self.text else super()._printed()


class OutputImageDelta(Part, frozen=True, kw_only=True, gc=False):
    """An image the code made."""

    file_id: str | None = None


class CodeInterpreterLogsDelta(Part, frozen=True, kw_only=True, gc=False, tag="logs"):
    """More of what the code printed."""

    index: int
    logs: str | None = None


class CodeInterpreterImageDelta(Part, frozen=True, kw_only=True, gc=False, tag="image"):
    """An image the code made."""

    index: int
    image: OutputImageDelta | None = None


if TYPE_CHECKING:
    CodeInterpreterOutputDelta: TypeAlias = (
        CodeInterpreterLogsDelta | CodeInterpreterImageDelta | UnknownOutputDelta
    )
else:
    CodeInterpreterOutputDelta: TypeAlias = CodeInterpreterLogsDelta | CodeInterpreterImageDelta


class CodeInterpreterCallDelta(Part, frozen=True, kw_only=True, gc=False):
    """More code, and more of what came of it."""

    input: str | None = None
    outputs: list[CodeInterpreterOutputDelta] | None = None


class CodeInterpreterToolCallDelta(
    Part, frozen=True, kw_only=True, gc=False, tag="code_interpreter"
):
    """A piece of a call of the code interpreter."""

    index: int
    id: str | None = None
    code_interpreter: CodeInterpreterCallDelta | None = None


class FileSearchToolCallDelta(Part, frozen=True, kw_only=True, gc=False, tag="file_search"):
    """A piece of a call of file search."""

    index: int
    id: str | None = None
    file_search: dict[str, Any] | None = None


class FunctionCallDelta(Part, frozen=True, kw_only=True, gc=False):
    """More of a function call."""

    name: str | None = None
    arguments: str | None = None
    """More JSON text."""
    output: str | None = None


class FunctionToolCallDelta(Part, frozen=True, kw_only=True, gc=False, tag="function"):
    """A piece of a call of one of the caller's functions."""

    index: int
    id: str | None = None
    function: FunctionCallDelta | None = None


if TYPE_CHECKING:
    ToolCallDelta: TypeAlias = (
        CodeInterpreterToolCallDelta
        | FileSearchToolCallDelta
        | FunctionToolCallDelta
        | UnknownToolCallDelta
    )
else:
    ToolCallDelta: TypeAlias = (
        CodeInterpreterToolCallDelta | FileSearchToolCallDelta | FunctionToolCallDelta
    )


class MessageCreationDelta(Part, frozen=True, kw_only=True, gc=False, tag="message_creation"):
    """The step writes a message."""

    message_creation: MessageCreation | None = None


class ToolCallsDelta(Part, frozen=True, kw_only=True, gc=False, tag="tool_calls"):
    """More of the step's tool calls."""

    tool_calls: list[ToolCallDelta] | None = None


if TYPE_CHECKING:
    StepDetailsDelta: TypeAlias = MessageCreationDelta | ToolCallsDelta | UnknownStepDetailsDelta
else:
    StepDetailsDelta: TypeAlias = MessageCreationDelta | ToolCallsDelta


class RunStepDeltaBody(Part, frozen=True, kw_only=True, gc=False):
    """What is new of a step."""

    step_details: StepDetailsDelta | None = None


class RunStepDelta(Part, frozen=True, kw_only=True, gc=False):
    """A piece of a run step."""

    id: str
    """The step's id."""
    object: str = field(default_factory=lambda: "thread.run.step.delta")
    delta: RunStepDeltaBody
