"""Annotations that name what is not there when the program runs: alike on every Python.

They are texts under `from __future__ import annotations`. Without it, Python 3.14 evaluates them
when they are asked for (PEP 649), and earlier ones where the function is defined, so that no such
function comes to be.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from openai_runs import tool
from openai_runs._client.tools.json_schema import response_format

IMPORTS = """
import functools, typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Optional, TypedDict
import msgspec
from openai_runs import ToolContext
if TYPE_CHECKING:
    from decimal import Decimal as Hidden
"""
TEXTS = "from __future__ import annotations"
MODES = {"texts": TEXTS}
if sys.version_info >= (3, 14):
    MODES["evaluated-when-asked-for"] = ""
NOT_DEFINED = "name 'Hidden' is not defined"


Define = Callable[[str, str], dict[str, Any]]


@pytest.fixture
def defined(monkeypatch: pytest.MonkeyPatch) -> Define:
    """Return what makes a module of this source, and returns its names."""

    def define(source: str, mode: str) -> dict[str, Any]:
        module = ModuleType("made_up")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        code = compile(f"{mode}\n{IMPORTS}\n{source}", "made_up", "exec", dont_inherit=True)
        exec(code, module.__dict__)
        return module.__dict__

    return define


UNRESOLVED: dict[str, str] = {
    "plain": "def peek(x: Hidden): ...",
    "quoted": "def peek(x: 'Hidden'): ...",
    "within": "def peek(x: dict[str, list[Hidden]]): ...",
    "quoted-within": "def peek(x: list['Hidden']): ...",
    "union": "def peek(x: Hidden | None = None): ...",
    "optional": "def peek(x: Optional['Hidden'] = None): ...",
    "annotated": "def peek(x: Annotated[Hidden, 'it']): ...",
    "attribute": "def peek(x: Hidden.Part): ...",
    "generic": "def peek(x: Hidden[int]): ...",
    "async": "async def peek(x: Hidden): ...",
    "wrapped": """
def peek(x: Hidden): ...
inner = peek
@functools.wraps(inner)
def peek(*args, **kwargs): ...
""",
    "partial": """
def peek(x: Hidden, y: Hidden): ...
peek = functools.partial(peek, y=1)
""",
    "method": """
class Desk:
    def peek(self, x: Hidden): ...
peek = Desk().peek
""",
    "class-method": """
class Desk:
    @classmethod
    def peek(cls, x: Hidden): ...
peek = Desk.peek
""",
    "object": """
class peek:
    def __call__(self, x: Hidden): ...
peek = peek()
""",
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("source", UNRESOLVED.values(), ids=UNRESOLVED)
def test_parameter_of_a_type_that_is_not_there_is_refused_by_name(
    source: str, mode: str, defined: Define
) -> None:
    """One error, in the same words on each Python."""
    with pytest.raises(TypeError) as caught:
        tool(defined(source, mode)["peek"])

    problem = f"the annotation of parameter 'x' cannot be resolved: {NOT_DEFINED}"
    assert str(caught.value) == f"tool 'peek': {problem}"


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_attribute_that_is_not_there_is_refused_by_name(mode: str, defined: Define) -> None:
    """A module may have a name for type checkers alone."""
    with pytest.raises(TypeError) as caught:
        tool(defined("def peek(x: typing.Hidden): ...", mode)["peek"])

    assert str(caught.value) == (
        "tool 'peek': the annotation of parameter 'x' cannot be resolved: "
        "module 'typing' has no attribute 'Hidden'"
    )


RESOLVED: dict[str, str] = {
    "result": "def peek(x: int) -> Hidden: ...",
    "async-result": "async def peek(x: int) -> list[Hidden]: ...",
    "context": "def peek(x: int, context: ToolContext | None = None) -> Hidden: ...",
    "defined-later": "def peek(x: Later) -> Hidden: ...\nLater = int",
    "wrapped": """
def inner(x: int) -> Hidden: ...
@functools.wraps(inner)
def peek(*args, **kwargs): ...
""",
    "bound-by-partial": """
def peek(x: int, y: Hidden) -> Hidden: ...
peek = functools.partial(peek, y=1)
""",
    "method": """
class Desk:
    def peek(self, x: int) -> Hidden: ...
peek = Desk().peek
""",
    "static-method": """
class Desk:
    @staticmethod
    def peek(x: int) -> Hidden: ...
peek = Desk.peek
""",
    "object": """
class peek:
    def __call__(self, x: int) -> Hidden: ...
peek = peek()
""",
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("source", RESOLVED.values(), ids=RESOLVED)
def test_type_that_is_not_there_does_no_harm_where_no_model_fills_it_in(
    source: str, mode: str, defined: Define
) -> None:
    """Results, and what is bound already."""
    local = tool(defined(source, mode)["peek"])

    assert local.parameters["properties"] == {"x": {"type": "integer"}}


def test_type_that_a_function_defines_is_found_where_annotations_are_no_texts(
    defined: Define,
) -> None:
    """A text is looked up in the module; an annotation itself knows where it was written."""
    names = defined("def make():\n Own = int\n def peek(x: Own): ...\n return peek", "")

    assert tool(names["make"]()).parameters["properties"] == {"x": {"type": "integer"}}


FIELDS: dict[str, str] = {
    "dataclass": "@dataclass\nclass Box:\n x: Hidden",
    "typed-dict": "class Box(TypedDict):\n x: Hidden",
    "struct": "class Box(msgspec.Struct):\n x: Hidden",
    "quoted": "class Box(msgspec.Struct):\n x: 'list[Hidden]'",
    "named-tuple": "class Box(typing.NamedTuple):\n x: Hidden",
    "class-variable": "class Box(msgspec.Struct):\n x: typing.ClassVar[Hidden] = 1",
    "deep": "class Part(msgspec.Struct):\n x: Hidden\n@dataclass\nclass Box:\n part: list[Part]",
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("source", FIELDS.values(), ids=FIELDS)
def test_field_of_a_type_that_is_not_there_is_refused(
    source: str, mode: str, defined: Define
) -> None:
    """In a parameter's type as in a `response_format`."""
    names = defined(f"{source}\ndef peek(box: Box): ...", mode)

    with pytest.raises(TypeError) as caught:
        tool(names["peek"])
    with pytest.raises(TypeError) as refused:
        response_format(names["Box"])

    assert str(caught.value) == (
        f"tool 'peek': parameter 'box' cannot be described in JSON: {NOT_DEFINED}"
    )
    assert str(refused.value) == f"Box: {NOT_DEFINED}"
