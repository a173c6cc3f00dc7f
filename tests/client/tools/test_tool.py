"""What may be a tool: functions, methods, partials and objects, and what stays of them."""

from __future__ import annotations

import functools
from typing import Any, NewType

import pytest

from openai_runs import LocalTool, tool

Name = NewType("Name", str)


class Desk:
    """Somebody who answers."""

    def __init__(self, name: str) -> None:
        """Take a name."""
        self.name = name

    def lend(self, to: Name) -> str:
        """Return to whom it is lent; the type is found where the method was written."""
        return f"{self.name} to {to}"

    def plain(self, who: str) -> str:
        """Return a greeting."""
        return f"{self.name} greets {who}"

    @tool(name="ask", timeout=3.0)
    async def marked(self, who: str) -> str:
        """Return an answer."""
        return f"{self.name} answers {who}"

    @classmethod
    def of_class(cls, who: str) -> str:
        """Return the class's greeting."""
        return f"{cls.__name__} greets {who}"

    def __call__(self, who: str) -> str:
        """Return a call."""
        return f"{self.name} calls {who}"


def greet(greeting: str, who: str = "you", *, desk: Desk | None = None) -> str:
    """Return a greeting."""
    return f"{greeting} {who}"


@functools.wraps(greet)
def wrapped(*args: Any, **kwargs: Any) -> str:
    """Call `greet`."""
    return greet(*args, **kwargs).upper()


CALLABLES: dict[str, tuple[Any, str, str]] = {
    "method": (Desk("D").plain, "plain", "D greets x"),
    "class-method": (Desk.of_class, "of_class", "Desk greets x"),
    "object": (Desk("D"), "Desk", "D calls x"),
    "partial": (functools.partial(greet, "Hi", desk=Desk("D")), "greet", "Hi x"),
}


@pytest.mark.parametrize(("function", "name", "said"), CALLABLES.values(), ids=CALLABLES)
def test_callables_of_each_kind_are_tools(function: Any, name: str, said: str) -> None:
    """Methods, partials and objects: what is bound is not shown to the model."""
    local = tool(function)

    assert local.name == name
    assert local.description.startswith("Return ")
    assert list(local.parameters["properties"]) == ["who"]
    assert local.function(**local.read('{"who": "x"}')) == said


@pytest.mark.parametrize("function", [Desk("D").lend, functools.partial(Desk("D").lend)])
def test_types_are_found_where_the_function_was_written(function: Any) -> None:
    """Annotations are texts here: methods and partials know their module too."""
    assert tool(function).parameters["properties"] == {"to": {"type": "string"}}


def test_wrapped_function_is_shown_as_what_it_wraps() -> None:
    """Parameters come from the function inside, the call goes to the outside."""
    local = tool(functools.partial(wrapped, desk=None))

    assert list(local.parameters["properties"]) == ["greeting", "who"]
    assert local(**local.read('{"greeting": "hi"}')) == "HI YOU"


async def test_marked_method_is_a_tool_of_its_instance() -> None:
    """`@tool` in a class: taken from an instance, it is bound to it."""
    local = Desk("D").marked

    assert (local.name, local.timeout, local.is_async) == ("ask", 3.0, True)
    assert list(local.parameters["properties"]) == ["who"]
    assert await local(who="x") == "D answers x"
    assert isinstance(Desk.marked, LocalTool)
    assert Desk.marked.is_unbound


def test_tool_is_called_as_its_function() -> None:
    """The decorator takes nothing away."""

    @tool(name="greeter", description="Greets.")
    def named(greeting: str, who: str) -> str:
        """Return a greeting."""
        return f"{greeting} {who}"

    assert named("Hi", who="x") == "Hi x"
    assert (named.name, named.description, named.is_async) == ("greeter", "Greets.", False)
    assert named.__doc__ == "Return a greeting."
    assert repr(named) == "<LocalTool greeter>"


def test_plain_function_is_read_once() -> None:
    """Its schema is the same object each time; a partial's is not, as it may bind others."""
    assert tool(Desk("A").plain).parameters is tool(Desk("B").plain).parameters
    partial = functools.partial(greet, desk=None)
    assert tool(partial).parameters is not tool(partial).parameters
