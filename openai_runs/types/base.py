"""What all objects on the wire share: open answers, closed requests, unknown data.

Answers are read as the server sent them: fields we do not know are skipped, fields
that are missing take their default. A variant of a union that we do not know becomes
an `Unknown` (a dict with its raw JSON), so it costs only itself. Requests are closed:
a key that is not declared is a mistake of the sender.

The modules here go without `from __future__ import annotations`: msgspec reads all annotations
at import, and would have to compile each from its text.
"""

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypeVar

import msgspec
from msgspec import Meta, field

from openai_runs._printing import Pairs, Printed, shown, table
from openai_runs.config import REPR_CHARS

if TYPE_CHECKING:
    from openai_runs.types.http import HTTPInfo

__all__ = [
    "ACTIVE_STATUSES",
    "ADOPTION_KEY",
    "TERMINAL_STATUSES",
    "Answer",
    "Deleted",
    "Metadata",
    "Page",
    "Part",
    "Request",
    "RequestMetadata",
    "SortOrder",
    "Unknown",
    "UnknownItem",
    "null",
]

ACTIVE_STATUSES: Final = frozenset({"queued", "in_progress", "requires_action", "cancelling"})
"""Statuses of a run that is not finished."""
TERMINAL_STATUSES: Final = frozenset({"completed", "failed", "cancelled", "incomplete", "expired"})
"""Statuses after which nothing but the metadata changes."""
ADOPTION_KEY: Final = "openai_runs_key"
"""The metadata pair that marks a create of ours; never shown to the caller."""

Metadata = dict[str, str]
"""Metadata as answered: the API allows 16 pairs, keys of 64 and values of 512 characters."""
RequestMetadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=16),
]
"""Metadata as sent: at most 16 pairs, keys of 64 and values of 512 characters."""

T = TypeVar("T")


def null() -> Any:
    """Return a field that is null when absent, and written as null.

    For fields the API always sends. With `omit_defaults` only a plain default is left out
    of the JSON; one made by a factory is written.
    """
    return field(default_factory=NoneType)  # called for each absent field: no Python function


class Unknown(dict[str, Any]):
    """A part of an answer whose kind this version does not know: its raw JSON object."""

    @property
    def type(self) -> str:
        """Return what the server calls this kind, or an empty text."""
        value = self.get("type")
        return value if isinstance(value, str) else ""

    @property
    def raw(self) -> dict[str, Any]:
        """Return the JSON object as it was sent."""
        return dict(self)

    def __repr__(self) -> str:
        """Show that this kind is not known, and the beginning of its JSON."""
        name = type(self).__name__
        return f"{name}({shown(self, REPR_CHARS - len(name))})"


class UnknownItem(Unknown):
    """An item of a list that could not be read as what the list holds.

    Attribute access reads the raw JSON, so `item.id` and `item.status` work where present.
    """

    def __getattr__(self, name: str) -> Any:
        """Return the raw JSON's value of that name."""
        try:
            return self[name]
        except KeyError:
            message = f"unreadable list item has no {name!r}"
            raise AttributeError(message) from None


