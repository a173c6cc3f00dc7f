"""Structured output as a pydantic model: its schema goes out, and an instance comes back."""

from __future__ import annotations

import decimal
import enum
from typing import Annotated, Any, Generic, Literal, TypeVar

import jsonschema
import msgspec
import pydantic
import pytest
from pydantic import BaseModel, Field, RootModel

from openai_runs import APIResponseValidationError, AsyncClient, Message, Run, RunResult
from openai_runs._client.tools.json_schema import response_format
from openai_runs.testing import RunsServer
from openai_runs.types import TextContent
from openai_runs.types.messages import Text
from openai_runs.types.tools import RequestResponseFormatJsonSchema

T = TypeVar("T")


class Sky(enum.Enum):
    """What is above."""

    CLEAR = "clear"
    GREY = "grey"


class Wind(BaseModel):
    """How it blows."""

    kind: Literal["wind"] = "wind"
    speed: Annotated[float, Field(ge=0)]


class Rain(BaseModel):
    """How it rains."""

    kind: Literal["rain"] = "rain"
    inches: decimal.Decimal = Field(alias="in")


class Weather(BaseModel):
    """What the weather is."""

    city: str = Field(description="Its name.", min_length=1)
    sky: Sky = Sky.CLEAR
    events: list[Annotated[Wind | Rain, Field(discriminator="kind")]] = []
    next: Weather | None = None

    @pydantic.field_validator("city")
    @classmethod
    def check(cls, city: str) -> str:
        """Reject one."""
        if city == "Atlantis":
            msg = "it is under water"
            raise ValueError(msg)
        return city

    @pydantic.computed_field  # type: ignore[prop-decorator]  # as pydantic says it is written
    @property
    def headline(self) -> str:
        """Return what is written above it."""
        return f"{self.city}: {self.sky.value}"


class Box(BaseModel, Generic[T]):
    """Something in a box."""

    inside: T


class Open(BaseModel, extra="allow", title="An open one"):  # noqa: D101 - on purpose
    size: int


@pydantic.dataclasses.dataclass
class Span:
    """From when to when."""

    first: int = Field(ge=1)


KINDS: dict[str, tuple[Any, str, str, Any]] = {
    "model": (Weather, "Weather", '{"city":"Oslo"}', Weather(city="Oslo")),
    "nested": (
        Weather,
        "Weather",
        '{"city":"Oslo","sky":"grey","events":[{"kind":"rain","in":"0.1"}],"next":{"city":"Rome"}}',
        Weather(
            city="Oslo",
            sky=Sky.GREY,
            events=[Rain.model_validate({"in": "0.1"})],
            next=Weather(city="Rome"),
        ),
    ),
    "nulls": (
        Weather,
        "Weather",
        '{"city":"Oslo","sky":null,"events":null,"next":null}',
        Weather(city="Oslo"),
    ),
    "generic": (Box[int], "Box_int_", '{"inside":3}', Box[int](inside=3)),
    "generic-nested": (
        Box[Span],
        "Box_Span_",
        '{"inside":{"first":1}}',
        Box[Span](inside=Span(first=1)),
    ),
    "root": (RootModel[Box[int]], "Box_int_", '{"inside":3}', RootModel[Box[int]](Box(inside=3))),
    "titled": (Open, "An_open_one", '{"size":1}', Open(size=1)),
    "dataclass": (Span, "Span", '{"first":1}', Span(first=1)),
}


@pytest.mark.parametrize("case", KINDS.values(), ids=KINDS)
async def test_model_is_sent_as_its_strict_schema_and_comes_back_as_an_instance(
    runs_server: RunsServer, runs_client: AsyncClient, case: tuple[Any, str, str, Any]
) -> None:
    """The server takes what was sent, and `parsed` is what the text says."""
    kind, name, text, value = case
    runs_server.reply(text)
    assistant = await runs_client.assistants.create(model="m")
    thread = await runs_client.threads.create()

    result = await runs_client.runs.run_tools(
        thread.id, assistant_id=assistant.id, tools=[], response_format=kind
    )

    sent = runs_server.seen("POST", "runs")[0].json["response_format"]
    msgspec.convert(sent, RequestResponseFormatJsonSchema)
    assert (sent["json_schema"]["name"], sent["json_schema"]["strict"]) == (name, True)
    jsonschema.Draft202012Validator.check_schema(sent["json_schema"]["schema"])
    assert result.parsed == value
    assert type(result.parsed) is type(value)
    assert result.parsed is result.parsed
    assert result.text == text


