"""Pydantic models as parameters of tools: what the model gets, and what the function gets."""

from __future__ import annotations

import decimal
import enum
import subprocess
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Optional, TypeVar, Union

import jsonschema
import msgspec
import pydantic
import pytest
from pydantic import AliasChoices, BaseModel, Field, RootModel

from openai_runs import tool

T = TypeVar("T")
ROOT = Path(__file__).parents[3]


class Size(enum.Enum):
    """How large."""

    SMALL = "s"
    LARGE = "l"


class Cat(BaseModel):
    """An animal that mews."""

    kind: Literal["cat"] = "cat"
    lives: int = Field(default=9, ge=0, description="How many are left.")


class Dog(BaseModel):
    """An animal that barks."""

    kind: Literal["dog"] = "dog"
    name: str

    @pydantic.field_validator("name")
    @classmethod
    def check(cls, name: str) -> str:
        """Reject names of several kinds, in several ways."""
        if name == "broken":
            msg = "secret"
            raise TypeError(msg)
        if name == "lost":
            msg = "secret"
            raise KeyError(msg)
        if name != name.title():
            msg = "must begin with a capital letter"
            raise ValueError(msg)
        return name


class Node(BaseModel):
    """A tree."""

    size: Size = Size.SMALL
    price: decimal.Decimal = decimal.Decimal(1)
    children: list[Node] = []


class Box(BaseModel, Generic[T]):
    """Something in a box."""

    inside: T


class Tags(RootModel[list[str]]):
    """Words."""


class Named(BaseModel):
    """A model whose fields have other names in JSON."""

    colour: str = Field(alias="color")
    size: int = Field(default=1, validation_alias=AliasChoices("SIZE", "size"))


@pydantic.dataclasses.dataclass
class Span:
    """A dataclass of pydantic's."""

    first: int = Field(ge=1)
    last: int | None = None


class Holder(msgspec.Struct):
    """A Struct with models inside."""

    dog: Dog
    others: list[Dog] = []


class Lookalike:
    """A class with the methods of a model that is none of pydantic's."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lookalike) and other.word == self.word

    __hash__ = None  # type: ignore[assignment]  # as a model has none

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Return the schema."""
        return {
            "type": "object",
            "properties": {"word": {"type": "string"}},
            "required": ["word"],
        }

    @classmethod
    def model_validate_json(cls, text: bytes) -> Lookalike:
        """Return the instance."""
        value = msgspec.json.decode(text)
        if not isinstance(value.get("word"), str):
            msg = "a word is needed"
            raise ValueError(msg)
        return cls(value["word"])


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
REX = Dog(name="Rex")
READ: dict[str, tuple[Any, str, Any]] = {
    "model": (Dog, '{"name":"Rex"}', REX),
    "list": (list[Dog], '[{"name":"Rex"}]', [REX]),
    "sequence": (Sequence[Dog], '[{"name":"Rex"}]', [REX]),
    "dict": (dict[str, Dog], '{"a":{"name":"Rex"}}', {"a": REX}),
    "deep": (dict[str, list[Dog | None]], '{"a":[{"name":"Rex"},null]}', {"a": [REX, None]}),
    "optional": (Optional[Dog], "null", None),  # noqa: UP045 - what older code has
    "optional-given": (Dog | None, '{"name":"Rex"}', REX),
    "union": (Cat | Dog, '{"name":"Rex"}', REX),
    "union-typing": (Union[Cat, Dog, None], '{"kind":"cat"}', Cat()),  # noqa: UP007 - the same
    "union-with-others": (list[int | Dog], '[3,{"name":"Rex"}]', [3, REX]),
    "union-of-lists": (list[Dog] | int, '[{"name":"Rex"}]', [REX]),
    "discriminated": (list[Pet], '[{"kind":"dog","name":"Rex"},{"kind":"cat"}]', [REX, Cat()]),
    "annotated": (Annotated[Dog, Field(description="Whom to call.")], '{"name":"Rex"}', REX),
    "annotated-meta": (Annotated[Dog, msgspec.Meta(description="It.")], '{"name":"Rex"}', REX),
    "annotated-number": (Annotated[int, Field(ge=1, description="Days.")], "3", 3),
    "annotated-both": (Annotated[int, Field(ge=1), msgspec.Meta(description="Days.")], "3", 3),
    "positive": (pydantic.PositiveInt, "3", 3),
    "url": (list[pydantic.HttpUrl], '["http://a/"]', [pydantic.HttpUrl("http://a/")]),
    "recursive": (Node, '{"children":[{"size":"l"}]}', Node(children=[Node(size=Size.LARGE)])),
    "decimal": (Node, '{"price":"1.10"}', Node(price=decimal.Decimal("1.10"))),
    "generic": (Box[Cat], '{"inside":{"lives":3}}', Box[Cat](inside=Cat(lives=3))),
    "root": (Tags, '["a","b"]', Tags(["a", "b"])),
    "alias": (Named, '{"color":"red","SIZE":3}', Named.model_validate({"color": "red", "size": 3})),
    "dataclass": (Span, '{"first":2}', Span(first=2)),
    "dataclasses": (list[Span], '[{"first":2}]', [Span(first=2)]),
    "struct": (Holder, '{"dog":{"name":"Rex"}}', Holder(dog=REX)),
    "no-pydantic": (list[Lookalike], '[{"word":"a"}]', [Lookalike("a")]),
}


