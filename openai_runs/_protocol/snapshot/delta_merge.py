"""Pieces of messages and steps, merged by `index`.

A slot merges the pieces of one index: those of a text are joined when it is read, all other fields
have the latest value. It builds the object that the API would return, as far as it is known. Whole
objects are in `snapshot`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

import msgspec

from openai_runs._protocol.lenient import decoder_for
from openai_runs.types.base import Part, Unknown
from openai_runs.types.deltas import (
    CodeInterpreterImageDelta,
    CodeInterpreterLogsDelta,
    CodeInterpreterToolCallDelta,
    FileCitationDelta,
    FilePathDelta,
    FileSearchToolCallDelta,
    FunctionToolCallDelta,
    ImageFileContentDelta,
    ImageFileDelta,
    ImageURLContentDelta,
    ImageURLDelta,
    RefusalContentDelta,
    TextContentDelta,
    UnknownAnnotationDelta,
    UnknownContentDelta,
    UnknownOutputDelta,
    UnknownToolCallDelta,
)
from openai_runs.types.messages import (
    FileCitation,
    FileCitationAnnotation,
    FilePath,
    FilePathAnnotation,
    ImageFile,
    ImageFileContent,
    ImageURL,
    ImageURLContent,
    RefusalContent,
    Text,
    TextContent,
    UnknownAnnotation,
    UnknownContent,
)
from openai_runs.types.runs import UnknownToolCall
from openai_runs.types.steps import (
    CodeInterpreterCall,
    CodeInterpreterImage,
    CodeInterpreterLogs,
    CodeInterpreterToolCall,
    FileSearchCall,
    FileSearchToolCall,
    FunctionCallResult,
    FunctionToolCall,
    OutputImage,
    UnknownOutput,
)

__all__ = ["Slots"]

T = TypeVar("T")

_ABSENT: Final[tuple[Any, ...]] = (None, "", [], {})
_SEARCH: Final = decoder_for(FileSearchCall)


def _filled(later: T, earlier: object) -> T:
    """Return `later`, its absent fields filled from `earlier` where that is of the same kind."""
    if not isinstance(later, Part) or type(later) is not type(earlier):
        return later
    fields: dict[str, Any] = {}
    for name in later.__struct_fields__:
        value, before = getattr(later, name), getattr(earlier, name)
        fields[name] = before if value in _ABSENT else _filled(value, before)
    return type(later)(**fields)


class _Pieces:
    """A text that comes in pieces."""

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def add(self, piece: str | None) -> None:
        if piece:
            self.pieces.append(piece)

    def __str__(self) -> str:
        if len(self.pieces) > 1:  # joined once, so that frequent reads do not join all of it
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""


class _Slot(Protocol):
    """What came for one index."""

    kind: type[Any]
    """The class of its pieces."""

    def add(self, piece: Any) -> None: ...
    def build(self) -> Any: ...


class Slots:
    """What came for the indices of one list."""

    def __init__(self) -> None:
        """Begin with none."""
        self._slots: dict[int, _Slot] = {}

    def __bool__(self) -> bool:
        return bool(self._slots)

    def add(self, pieces: Iterable[Any], whole: Sequence[Any] = ()) -> None:
        """Put each piece to its index.

        Args:
            pieces: Deltas of one list.
            whole: What the list held before the first of them; texts go on from there.
        """
        index, kind, slot = -1, None, None  # most pieces go where the one before them went
        for piece in pieces:
            if type(piece) is not kind or piece.index != index or slot is None:
                if isinstance(piece, Unknown):
                    self._add_unknown(piece)
                    slot = None  # which may be another now
                    continue
                index, kind = piece.index, type(piece)
                slot = self._slots.get(index)
                if slot is None or slot.kind is not kind:
                    slot = self._open(index, kind)
                    if 0 <= index < len(whole) and isinstance(slot, (_TextPart, _RefusalPart)):
                        slot.begin(whole[index])
            slot.add(piece)

    def build(self, whole: Sequence[Any] = ()) -> list[Any]:
        """Return the objects in order of index, without the missing ones.

        Args:
            whole: The list of the last whole object; fills the gaps.
        """
        objects = dict(enumerate(whole))
        for index, slot in self._slots.items():
            objects[index] = _filled(slot.build(), objects.get(index))
        return [objects[index] for index in sorted(objects)]

    def _open(self, index: int, kind: type[Any]) -> _Slot:
        make = _SLOTS.get(kind)
        slot = self._slots[index] = _Latest(kind) if make is None else make()
        return slot

    def _add_unknown(self, piece: Unknown) -> None:
        """Add a piece of an unknown kind, or one of its slot's kind that could not be decoded.

        Servers that pass on the pieces of a chat completion name the kind in the first only.
        A piece that stays unreadable costs only itself, not what came before it.
        """
        index = piece.get("index")
        if type(index) is not int:
            index = max(self._slots, default=-1) + 1
        slot = self._slots.get(index)
        if slot is None or slot.kind is type(piece) or piece.type not in {"", _tag(slot.kind)}:
            self._open(index, type(piece)).add(piece)
            return
        with suppress(msgspec.ValidationError):
            slot.add(msgspec.convert({**piece, "type": _tag(slot.kind)}, slot.kind))


def _tag(kind: type[msgspec.Struct]) -> object:
    return kind.__struct_config__.tag


class _TextPart:
    """A text with its annotations."""

    kind = TextContentDelta

    def __init__(self) -> None:
        self._value = _Pieces()
        self._annotations = Slots()

    def begin(self, whole: object) -> None:
        if isinstance(whole, TextContent):
            self._value.add(whole.text.value)

    def add(self, piece: TextContentDelta) -> None:
        text = piece.text
        if text is not None:
            if text.value:  # a stream is made of these
                self._value.pieces.append(text.value)
            if text.annotations:
                self._annotations.add(text.annotations)

    def build(self) -> TextContent:
        text = Text(value=str(self._value), annotations=self._annotations.build())
        return TextContent(text=text)


class _RefusalPart:
    """The text of a refusal."""

    kind = RefusalContentDelta

    def __init__(self) -> None:
        self._value = _Pieces()

    def begin(self, whole: object) -> None:
        if isinstance(whole, RefusalContent):
            self._value.add(whole.refusal)

    def add(self, piece: RefusalContentDelta) -> None:
        self._value.add(piece.refusal)

    def build(self) -> RefusalContent:
        return RefusalContent(refusal=str(self._value))


class _FunctionCall:
    """A call of one of the caller's functions."""

    kind = FunctionToolCallDelta

    def __init__(self) -> None:
        self._id = self._name = ""
        self._arguments = _Pieces()
        self._output: str | None = None

    def add(self, piece: FunctionToolCallDelta) -> None:
        self._id = piece.id or self._id
        if piece.function is not None:
            self._name = piece.function.name or self._name
            self._arguments.add(piece.function.arguments)
            if piece.function.output is not None:
                self._output = piece.function.output

    def build(self) -> FunctionToolCall:
        function = FunctionCallResult(
            name=self._name, arguments=str(self._arguments), output=self._output
        )
        return FunctionToolCall(id=self._id, function=function)