class Part(Printed, msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of an object; variants of a union name their kind as their tag.

    Pieces of texts and numbers only are `gc=False`: they cannot be part of a cycle, and the
    garbage collector would take longer for a list of runs than decoding it does.
    """

    @property
    def type(self) -> str:
        """Return the wire's `type` of this variant."""
        return str(self.__struct_config__.tag or "")


class Answer(Printed, msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """An object the API answers with. Immutable; unknown fields are skipped."""

    @property
    def http(self) -> "HTTPInfo | None":
        """Return the answer this object came in; None on list items and on copies."""
        return self.__dict__.get("_http")

    def to_dict(self) -> dict[str, Any]:
        """Return the wire's JSON object, unknown fields included where `.http` is there."""
        http = self.http
        if http is not None:
            wire = msgspec.json.decode(http.content)
            if isinstance(wire, dict):
                return _without_adoption_key(wire)
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the wire's JSON text.

        Args:
            indent: Spaces for each level; None: all on one line.
        """
        return _dump(self.to_dict(), indent)

    def model_dump(self, *, exclude_none: bool = False, mode: str = "json") -> dict[str, Any]:
        """Return `to_dict()`, under the official SDK's name; `mode` changes nothing.

        Args:
            exclude_none: Leave out what is null, at every level.
            mode: Taken, and without effect: the wire's JSON is all there is.
        """
        wire = self.to_dict()
        return _without_none(wire) if exclude_none else wire

    def model_dump_json(self, *, indent: int | None = None, exclude_none: bool = False) -> str:
        """Return `to_json()`, under the official SDK's name.

        Args:
            indent: Spaces for each level; None: all on one line.
            exclude_none: Leave out what is null, at every level.
        """
        return _dump(self.model_dump(exclude_none=exclude_none), indent)

    def __iter__(self) -> Iterator[Any]:
        """Yield (name, value) pairs of the wire's JSON, as FastAPI's encoder asks for."""
        return iter(self.to_dict().items())

    def __copy__(self) -> Any:
        """Return an equal object without `.http`."""
        return msgspec.structs.replace(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the fields; `.http` stays behind."""
        return _revive, (type(self), msgspec.structs.asdict(self))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Let FastAPI use answers as response models without a pydantic model of ours."""
        from pydantic_core import core_schema  # only where pydantic asks

        return core_schema.no_info_plain_validator_function(
            lambda value: value,
            serialization=core_schema.plain_serializer_function_ser_schema(_to_wire),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        """Describe answers as plain objects in a FastAPI application's own schema."""
        return {"type": "object", "title": cls.__name__}


class Page(Answer, Generic[T], frozen=True, kw_only=True):
    """One page of a list, newest first unless asked otherwise."""

    object: str = field(default_factory=lambda: "list")
    data: list[T]
    first_id: str | None = null()
    """Id of the first item; null on an empty page."""
    last_id: str | None = null()
    """Id of the last item, the cursor of the next page; null on an empty page."""
    has_more: bool = field(default_factory=bool)
    """Whether another page follows in the direction of travel."""

    async def next_page(self) -> "Page[T] | None":
        """Return the page that follows, or None after the last.

        Endpoint: the one this page came from, with the cursor moved on.

        Raises:
            RuntimeError: This page is a copy, or was not made by a list call.
            APIError: The request failed.

        Cancellation: closes the request; the page stays usable.
        """
        follow = self.__dict__.get("_follow")
        if follow is None:
            message = "this page does not come from a list call, so it has no next page"
            raise RuntimeError(message)
        following: Page[T] | None = await follow(self)
        return following

    def _printed(self) -> Pairs:
        """Return the items; whether there are more comes first."""
        return [("has_more", True)] * self.has_more + [("data", self.data)]

    def _repr_markdown_(self) -> str:
        """Return a table of the items, for a notebook."""
        count = f"{len(self.data)} {'item' if len(self.data) == 1 else 'items'}"
        more = ", and more follow: `await page.next_page()`" if self.has_more else ""
        return (
            f"**Page** of {count}{more}\n\n{table(self.data)}"
            if self.data
            else f"**Page** of {count}"
        )

    def keys(self) -> Iterator[str]:
        """Return the names of the wire's JSON, so that `dict(page)` is that JSON."""
        return iter(self.to_dict())

    def __getitem__(self, name: str) -> Any:
        """Return the value of that name in the wire's JSON."""
        return self.to_dict()[name]

    def __iter__(self) -> Iterator[T]:
        """Yield the items of this page."""
        return iter(self.data)

    def __len__(self) -> int:
        """Return how many items this page has."""
        return len(self.data)

    def __bool__(self) -> bool:
        """Be true even when empty, as other answers are."""
        return True


class Deleted(Answer, frozen=True, kw_only=True):
    """What a delete answers with."""

    id: str
    object: str = field(default_factory=str)
    deleted: bool = field(default_factory=bool)


class Request(Printed, msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body that is sent. Immutable; undeclared keys are refused."""


class SortOrder:
    """Values of a list's `order`: by creation time."""

    ASC: Final = "asc"
    DESC: Final = "desc"


def _to_wire(value: Any) -> Any:
    return value.to_dict() if isinstance(value, Answer) else value


def _revive(cls: type[Answer], fields: Mapping[str, Any]) -> Answer:
    return cls(**fields)


def _dump(value: Any, indent: int | None) -> str:
    text = msgspec.json.encode(value)
    return (text if indent is None else msgspec.json.format(text, indent=indent)).decode()


def _without_adoption_key(wire: dict[str, Any]) -> dict[str, Any]:
    items = wire["data"] if isinstance(wire.get("data"), list) else [wire]
    for item in items:
        metadata = item.get("metadata") if isinstance(item, dict) else None
        if isinstance(metadata, dict):
            metadata.pop(ADOPTION_KEY, None)
    return wire


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
