"""Functions as tools: what the model is told of their parameters, and how its JSON is read."""

from __future__ import annotations

import dataclasses
import enum
from typing import Annotated, Any, Literal, Required, TypedDict

import jsonschema
import msgspec
import pytest
from msgspec import Meta

from openai_runs import ToolContext, tool
from openai_runs.types.tools import RequestFunctionTool

CONTEXT: Any = None


class Unit(enum.Enum):
    """A unit of temperature."""

    CELSIUS = "c"
    FAHRENHEIT = "f"


class City(msgspec.Struct):
    """A place."""

    name: str
    country: str = "NO"


class Circle(msgspec.Struct, tag="circle"):
    """A round place."""

    radius: float = 1.0


class Square(msgspec.Struct, tag="square"):
    """A cornered place."""

    side: float


@dataclasses.dataclass
class Span:
    """From when to when."""

    first: int
    last: int | None = None


class Filter(TypedDict, total=False):
    """What to leave out."""

    field: Required[str]
    value: str


class Node(msgspec.Struct):
    """A tree."""

    children: list[Node] = []


@tool
def weather(
    city: City,
    day: Literal["today", "tomorrow"] = "today",
    *,
    unit: Unit = Unit.CELSIUS,
    hours: Annotated[int, Meta(ge=1, le=24, description="How far to look")] = 6,
    context: ToolContext,
) -> str:
    """Return the weather
    of a city.

    It is read from the sky.

    Args:
        city: Where to
            peek.
        day (str): Today or tomorrow.
        unit: Which scale.
        hours: Not shown: the annotation says it.
        context: Not shown either.

    Returns:
        hours: no parameter
    """  # noqa: D205 - of two lines, as they come
    return f"{city.name} {day} {unit.value} {hours} {context.call_id}"


WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Return the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"$ref": "#/$defs/City", "description": "Where to peek."},
                "day": {
                    "enum": ["today", "tomorrow"],
                    "default": "today",
                    "description": "Today or tomorrow.",
                },
                "unit": {
                    "$ref": "#/$defs/Unit",
                    "default": "c",
                    "description": "Which scale.",
                },
                "hours": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": 24,
                    "default": 6,
                    "description": "How far to look",
                },
            },
            "required": ["city"],
            "additionalProperties": False,
            "$defs": {
                "City": {
                    "title": "City",
                    "description": "A place.",
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "country": {"type": "string", "default": "NO"},
                    },
                    "required": ["name"],
                },
                "Unit": {
                    "title": "Unit",
                    "description": "A unit of temperature.",
                    "enum": ["c", "f"],
                },
            },
        },
    },
}


def test_definition_is_what_the_function_says() -> None:
    """Names, types, bounds, defaults and descriptions come from annotations and docstring."""
    assert weather.definition == WEATHER
    msgspec.convert(weather.definition, RequestFunctionTool)


def test_arguments_are_read_into_the_annotated_types() -> None:
    """What the model leaves out is left to the function's own defaults."""
    read = weather.read('{"city": {"name": "Oslo"}, "unit": "f"}')

    assert read == {"city": City("Oslo"), "unit": Unit.FAHRENHEIT}


@pytest.mark.parametrize("text", ["", "  ", "{}", '{"x": null}'])
def test_null_and_nothing_are_the_default(text: str) -> None:
    """Models write null, or nothing at all, for what may be left out."""

    @tool
    def peek(x: int = 3) -> int:
        return x

    assert peek.read(text) == {}


def test_null_stays_null_where_it_is_a_value() -> None:
    """A parameter that takes None is given None."""

    @tool
    def peek(x: int | None = 3, y: Any = 4) -> None: ...

    assert peek.read('{"x": null, "y": null}') == {"x": None, "y": None}


def test_nulls_within_are_defaults_too() -> None:
    """In Structs, dataclasses, TypedDicts, lists and tagged unions, however deep."""

    @tool
    def peek(
        *,
        a: list[City],
        b: Circle | Square,
        c: Span,
        d: Filter,
        e: Node,
        f: list[City] | None = None,
    ) -> None: ...

    read = peek.read(
        '{"a": [{"name": "x", "country": null}], "b": {"type": "circle", "radius": null},'
        ' "c": {"first": 1, "last": null}, "d": {"field": "f", "value": null},'
        ' "e": {"children": [{"children": null}]}, "f": [{"name": "y", "country": null}]}'
    )

    assert read == {
        "a": [City("x")],
        "b": Circle(),
        "c": Span(1),
        "d": {"field": "f"},
        "e": Node([Node()]),
        "f": [City("y")],
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"city": {"name": 3}}', r"Expected `str`, got `int` - at `\$.city.name`"),
        ('{"city": {"name": null}}', r"Expected `str`, got `null` - at `\$.city.name`"),
        ('{"city": {"name": "x"}, "hours": 0}', r"Expected `int` >= 1 - at `\$.hours`"),
        ('{"city": {"name": "x"}, "town": 0}', "unknown field `town`"),
        ('{"city": {"name": "x"}, "context": {}}', "unknown field `context`"),
        ("{}", "missing required field `city`"),
        ("[]", "Expected `object`, got `array`"),
        ("{", "truncated"),
        ('{"city": NaN}', "invalid character"),
    ],
)
def test_arguments_that_do_not_fit_name_their_path(text: str, problem: str) -> None:
    """The message is for the model: where, and what was expected."""
    with pytest.raises(msgspec.MsgspecError, match=problem):
        weather.read(text)