class _CodeCall:
    """A call of the code interpreter."""

    kind = CodeInterpreterToolCallDelta

    def __init__(self) -> None:
        self._id = ""
        self._input = _Pieces()
        self._outputs = Slots()

    def add(self, piece: CodeInterpreterToolCallDelta) -> None:
        self._id = piece.id or self._id
        if piece.code_interpreter is not None:
            self._input.add(piece.code_interpreter.input)
            self._outputs.add(piece.code_interpreter.outputs or ())

    def build(self) -> CodeInterpreterToolCall:
        call = CodeInterpreterCall(input=str(self._input), outputs=self._outputs.build())
        return CodeInterpreterToolCall(id=self._id, code_interpreter=call)


class _Logs:
    """What the code printed."""

    kind = CodeInterpreterLogsDelta

    def __init__(self) -> None:
        self._logs = _Pieces()

    def add(self, piece: CodeInterpreterLogsDelta) -> None:
        self._logs.add(piece.logs)

    def build(self) -> CodeInterpreterLogs:
        return CodeInterpreterLogs(logs=str(self._logs))


class _Latest:
    """What has no text that comes in pieces: later pieces replace earlier ones."""

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind
        self._piece: Any = None

    def add(self, piece: Any) -> None:
        self._piece = _filled(piece, self._piece)

    def build(self) -> Any:
        return _BUILD[self.kind](self._piece)


_SLOTS: Final[dict[type[Any], Callable[[], _Slot]]] = {
    slot.kind: slot for slot in (_TextPart, _RefusalPart, _FunctionCall, _CodeCall, _Logs)
}


def _file_citation(piece: FileCitationDelta) -> FileCitationAnnotation:
    return FileCitationAnnotation(
        text=piece.text or "",
        file_citation=piece.file_citation or FileCitation(),
        start_index=piece.start_index or 0,
        end_index=piece.end_index or 0,
    )


def _file_path(piece: FilePathDelta) -> FilePathAnnotation:
    return FilePathAnnotation(
        text=piece.text or "",
        file_path=piece.file_path or FilePath(),
        start_index=piece.start_index or 0,
        end_index=piece.end_index or 0,
    )


def _image_file(piece: ImageFileContentDelta) -> ImageFileContent:
    image = piece.image_file or ImageFileDelta()
    return ImageFileContent(image_file=ImageFile(file_id=image.file_id or "", detail=image.detail))


def _image_url(piece: ImageURLContentDelta) -> ImageURLContent:
    image = piece.image_url or ImageURLDelta()
    return ImageURLContent(image_url=ImageURL(url=image.url or "", detail=image.detail))


def _output_image(piece: CodeInterpreterImageDelta) -> CodeInterpreterImage:
    file_id = piece.image.file_id if piece.image is not None else None
    return CodeInterpreterImage(image=OutputImage(file_id=file_id or ""))


def _file_search(piece: FileSearchToolCallDelta) -> FileSearchToolCall | UnknownToolCall:
    try:
        found = _SEARCH.decode(msgspec.json.encode(piece.file_search or {}))
    except msgspec.DecodeError:
        return UnknownToolCall(msgspec.to_builtins(piece))
    return FileSearchToolCall(id=piece.id or "", file_search=found)


def _without_index(kind: type[Unknown]) -> Callable[[Unknown], Unknown]:
    return lambda piece: kind({key: value for key, value in piece.items() if key != "index"})


_BUILD: Final[dict[type[Any], Callable[[Any], Any]]] = {
    FileCitationDelta: _file_citation,
    FilePathDelta: _file_path,
    ImageFileContentDelta: _image_file,
    ImageURLContentDelta: _image_url,
    CodeInterpreterImageDelta: _output_image,
    FileSearchToolCallDelta: _file_search,
    UnknownAnnotationDelta: _without_index(UnknownAnnotation),
    UnknownContentDelta: _without_index(UnknownContent),
    UnknownOutputDelta: _without_index(UnknownOutput),
    UnknownToolCallDelta: _without_index(UnknownToolCall),
}
"""The class of a piece that has no slot of its own -> the object it amounts to."""
