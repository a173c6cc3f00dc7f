"""Structured output: a type goes out as its schema, and comes back as an instance."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any, Generic, TypedDict, TypeVar

import jsonschema
import msgspec
import pytest

from openai_runs import (
    APIResponseValidationError,
    AsyncClient,
    Message,
    Run,
    RunResult,
    tool,
)
from openai_runs._client.tools.json_schema import schema_of
from openai_runs.testing import RunsServer
from openai_runs.types import RefusalContent, TextContent
from openai_runs.types.messages import Text
from openai_runs.types.tools import RequestResponseFormatJsonSchema
from tests.client.tools.describing import names_of_two_types, required

T = TypeVar("T")


class Weather(msgspec.Struct):
    """What the weather is."""

    city: str
    degrees: float = 20.0


@dataclasses.dataclass
class Weathers:
    """Several."""

    places: list[Weather]
    note: str | None = None


class Plain(TypedDict, total=False):
    """A dict."""

    city: str


class Bare(msgspec.Struct):  # noqa: D101 - on purpose
    city: str


class Box(msgspec.Struct, Generic[T]):
    """Something in a box."""

    inside: T


KINDS: dict[str, tuple[Any, str, str, Any]] = {
    "struct": (Weather, "Weather", '{"city":"Oslo","degrees":null}', Weather("Oslo")),
    "dataclass": (
        Weathers,
        "Weathers",
        '{"places":[{"city":"Oslo","degrees":3}],"note":null}',
        Weathers([Weather("Oslo", 3.0)]),
    ),
    "typed-dict": (Plain, "Plain", '{"city":null}', {}),
    "undocumented": (Bare, "Bare", '{"city":"Oslo"}', Bare("Oslo")),
    "generic": (Box[int], "Box_int_", '{"inside":3}', Box(3)),
}


@pytest.mark.parametrize("case", KINDS.values(), ids=KINDS)
async def test_type_is_sent_as_its_strict_schema_and_comes_back_as_an_instance(
    runs_server: RunsServer, runs_client: AsyncClient, case: tuple[Any, str, str, Any]
) -> None:
    """The text is valid by what was sent, and `parsed` is what it says."""
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
    jsonschema.validate(msgspec.json.decode(text), sent["json_schema"]["schema"])
    assert result.parsed == value
    assert result.parsed is result.parsed
    assert result.text == text


async def test_every_call_that_takes_a_format_takes_a_type(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """Assistants, runs, and threads with runs; other formats go through as they are."""
    given: dict[str, Any] = {"response_format": Weather}

    assistant = await runs_client.assistants.create(model="m", **given)
    await runs_client.assistants.update(assistant.id, **given)
    first = await runs_client.threads.create_and_run_poll(assistant_id=assistant.id, **given)
    await runs_client.runs.create_and_poll(first.thread_id, assistant_id=assistant.id, **given)
    for plain in ("auto", {"type": "text"}, None):
        await runs_client.runs.create_and_poll(
            first.thread_id, assistant_id=assistant.id, response_format=plain
        )

    bodies = [one.json for one in runs_server.requests if one.method == "POST"]
    formats = [body["response_format"] for body in bodies]
    assert [one["json_schema"]["name"] for one in formats[:4]] == ["Weather"] * 4
    assert formats[0]["json_schema"]["description"] == "What the weather is."
    assert formats[4:] == ["auto", {"type": "text"}, None]


async def test_result_and_resume_read_into_a_type_that_was_sent_by_another(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """They are given the type, and send nothing of it."""
    runs_server.reply('{"city":"Oslo"}')
    assistant = await runs_client.assistants.create(model="m", response_format=Weather)
    run = await runs_client.threads.create_and_run_poll(assistant_id=assistant.id)

    result = await runs_client.runs.result(run, response_format=Weather)
    resumed = await runs_client.runs.resume(
        run.id, thread_id=run.thread_id, tools=[], response_format=Weather
    )

    assert result.parsed == resumed.parsed == Weather("Oslo")
    assert (await runs_client.runs.result(run)).parsed is None


async def test_last_message_is_the_one_that_is_read(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """What the model says along with its tool calls is no answer yet."""
    runs_server.call_tool("look", text="Let me see.")
    runs_server.reply('{"city":"Oslo"}')
    assistant = await runs_client.assistants.create(model="m")
    thread = await runs_client.threads.create()

    result = await runs_client.runs.run_tools(
        thread.id,
        assistant_id=assistant.id,
        tools=[tool(lambda: None, name="look")],
        response_format=Weather,
    )

    assert len(result.messages) == 2
    assert result.parsed == Weather("Oslo")


def result_of(*texts: str, status: str = "completed", refusal: str | None = None) -> RunResult:
    """Return a result with messages of these texts."""
    parts: list[Any] = [TextContent(text=Text(value=text)) for text in texts]
    parts += [RefusalContent(refusal=refusal)] if refusal is not None else []
    messages = [Message(id=f"msg_{n}", content=[part]) for n, part in enumerate(parts)]
    return RunResult(
        run=Run(id="run_1", thread_id="thread_1", status=status),
        messages=messages,
        steps=[],
        response_format=Weather,
    )


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (("I do not know.",), "I do not know"),
        (('{"city":3}',), r"Expected `str`, got `int` - at `\$.city`"),
        (('{"city":"Oslo"}', "{"), "truncated"),
        ((), "truncated"),
        (("[" * 100_000,), "does not fit Weather"),
        (("\ud800",), "does not fit Weather"),
    ],
)
def test_text_that_does_not_fit_is_an_error_when_it_is_read(
    texts: tuple[str, ...], problem: str
) -> None:
    """And not before: the text itself is there; the error names run and thread."""
    result = result_of(*texts)

    assert result.text == "\n\n".join(texts)
    with pytest.raises(APIResponseValidationError, match=problem) as caught:
        result.parsed  # noqa: B018 - reading it is the test
    assert str(caught.value).startswith("unreadable answer to run run_1: its text does not fit")
    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")
    assert len(str(caught.value)) < 500


FENCED = {
    "fence": '```json\n{"city": "Oslo"}\n```',
    "fence without a name": '\n```\n{"city": "Oslo"}\n```\n\n',
    "fence on one line": '``` {"city": "Oslo"} ```',
    "raw line break around a comma": '{"city": "Oslo",\n}',
}


@pytest.mark.parametrize("text", FENCED.values(), ids=FENCED)
def test_object_that_stands_alone_in_a_fence_is_parsed(text: str) -> None:
    """The text stays as the model wrote it."""
    result = result_of(text)

    assert result.parsed == Weather("Oslo")
    assert result.text == text


AROUND = {
    "before": ('Here you are:\n```json\n{"city": "Oslo"}\n```', "Here you are:"),
    "after": ('```json\n{"city": "Oslo"}\n```\nEnjoy!', "Enjoy!"),
    "two fences": (
        '```\n{"city": "Oslo"}\n```\nor\n```\n{"city": "Rome"}\n```',
        "truncated|malformed",
    ),
}


@pytest.mark.parametrize(("text", "said"), AROUND.values(), ids=AROUND)
def test_words_around_a_fence_are_in_the_error(text: str, said: str) -> None:
    """Nothing is guessed of what stands among other words."""
    result = result_of(text)

    with pytest.raises(APIResponseValidationError, match=said):
        result.parsed  # noqa: B018 - reading it is the test
    assert result.text == text


@pytest.mark.parametrize("status", ["failed", "incomplete", "cancelled", "expired", "odd"])
def test_run_that_is_not_completed_has_nothing_parsed(status: str) -> None:
    """Half an answer is none."""
    assert result_of('{"city":"Oslo"}', status=status).parsed is None


def test_refusal_is_nothing_parsed() -> None:
    """The model said no; what it said is in the message."""
    assert result_of(refusal="I must not.").parsed is None


def test_result_is_a_value() -> None:
    """Equal, copied and pickled by its fields, whether or not it was read before."""
    result, other = result_of('{"city":"Oslo"}'), result_of('{"city":"Oslo"}')
    assert result.parsed == Weather("Oslo")

    assert result == other
    copy = pickle.loads(pickle.dumps(result))
    assert copy == result
    assert copy.parsed == result.parsed
    mended = msgspec.structs.replace(result, recovered=True)
    assert (mended.recovered, result.recovered, mended.parsed) == (True, False, Weather("Oslo"))
    assert repr(result).startswith("RunResult(run=Run(id=")


class Free(msgspec.Struct):
    """An object with free keys."""

    keys: dict[str, int]


class Unwritable(msgspec.Struct):
    """What JSON does not know."""

    number: complex


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (int, "int: it is no object with named fields"),
        (list[Weather], "list: it is no object with named fields"),
        (dict[str, int], "dict: it is no object with named fields"),
        (Free, "response_format Free.keys: strict mode cannot express an object with free keys"),
        (Unwritable, "Unwritable: type <class 'complex'> is not supported"),
    ],
)
async def test_type_that_cannot_be_a_format_is_refused_before_any_request(
    runs_server: RunsServer, runs_client: AsyncClient, kind: Any, problem: str
) -> None:
    """By its name, and with what is wrong with it."""
    with pytest.raises(TypeError) as caught:
        await runs_client.runs.create("thread_1", assistant_id="asst_1", response_format=kind)

    assert str(caught.value).startswith(problem)
    assert runs_server.requests == []


def test_types_of_one_name_are_not_mixed_up() -> None:
    """Two of one module and name are two in a schema; msgspec before 0.23 can only refuse them."""
    same = [msgspec.defstruct("Same", [(field, int)]) for field in ("a", "b")]
    pair = msgspec.defstruct("Pair", [("one", same[0]), ("other", same[1])])

    with names_of_two_types("two types have the name 'Same'"):
        schema = schema_of(pair).json_schema
        assert [required(schema, field) for field in ("one", "other")] == [["a"], ["b"]]
