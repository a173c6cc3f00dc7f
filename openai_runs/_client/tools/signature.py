"""A function's parameters: their JSON schema, and the decoder of its arguments.

Types come from the annotations, descriptions from the docstring.
"""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, Final, Union
from weakref import WeakKeyDictionary

import msgspec
from msgspec import UNSET, UnsetType

from openai_runs._client.encoding import plain
from openai_runs._client.tools.json_schema import ObjectSchema
from openai_runs._client.tools.pydantic_models import is_field, readable
from openai_runs.types.runs import Run

if sys.version_info >= (3, 14):
    from annotationlib import Format

__all__ = ["Parameters", "ToolContext", "docstring_of", "name_of", "parameters_of"]

_SECTION: Final = r"^(?:Args|Arguments|Parameters):\s*$"
_ARGUMENT: Final = r"^(?P<name>\w+)\s*(?:\(.*?\))?:\s*(?P<text>.*)$"
_UNNAMED: Final = {
    inspect.Parameter.POSITIONAL_ONLY: "is positional only",
    inspect.Parameter.VAR_POSITIONAL: "takes any number of values",
    inspect.Parameter.VAR_KEYWORD: "takes any names",
}
"""Kinds of parameters that a model cannot give by name."""
_Hints = list[tuple[inspect.Parameter, Any]]
"""Parameters with their types; pairs, since a parameter with a list as its default has no hash."""


class ToolContext(msgspec.Struct, frozen=True, kw_only=True):
    """The call that a tool answers: annotate a parameter with it.

    The parameter is filled in by the client and not shown to the model.
    """

    run: Run
    """The run that waits for this call, as it was when it began to wait."""
    call_id: str
    """The call's id; the same if the call is answered again by another process."""

    @property
    def thread_id(self) -> str:
        """Return the id of the run's thread."""
        return self.run.thread_id

    @property
    def run_id(self) -> str:
        """Return the run's id."""
        return self.run.id


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a function: their schema, and the decoder of arguments."""

    reader: ObjectSchema[Any]
    schema: dict[str, Any]
    """The JSON schema, with the docstring's descriptions in it."""
    context: str | None
    """The parameter that takes a `ToolContext`."""
    is_unbound: bool
    """Whether the first one is the `self` of an unbound method."""

    def read(self, text: str) -> dict[str, Any]:
        """Return the arguments that `text` holds, by name, without those left out.

        Raises:
            msgspec.MsgspecError: They are no JSON, or do not fit; the message names the path.
            RecursionError: They are nested too deeply.
            UnicodeError: They are no text.
        """
        # Some models write an empty text for a function without parameters.
        given = self.reader.decode(text if text.strip() else "{}")
        found = {name: getattr(given, name) for name in given.__struct_fields__}
        return {name: value for name, value in found.items() if value is not UNSET}


_KNOWN: Final[WeakKeyDictionary[Any, dict[bool, Parameters]]] = WeakKeyDictionary()
"""By function, and whether it is bound: parsed once for each."""


def parameters_of(function: Any, tool_name: str) -> Parameters:
    """Return the parsed parameters of the function; `tool_name` is for errors.

    Raises:
        TypeError: A parameter has no annotation, one without a JSON schema, or is of a kind
            that cannot be given by name.
    """
    key = getattr(function, "__func__", function)
    if not inspect.isfunction(key):  # a partial has its own bound arguments
        return _read(function, f"tool {tool_name!r}")
    known = _KNOWN.setdefault(key, {})
    is_bound = key is not function
    if is_bound not in known:
        known[is_bound] = _read(function, f"tool {tool_name!r}")
    return known[is_bound]


def name_of(function: Any) -> str:
    """Return the function's name; for a callable object its class's."""
    innermost = _innermost(function)
    return str(getattr(innermost, "__name__", type(innermost).__name__))


def docstring_of(function: Any) -> str:
    """Return the function's docstring; for a callable object that of `__call__` or its class."""
    innermost = _innermost(function)
    if not inspect.isroutine(innermost) and innermost.__call__.__doc__:
        innermost = innermost.__call__
    return inspect.getdoc(innermost) or ""


def _innermost(function: Any) -> Any:
    """Return the function inside wrappers and partials."""
    while isinstance(function, partial) or hasattr(function, "__wrapped__"):
        function = function.func if isinstance(function, partial) else function.__wrapped__
    return function


def _read(function: Any, what: str) -> Parameters:
    try:
        signature = _signature_of(function)
    except ValueError as error:
        msg = f"{what}: its parameters cannot be read ({error})"
        raise TypeError(msg) from error
    bound = function.keywords if isinstance(function, partial) else {}
    given = [one for one in signature.parameters.values() if one.name not in bound]
    is_unbound = bool(given) and given[0].name == "self" and given[0].annotation is given[0].empty
    hints = [(one, _hint_of(function, one, what)) for one in given[is_unbound:]]
    contexts = [one.name for one, hint in hints if _is_context(hint)]
    shown = [(one, hint) for one, hint in hints if one.name not in contexts]
    reader = _reader_of(shown, what)
    parameters = [one for one, _ in shown]
    return Parameters(
        reader=reader,
        schema=_described(reader.json_schema, docstring_of(function), parameters),
        context=contexts[0] if contexts else None,
        is_unbound=is_unbound,
    )


