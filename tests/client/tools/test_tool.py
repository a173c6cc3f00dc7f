"""What may be a tool: functions, methods, partials and objects, and what stays of them."""

from __future__ import annotations

import functools
from typing import Annotated, Any, NewType

import msgspec
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


class Place(msgspec.Struct):
    """Where somebody is; two are equal, so none has a hash."""

    city: str = "Oslo"


def tagged(
    tags: list[str] = [],  # noqa: B006 - what is tested
    counts: dict[str, int] = {},  # noqa: B006
    seen: set[int] = set(),  # noqa: B006
    place: Place = Place(),  # noqa: B008
) -> str:
    """Return what it was given."""
    return f"{tags} {counts} {sorted(seen)} {place.city}"


def test_function_with_a_default_without_a_hash_is_a_tool() -> None:
    """It gets its own default where the model leaves the argument out."""
    made = tool(tagged)

    assert made.parameters["properties"]["tags"]["default"] == []
    assert made.parameters["properties"]["counts"]["default"] == {}
    assert made.parameters.get("required", []) == []
    assert made.function(**made.read("{}")) == tagged()
    assert made.function(**made.read('{"tags": ["a"]}')) == tagged(["a"])


def test_annotation_without_a_hash_is_no_hindrance() -> None:
    """Bounds among its metadata are kept, and so is the default."""

    def counted(
        number: Annotated[int, {"unit": "m"}, msgspec.Meta(ge=1)] = 2,
        name: Annotated[str, ["odd"]] = "x",
    ) -> str:
        return f"{number} {name}"

    made = tool(counted)

    assert made.parameters["properties"]["number"]["minimum"] == 1
    assert made.function(**made.read("{}")) == "2 x"
    with pytest.raises(msgspec.ValidationError):
        made.read('{"number": 0}')


def test_parameter_that_cannot_be_described_is_named() -> None:
    """With the function, also where its type has no hash."""

    def mixed(tags: list[str] = [], number: complex = 1j) -> str:  # noqa: B006
        return f"{tags} {number}"

    with pytest.raises(TypeError, match="'mixed'.*'number'"):
        tool(mixed)


def say(greeting: str) -> str:
    """Return the greeting."""
    return greeting


ALMOST = {
    "raw line break": '{"greeting": "Hi\nho"}',
    "fence": '```json\n{"greeting": "Hi\\nho"}\n```',
    "comma": '{"greeting": "Hi\\nho",}',
    "encoded twice": '"{\\"greeting\\": \\"Hi\\\\nho\\"}"',
}


@pytest.mark.parametrize("text", ALMOST.values(), ids=ALMOST)
def test_arguments_that_are_almost_json_are_read(text: str) -> None:
    """There is one way to read them."""
    assert tool(say).read(text) == {"greeting": "Hi\nho"}


@pytest.mark.parametrize("text", ['{"greeting": "a"} {"greeting": "b"}', '{"greeting": "a', "{,}"])
def test_ambiguous_arguments_are_not_guessed(text: str) -> None:
    """The error is what the model is told."""
    with pytest.raises(msgspec.DecodeError):
        tool(say).read(text)