def test_strict_schema_is_closed_and_complete() -> None:
    """Every key is required, null stands for a default, no object takes other keys."""
    strict = tool(weather.function, strict=True)

    definition = strict.definition["function"]
    properties = definition["parameters"]["properties"]
    assert definition["strict"] is True
    assert definition["parameters"]["required"] == ["city", "day", "unit", "hours"]
    assert properties["city"] == {
        "anyOf": [{"$ref": "#/$defs/City"}],
        "description": "Where to peek.",
    }
    assert properties["day"] == {
        "anyOf": [{"enum": ["today", "tomorrow"], "type": "string"}, {"type": "null"}],
        "description": 'Today or tomorrow. (default: "today")',
    }
    assert properties["hours"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 24}
    city = definition["parameters"]["$defs"]["City"]
    assert (city["required"], city["additionalProperties"]) == (["name", "country"], False)
    assert "default" not in city["properties"]["country"]


def walk(schema: Any) -> list[dict[str, Any]]:
    """Return every schema within `schema`."""
    if isinstance(schema, list):
        return [found for part in schema for found in walk(part)]
    if not isinstance(schema, dict):
        return []
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    inner += [schema.get("items"), schema.get("anyOf")]
    return [schema, *(found for part in inner for found in walk(part))]


def everything(
    *,
    shape: Circle | Square,
    span: Span,
    keep: Filter,
    tree: Node,
    names: Annotated[list[str], Meta(min_length=1)],
    code: Annotated[str, Meta(min_length=2, max_length=4, pattern="^[A-Z]+$")],
    either: int | str | None,
    mixed: Literal["a", 1, None],
    blob: bytes = b"",
    some: set[int] = frozenset(),  # type: ignore[assignment]  # any default will do
    where: Annotated[City | None, Meta(description="A place")] = None,
) -> None:
    """Take everything."""


def test_strict_schemas_hold_nothing_that_strict_mode_refuses() -> None:
    """Of each kind of annotation; a refused bound moves into the description."""
    parameters = tool(everything, strict=True).parameters

    for schema in walk(parameters):
        refused = {"default", "minLength", "maxLength", "uniqueItems", "discriminator"}
        assert not refused & schema.keys()
        assert "$ref" not in schema or schema.keys() == {"$ref"}
        assert {"type", "$ref", "anyOf"} & schema.keys()
        if schema.get("type") == "object":
            assert schema["required"] == list(schema["properties"])
            assert schema["additionalProperties"] is False
    assert parameters["properties"]["code"]["description"] == "(minLength: 2, maxLength: 4)"
    assert parameters["properties"]["mixed"]["type"] == ["integer", "null", "string"]
    jsonschema.Draft202012Validator.check_schema(parameters)


def test_strict_schema_takes_what_the_reader_reads() -> None:
    """An answer by the strict schema is valid by it, and readable."""
    strict = tool(everything, strict=True)
    given = {
        "shape": {"type": "square", "side": 2},
        "span": {"first": 1, "last": None},
        "keep": {"field": "f", "value": None},
        "tree": {"children": None},
        "names": ["n"],
        "code": "AB",
        "either": None,
        "mixed": None,
        "blob": None,
        "some": None,
        "where": None,
    }

    jsonschema.validate(given, strict.parameters)
    read = strict.read(msgspec.json.encode(given).decode())

    assert read["tree"] == Node()
    assert read["where"] is None
    assert not {"blob", "some"} & read.keys()


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (dict[str, int], r"tool 'f'.x: strict mode cannot express an object with free keys"),
        (tuple[int, str], "cannot express a tuple"),
        (Any, "cannot express a value of any kind"),
        (list, "cannot express a list of anything"),
        (list[Any], "cannot express a list of anything"),
        (list[dict[str, int]], r"tool 'f'.x\[...\]: "),
    ],
)
def test_strict_mode_refuses_what_it_cannot_express(annotation: Any, problem: str) -> None:
    """When the tool is made, and not by a server when it is used."""

    def f(x: int) -> None: ...

    f.__annotations__["x"] = annotation

    with pytest.raises(TypeError, match=problem):
        tool(f, strict=True)


def test_context_is_filled_in() -> None:
    """Under whatever name it has, and only where it is asked for."""
    assert weather.completed({"a": 1}, CONTEXT) == {"a": 1, "context": CONTEXT}
    assert tool(everything).completed({"a": 1}, CONTEXT) == {"a": 1}


def test_default_that_is_no_json_is_not_shown() -> None:
    """The model need not know it; the function does."""

    @tool
    def peek(x: int = CONTEXT, y: float = object()) -> None:  # type: ignore[assignment]
        """Peek."""

    assert peek.parameters["properties"] == {"x": {"type": "integer"}, "y": {"type": "number"}}
