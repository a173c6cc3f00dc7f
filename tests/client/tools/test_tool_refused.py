"""Functions that cannot be tools, and options that cannot work: said before anything is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from openai_runs import AsyncClient, tool
from openai_runs._client.tools.tool import as_sent
from tests.client.tools.describing import names_of_two_types, required
from tests.support import HostileServer

if TYPE_CHECKING:
    from decimal import Decimal as Hidden


class Mine:
    """A class of which JSON knows nothing."""

    def method(self, x: int) -> None:
        """Do nothing."""


def unannotated(a: int, b) -> None:  # type: ignore[no-untyped-def]
    """Leave `b` open."""


def positional(a: int, /) -> None:
    """Take `a` by its place."""


def variadic(*rest: int) -> None:
    """Take any number."""


def keywords(**rest: int) -> None:
    """Take any name."""


def unresolved(a: int, b: Hidden) -> Hidden:
    """Name a type that is not there when the program runs."""
    return b


def undescribed(a: int, b: Mine) -> None:
    """Take what has no JSON schema."""


async def yielding(a: int) -> AsyncIterator[int]:
    """Yield."""
    yield a


REFUSED: dict[str, tuple[Any, str]] = {
    "no-annotation": (unannotated, "tool 'unannotated': parameter 'b' has no annotation"),
    "positional-only": (positional, "tool 'positional': parameter 'a' is positional only"),
    "variadic": (variadic, "tool 'variadic': parameter 'rest' takes any number of values"),
    "keywords": (keywords, "tool 'keywords': parameter 'rest' takes any names"),
    "unresolved": (
        unresolved,
        "tool 'unresolved': the annotation of parameter 'b' cannot be resolved: name 'Hidden'",
    ),
    "undescribed": (
        undescribed,
        "tool 'undescribed': parameter 'b' cannot be described in JSON: type <class",
    ),
    "yielding": (yielding, "tool 'yielding' is an async generator; return a list instead"),
    "builtin": (iter, "tool 'iter': its parameters cannot be read"),
}


@pytest.mark.parametrize(("function", "problem"), REFUSED.values(), ids=REFUSED)
def test_function_that_cannot_be_a_tool_is_refused_by_name(function: Any, problem: str) -> None:
    """The error names the function and the parameter."""
    with pytest.raises(TypeError) as caught:
        tool(function)

    assert str(caught.value).startswith(problem)


def test_parameters_whose_types_share_a_name_are_not_mixed_up() -> None:
    """Each is described for itself; msgspec before 0.23 can only refuse the two."""
    one, other = (msgspec.defstruct("Same", [(field, int)]) for field in ("a", "b"))

    def peek(a: int, b: int) -> None: ...

    peek.__annotations__.update(a=one, b=other)

    with names_of_two_types("tool 'peek': its parameters .* two types have the name 'Same'"):
        schema = tool(peek).parameters
        assert [required(schema, name) for name in ("a", "b")] == [["a"], ["b"]]


def test_return_type_that_is_not_there_does_no_harm() -> None:
    """Only what the model fills in needs to be known."""

    @tool
    def peek(a: int) -> Hidden: ...  # type: ignore[empty-body]

    assert peek.read('{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 65, "a.b", "a\n", 3])
def test_name_that_no_tool_may_have_is_refused(name: Any) -> None:
    """By the API's own rule."""
    with pytest.raises(ValueError, match="must be 1 to 64 of"):
        tool(name=name)(Mine().method)


def test_lambda_needs_a_name() -> None:
    """`<lambda>` is none, and the error says how to give one."""
    with pytest.raises(ValueError, match=r"@tool\(name=\.\.\.\)"):
        tool(lambda: 1)

    assert tool(lambda: 1, name="one").name == "one"


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_time_out_that_cannot_be_is_refused(timeout: float) -> None:
    """As everywhere."""
    with pytest.raises(ValueError, match="timeout must be more than 0"):
        tool(timeout=timeout)(Mine().method)


LISTS: dict[str, tuple[Any, type[Exception], str]] = {
    "one-function": (Mine().method, TypeError, "tools must be a list"),
    "one-definition": ({"type": "file_search"}, TypeError, "tools must be a list"),
    "text": ("file_search", TypeError, "tools must be a list"),
    "number": (3, TypeError, "tools must be a list"),
    "class": ([Mine], TypeError, "Mine is a class"),
    "unbound": (
        [Mine.method],
        TypeError,
        "tool 'method' is an unbound method: pass the method of an instance",
    ),
    "twice": ([Mine().method, Mine().method], ValueError, "two tools are named 'method'"),
}


@pytest.mark.parametrize(("tools", "kind", "problem"), LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("method", ["run_tools", "resume", "create"])
async def test_list_that_is_none_is_refused_before_any_request(
    tools: Any, kind: type[Exception], problem: str, method: str
) -> None:
    """Whichever call it is given to."""
    ids: dict[str, Any] = {"assistant_id": "asst_1"}
    if method == "resume":
        ids = {"thread_id": "thread_1"}
    async with (
        HostileServer(lambda request: pytest.fail(request.path)) as server,
        AsyncClient(server.url) as client,
    ):
        with pytest.raises(kind, match=problem):
            await getattr(client.runs, method)("x_1", tools=tools, **ids)


OPTIONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "max_parallel": ({"max_parallel": 0}, ValueError, "max_parallel must be 1 or more"),
    "max_rounds": ({"max_rounds": True}, TypeError, "max_rounds must be a whole number"),
    "max_output_bytes": ({"max_output_bytes": 1.5}, TypeError, "max_output_bytes must be a whole"),
    "tool_timeout": ({"tool_timeout": 0}, ValueError, "tool_timeout must be more than 0"),
    "approve": ({"approve": True}, TypeError, "approve must be callable"),
    "on_tool_call": ({"on_tool_call": []}, TypeError, "on_tool_call must be callable"),
    "unknown": ({"paralel": 1}, TypeError, "unexpected keyword argument 'paralel'"),
    "timeout": ({"timeout": 0}, ValueError, "timeout must be more than 0"),
}


@pytest.mark.parametrize(("options", "kind", "problem"), OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("method", ["run_tools", "resume"])
async def test_option_out_of_bounds_is_refused_before_any_request(
    options: dict[str, Any], kind: type[Exception], problem: str, method: str
) -> None:
    """Each names itself."""
    ids = {"thread_id": "thread_1"} if method == "resume" else {"assistant_id": "asst_1"}
    async with (
        HostileServer(lambda request: pytest.fail(request.path)) as server,
        AsyncClient(server.url) as client,
    ):
        with pytest.raises(kind, match=problem):
            await getattr(client.runs, method)("x_1", tools=[], **ids, **options)


def test_definitions_are_passed_on_among_functions() -> None:
    """In their order; mappings and Structs stay as they are."""
    hosted = {"type": "file_search"}

    sent: Any = as_sent(iter([hosted, Mine().method]))

    assert sent[0] is hosted
    assert sent[1]["function"]["name"] == "method"