def taking(hint: Any) -> Any:
    """Return a tool with one parameter of this type."""

    def take(it: Any) -> None:
        """Take it."""

    take.__annotations__["it"] = hint
    return tool(take)


@pytest.mark.parametrize(("hint", "text", "value"), READ.values(), ids=READ)
def test_model_is_described_and_read(hint: Any, text: str, value: Any) -> None:
    """The function gets instances, and the schema takes what is read."""
    made = taking(hint)

    assert made.read(f'{{"it":{text}}}') == {"it": value}
    jsonschema.Draft202012Validator.check_schema(made.parameters)
    jsonschema.validate({"it": msgspec.json.decode(text)}, made.parameters)


REJECTED: dict[str, tuple[Any, str, str]] = {
    "missing": (Dog, "{}", "Field required - at `$.it.name`"),
    "type": (list[Dog], '[{"name":"Rex"},{"name":3}]', "valid string - at `$.it[1].name`"),
    "in-a-dict": (dict[str, Dog], '{"a":{"name":3}}', "valid string - at `$.it[...].name`"),
    "bound": (Cat, '{"lives":-1}', "greater than or equal to 0 - at `$.it.lives`"),
    "validator": (Dog, '{"name":"rex"}', "must begin with a capital letter - at `$.it.name`"),
    "several": (Node, '{"size":1,"price":"x"}', "'s' or 'l' - at `$.it.size`; Input should be"),
    "deep": (Node, '{"children":[{"size":1}]}', "at `$.it.children[0].size`"),
    "union": (list[int | Dog], '[{"name":3}]', "valid string - at `$.it[0].name`"),
    "discriminated": (Pet, '{"kind":"dog"}', "Field required - at `$.it.name`"),
    "alias": (Named, '{"colour":"red"}', "Field required - at `$.it.color`"),
    "number": (Annotated[int, Field(ge=1)], "0", "than or equal to 1 - at `$.it`"),
    "dataclass": (Span, '{"first":0}', "than or equal to 1 - at `$.it.first`"),
    "struct": (Holder, '{"dog":{"name":3}}', "valid string - at `$.it.dog.name`"),
    "no-object": (Dog, "3", "at `$.it`"),
    "no-pydantic": (Lookalike, "{}", "a word is needed - at `$.it`"),
}


@pytest.mark.parametrize(("hint", "text", "problem"), REJECTED.values(), ids=REJECTED)
def test_arguments_that_do_not_fit_name_their_field(hint: Any, text: str, problem: str) -> None:
    """As a path of the JSON that the model wrote, without pydantic's links, inputs and types."""
    with pytest.raises(msgspec.ValidationError) as caught:
        taking(hint).read(f'{{"it":{text}}}')

    assert problem in str(caught.value)
    shown = [
        word for word in ("pydantic", "input_value", "type=", "\n") if word in str(caught.value)
    ]
    assert shown == []