def _signature_of(function: Any) -> inspect.Signature:
    """Return the signature, also where an annotation names what is not there.

    Whether that matters is known parameter by parameter: the return type, or what a partial has
    bound, may be such a one.
    """
    if sys.version_info >= (3, 14):  # annotations are evaluated here, and no more by `def`
        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def _hint_of(function: Any, one: inspect.Parameter, what: str) -> Any:
    """Return the parameter's type, with names looked up where the function was written."""
    if one.kind in _UNNAMED:
        msg = f"{what}: parameter {one.name!r} {_UNNAMED[one.kind]}; a model gives each by its name"
        raise TypeError(msg)
    if one.annotation is one.empty:
        msg = (
            f"{what}: parameter {one.name!r} has no annotation; write one, such as {one.name}: str"
        )
        raise TypeError(msg)
    if is_field(one.default):
        msg = f"{what}: parameter {one.name!r} has Field() as its default; write Annotated[...]"
        raise TypeError(msg)
    innermost = _innermost(function)
    home = innermost if inspect.isroutine(innermost) else innermost.__call__
    holder = SimpleNamespace(
        __annotations__={one.name: one.annotation}, __globals__=getattr(home, "__globals__", {})
    )
    try:
        return typing.get_type_hints(holder, include_extras=True)[one.name]
    except Exception as error:  # an annotation is any expression
        msg = f"{what}: the annotation of parameter {one.name!r} cannot be resolved: {error}"
        raise TypeError(msg) from error


def _is_context(hint: Any) -> bool:
    return hint is ToolContext or ToolContext in typing.get_args(hint)


def _reader_of(hints: _Hints, what: str) -> ObjectSchema[Any]:
    try:
        return ObjectSchema(_arguments_type(hints))
    except TypeError as error:
        for one, hint in hints:  # find the one that fails
            try:
                ObjectSchema(_arguments_type([(one, hint)]))
            except TypeError as cause:
                reason = str(cause).removeprefix("_Arguments: ")
                msg = f"{what}: parameter {one.name!r} cannot be described in JSON: {reason}"
                raise TypeError(msg) from cause
        msg = f"{what}: its parameters cannot be described in JSON: {error}"
        raise TypeError(msg) from error


def _arguments_type(hints: _Hints) -> type:
    # UNSET where the model leaves a parameter out: the function's own default is used.
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [
        (one.name, hint) if one.default is one.empty else (one.name, _or_unset(hint), UNSET)
        for one, hint in ((one, readable(hint)) for one, hint in hints)
    ]
    return msgspec.defstruct(
        "_Arguments", fields, module=__name__, kw_only=True, forbid_unknown_fields=True
    )


def _or_unset(hint: Any) -> Any:
    metadata = getattr(hint, "__metadata__", ())
    try:
        hash(hint)
    except TypeError:
        if not metadata:
            raise
        # Something in `Annotated` has no hash; only bounds and descriptions mean anything here.
        ours = [one for one in metadata if isinstance(one, msgspec.Meta)]
        bare = hint.__origin__
        hint = Annotated[(bare, *ours)] if ours else bare
    return Union[hint, UnsetType]  # noqa: UP007 - `|` refuses some hints


def _described(
    schema: dict[str, Any], docstring: str, parameters: list[inspect.Parameter]
) -> dict[str, Any]:
    """Return the schema with the parameters' defaults and the docstring's descriptions."""
    texts = dict(_argument_texts(docstring))
    properties = {name: dict(part) for name, part in schema["properties"].items()}
    for one in parameters:
        if one.name in texts:
            properties[one.name].setdefault("description", texts[one.name])
        if one.default is not one.empty and one.default is not None:
            try:
                properties[one.name]["default"] = plain(one.default)
            except (TypeError, ValueError):
                continue  # no JSON: left out of the schema
    rest = {name: value for name, value in schema.items() if name != "title"}
    return {**rest, "properties": properties}


def _argument_texts(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of each line of a Google-style `Args:` section."""
    lines = iter(docstring.splitlines())
    if not any(re.match(_SECTION, line) for line in lines):
        return
    margin, name, parts = None, "", [""]
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip() and not indent:
            break  # the next section
        margin = indent if margin is None else margin
        found = re.match(_ARGUMENT, line.strip()) if indent == margin else None
        if found is not None:
            yield name, " ".join(parts)
            name, parts = found["name"], [found["text"]]
        elif line.strip():
            parts.append(line.strip())
    yield name, " ".join(parts)