async def test_every_call_that_takes_a_format_takes_a_model(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """Assistants, runs, threads with runs, streams, and calls that only read."""
    given: dict[str, Any] = {"response_format": Weather}
    for _ in range(5):
        runs_server.reply('{"city":"Oslo"}')

    assistant = await runs_client.assistants.create(model="m", **given)
    await runs_client.assistants.update(assistant.id, **given)
    first = await runs_client.threads.create_and_run_poll(assistant_id=assistant.id, **given)
    ids: dict[str, Any] = {"thread_id": first.thread_id, "assistant_id": assistant.id}
    await runs_client.runs.create_and_poll(**ids, **given)
    async with runs_client.runs.stream(**ids, **given) as stream:
        streamed = await stream.result()
    async with runs_client.threads.create_and_run_stream(
        assistant_id=assistant.id, **given
    ) as other:
        created = await other.result()
    [(_, mapped)] = [
        one async for one in runs_client.runs.map([("a", ids)], concurrency=1, **given)
    ]
    read = await runs_client.runs.result(first, **given)
    resumed = await runs_client.runs.resume(first.id, thread_id=first.thread_id, tools=[], **given)

    assert isinstance(mapped, RunResult)
    for result in (streamed, created, mapped, read, resumed):
        assert result.parsed == Weather(city="Oslo")
    bodies = [one.json for one in runs_server.requests if one.method == "POST"]
    names = [body["response_format"]["json_schema"]["name"] for body in bodies if body]
    assert names == ["Weather"] * 7


def test_schema_of_a_model_keeps_the_rules_of_strict_mode() -> None:
    """What pydantic writes and the API rejects is rewritten; what it means is kept."""
    sent: Any = response_format(Weather)
    schema = sent["json_schema"]["schema"]

    city = schema["properties"]["city"]
    assert city == {
        "type": "string",
        "title": "City",
        "description": "Its name. (minLength: 1)",
    }
    assert schema["required"] == ["city", "sky", "events", "next"]
    assert "headline" not in schema["properties"]
    event = schema["$defs"]["Weather"]["properties"]["events"]["anyOf"][0]["items"]
    assert event == {"anyOf": [{"$ref": "#/$defs/Wind"}, {"$ref": "#/$defs/Rain"}]}
    rain = schema["$defs"]["Rain"]
    assert rain["required"] == ["kind", "in"]
    assert rain["additionalProperties"] is False
    assert rain["properties"]["kind"]["enum"] == ["rain"]


REFUSED: dict[str, tuple[Any, str]] = {
    "root-list": (RootModel[list[int]], "no object with named fields"),
    "root-union": (RootModel[Wind | Rain], "no object with named fields"),
    "dict": (Box[dict[str, int]], "an object with free keys"),
    "any": (Box[Any], "a value of any kind"),
    "tuple": (Box[tuple[int, str]], "a tuple"),
}


@pytest.mark.parametrize(("kind", "problem"), REFUSED.values(), ids=REFUSED)
async def test_model_that_strict_mode_cannot_express_is_refused(kind: Any, problem: str) -> None:
    """Before anything is sent, by name."""
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        with pytest.raises(TypeError, match=problem):
            await client.assistants.create(model="m", response_format=kind)


def result_of(text: str, kind: type, status: str = "completed") -> RunResult:
    """Return the result of a run that wrote this."""
    return RunResult(
        run=Run(id="run_1", thread_id="thread_1", status=status),
        messages=[Message(id="msg_1", content=[TextContent(text=Text(value=text))])],
        steps=[],
        response_format=kind,
    )


UNFIT = {
    "no-json": ("I do not know.", "malformed"),
    "cut": ('{"city":"Os', "truncated"),
    "missing": ("{}", r"Field required - at `\$\.city`"),
    "type": ('{"city":3}', r"valid string - at `\$\.city`"),
    "bound": ('{"city":""}', r"at least 1 character - at `\$\.city`"),
    "validator": ('{"city":"Atlantis"}', r"it is under water - at `\$\.city`"),
    "deep": ('{"city":"a","next":{"city":3}}', r"valid string - at `\$\.next\.city`"),
    "variant": ('{"city":"a","events":[{"kind":"wind"}]}', r"at `\$\.events\[0\]\.speed`"),
    "tag": ('{"city":"a","events":[{"kind":"snow"}]}', r"at `\$\.events\[0\]`"),
    "list": ("[]", "Input should be an object"),
}


@pytest.mark.parametrize(("text", "problem"), UNFIT.values(), ids=UNFIT)
def test_text_that_does_not_fit_is_the_error_it_is_for_a_struct(text: str, problem: str) -> None:
    """The text itself is there; the error names the run, the thread and the field."""
    result = result_of(text, Weather)

    with pytest.raises(APIResponseValidationError, match=problem) as caught:
        result.parsed  # noqa: B018 - reading it is the test
    assert str(caught.value).startswith(
        "unreadable answer to run run_1: its text does not fit Weather: "
    )
    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")
    assert "pydantic.dev" not in str(caught.value)
    assert result.text == text


def test_object_in_a_fence_is_parsed_and_a_run_that_failed_has_none() -> None:
    """As with a Struct."""
    text = '```json\n{"city": "Oslo",}\n```'

    assert result_of(text, Weather).parsed == Weather(city="Oslo")
    assert result_of(text, Weather, status="failed").parsed is None