def test_error_names_few_of_many_problems() -> None:
    """An output of a tool has a bound, and ten are enough to learn from."""
    text = msgspec.json.encode({"it": [{"name": 3}] * 1000}).decode()

    with pytest.raises(msgspec.ValidationError) as caught:
        taking(Box[list[Dog]]).read(text.replace("[", '{"inside":[', 1).replace("]", "]}"))

    assert str(caught.value).count("valid string") == 10
    assert "990 more problems - at `$.it`" in str(caught.value)


@pytest.mark.parametrize("name", ["broken", "lost"])
def test_validator_that_fails_by_itself_shows_nothing_of_it(name: str) -> None:
    """An error that is no verdict on the arguments is for the log, not for the model."""
    with pytest.raises((RuntimeError, KeyError)):
        taking(Dog).read(f'{{"it":{{"name":"{name}"}}}}')


def test_null_for_a_field_with_a_default_is_the_default() -> None:
    """Strict mode makes a model write one."""
    assert taking(Cat).read('{"it":{"lives":null}}') == {"it": Cat()}
    assert taking(list[Pet]).read('{"it":[{"kind":"cat","lives":null}]}') == {"it": [Cat()]}


def test_parameter_with_a_default_may_be_left_out() -> None:
    """A model that is the default is shown as the JSON it is."""

    @tool
    def feed(pet: Cat = Cat(), days: Annotated[int, Field(ge=1)] = 3) -> None:  # noqa: B008
        """Feed it."""

    assert feed.read("{}") == {}
    assert feed.parameters["properties"]["pet"]["default"] == {"kind": "cat", "lives": 9}
    assert feed.parameters["properties"]["days"] == {"type": "integer", "minimum": 1, "default": 3}
    assert feed.parameters["required"] == []


def namesake(**fields: Any) -> type[BaseModel]:
    """Return a model with the name of another."""
    return pydantic.create_model("Dog", **fields)


