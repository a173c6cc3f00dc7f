"""Griffe extension: the reference shows each keyword of `**arguments: Unpack[TypedDict]`.

Griffe's own `unpack_typeddict` loses the keywords that a TypedDict inherits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from griffe import Attribute, Class, ExprSubscript, Extension, Function, Parameter, ParameterKind

__all__ = ["UnpackKeywords"]


class UnpackKeywords(Extension):
    """Puts the keywords in place of `**arguments`, whose docstring says which sets they are."""

    def on_function(self, *, func: Function, **_: Any) -> None:
        """Unpack the keywords of a function and of its overloads."""
        for one in (func, *(func.overloads or ())):
            _unpack(one)


def _unpack(func: Function) -> None:
    last = next((one for one in func.parameters if one.kind is ParameterKind.var_keyword), None)
    if last is None or not isinstance(last.annotation, ExprSubscript):
        return
    if last.annotation.canonical_path != "typing.Unpack" or isinstance(last.annotation.slice, str):
        return
    for described in (func, func.parent if func.name == "__init__" else None):
        if described is not None and described.docstring is not None:
            _ = described.docstring.parsed  # kept as read while the signature has `**arguments`
    declared = func.modules_collection[last.annotation.slice.canonical_path]
    del func.parameters[last.name]
    for keyword in _keywords(declared):
        if keyword.name not in func.parameters:
            func.parameters.add(
                Parameter(
                    keyword.name,
                    annotation=keyword.annotation,
                    kind=ParameterKind.keyword_only,
                    default="UNSET",
                )
            )


def _keywords(declared: Class) -> Iterator[Attribute]:
    """Yield what a TypedDict declares, what it inherits first, as Python orders it."""
    for base in declared.resolved_bases:
        if isinstance(base, Class):
            yield from _keywords(base)
    yield from declared.attributes.values()