def test_models_of_the_same_name_are_kept_apart() -> None:
    """Also one that is within another, and one of the name of a Struct."""
    struct = msgspec.defstruct("Dog", [("tail", int)])
    other = namesake(legs=(int, ...))

    class Kennel(BaseModel):
        """Where they are."""

        dog: other  # type: ignore[valid-type]

    def take(a: Any, b: Any, c: Any, d: Any) -> None: ...

    take.__annotations__ = {"a": Dog, "b": Kennel, "c": struct, "d": list[Dog]}
    made = tool(take)
    value = {"a": {"name": "A"}, "b": {"dog": {"legs": 4}}, "c": {"tail": 1}, "d": [{"name": "D"}]}

    jsonschema.validate(value, made.parameters)
    for wrong in ({"a": {"legs": 4}}, {"b": {"dog": {"name": "A"}}}, {"c": {"name": "A"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**value, **wrong}, made.parameters)
    assert len(made.parameters["$defs"]) == 4


def walk(schema: Any) -> list[dict[str, Any]]:
    """Return every object within a schema, itself included."""
    if isinstance(schema, list):
        return [one for part in schema for one in walk(part)]
    if not isinstance(schema, dict):
        return []
    return [schema, *(one for part in schema.values() for one in walk(part))]


STRICT = {
    name: hint
    for name, (hint, _, _) in READ.items()
    if name not in {"dict", "deep", "no-pydantic", "struct"}
}


@pytest.mark.parametrize("hint", STRICT.values(), ids=STRICT)
def test_strict_schema_holds_nothing_that_strict_mode_refuses(hint: Any) -> None:
    """Objects are closed and complete, references stand alone, and some keywords are left out."""
    strict = tool(taking(hint).function, strict=True)

    for schema in walk(strict.parameters):
        if schema.get("type") == "object":
            assert schema["additionalProperties"] is False
            assert schema["required"] == [*schema["properties"]]
        if "$ref" in schema:
            assert [*schema] == ["$ref"]
            assert schema["$ref"].removeprefix("#/$defs/") in strict.parameters["$defs"]
        if isinstance(schema.get("type"), str):
            assert not schema.keys() & {"oneOf", "allOf", "const", "default", "discriminator"}
            assert "(?" not in schema.get("pattern", "")
            assert schema.get("format") in {None, "date-time", "uuid"}


def test_tag_of_a_union_is_never_null_in_strict_mode() -> None:
    """Else a model could leave open which of the variants it means."""
    strict = tool(taking(list[Pet]).function, strict=True)

    tag = strict.parameters["$defs"]["Cat"]["properties"]["kind"]
    assert tag == {
        "enum": ["cat"],
        "type": "string",
        "title": "Kind",
        "description": '(default: "cat")',
    }


class Unwritten(BaseModel, arbitrary_types_allowed=True):
    """A model of which JSON knows nothing."""

    act: Callable[[], None]


REFUSED: dict[str, tuple[Any, str]] = {
    "no-json": (Unwritten, "Unwritten: Cannot generate a JsonSchema"),
    "struct-and-model": (Holder | Dog, "pydantic cannot describe .*Holder"),
    "struct-with-field": (Annotated[Holder, Field(title="x")], "pydantic cannot describe .*Holder"),
    "class-of-a-model": (type[Dog], "<class 'type'> is not supported"),
}


@pytest.mark.parametrize(("hint", "problem"), REFUSED.values(), ids=REFUSED)
def test_parameter_that_cannot_be_described_is_refused_by_name(hint: Any, problem: str) -> None:
    """When the tool is made."""
    with pytest.raises(TypeError, match=f"tool 'take': parameter 'it' cannot be .*{problem}"):
        taking(hint)


def test_field_as_a_default_is_refused() -> None:
    """It would be the value where the model leaves the parameter out."""
    with pytest.raises(TypeError, match=r"'days' has Field\(\) as its default; write Annotated"):

        @tool
        def check(days: int = Field(3, ge=1)) -> None: ...


WITHOUT = """
import sys

for name in ("pydantic", "pydantic_core", "annotated_types"):
    sys.modules[name] = None  # as if it were not installed: an import of it fails

import json, typing
from openai_runs import AsyncClient, tool
from openai_runs._client.encoding import as_text, plain
from openai_runs._client.tools.json_schema import response_format, schema_of

class Word:
    def __init__(self, word):
        self.word = word
    @classmethod
    def model_json_schema(cls):
        return {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    @classmethod
    def model_validate_json(cls, text):
        return cls(json.loads(text)["word"])
    def model_dump(self, **options):
        return {"word": self.word}
    def model_dump_json(self):
        return json.dumps(self.model_dump())

@tool(strict=True)
def check(words: list[Word], one: typing.Annotated[Word | None, "hint"] = None) -> Word:
    return words[0]

read = check.read('{"words":[{"word":"a"}],"one":{"word":"b"}}')
print(read["words"][0].word, read["one"].word)
print(response_format(Word)["json_schema"]["schema"]["additionalProperties"])
print(schema_of(Word).decode('{"word":"c"}').word)
print(as_text(check(**read)), plain([Word("d")]))
print({sys.modules[name] for name in ("pydantic", "pydantic_core", "annotated_types")})
"""


def test_models_work_where_pydantic_is_not_installed() -> None:
    """A class with the methods of a model is one; pydantic is not imported, nor needed."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == [
        "a b",
        "False",
        "c",
        "{\"word\": \"a\"} [{'word': 'd'}]",
        "{None}",
    ]


def test_package_imports_no_pydantic() -> None:
    """Not even where it is installed and a tool is made."""
    script = (
        "import sys; from openai_runs import AsyncClient, tool\n"
        "def check(city: str, days: list[int] | None = None) -> str: ...\n"
        "tool(check).read('{\"city\":\"Oslo\"}'); print('pydantic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout == "False\n"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no `type` statement")
def test_alias_of_a_union_is_the_union() -> None:
    """A name that a `type` statement gave it."""
    alias: Any = getattr(typing, "TypeAliasType")("alias", Cat | Dog)  # noqa: B009 - not in 3.11

    assert taking(list[alias]).read('{"it":[{"name":"Rex"}]}') == {"it": [REX]}
    tagged = Annotated[alias, Field(discriminator="kind")]
    assert taking(tagged).read('{"it":{"kind":"dog","name":"Rex"}}') == {"it": REX}
