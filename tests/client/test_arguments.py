"""Arguments: declared once, sent as given, and what a server's decoder takes."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import re
import types
import uuid
from collections import UserDict
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import pydantic
import pytest

from openai_runs import AsyncClient, ConfigError
from openai_runs._client.arguments import (
    CallOptions,
    CreateAssistantArguments,
    CreateMessageArguments,
    CreateRunArguments,
    CreateThreadAndRunArguments,
    CreateThreadArguments,
    PageOptions,
    StartOptions,
    StreamOptions,
    UpdateAssistantArguments,
    UpdateThreadArguments,
    WaitArguments,
)
from openai_runs._client.tools.executor import ToolOptions
from openai_runs._protocol.endpoints import ENDPOINTS
from openai_runs._protocol.lenient import decoder_for
from openai_runs.types import (
    Assistant,
    CodeInterpreterTool,
    CreateMessage,
    CreateThread,
    RequestFunction,
    RequestFunctionTool,
    RequestTextContent,
    RequestToolResources,
    RequestTruncationStrategy,
    Run,
    ToolOutput,
)
from tests.client.test_security import arguments_of, carry_out, methods
from tests.openapi import OPERATIONS, SCHEMAS
from tests.openapi.bodies import FULL
from tests.samples import load, raw
from tests.support import Answer, HostileServer, Received, run_json


class Sends(NamedTuple):
    """A method with a body: what it takes besides the body's keys, and which keys those are."""

    method: str
    operation: str
    ids: dict[str, str]
    own: frozenset[str]
    """Keys of the body that are arguments of their own."""
    declared: type | None
    """The `TypedDict` of the others."""


SENDS = [
    Sends(
        "assistants.create", "createAssistant", {}, frozenset({"model"}), CreateAssistantArguments
    ),
    Sends(
        "assistants.update",
        "modifyAssistant",
        {"assistant_id": "a"},
        frozenset(),
        UpdateAssistantArguments,
    ),
    Sends("threads.create", "createThread", {}, frozenset(), CreateThreadArguments),
    Sends("threads.update", "modifyThread", {"thread_id": "t"}, frozenset(), UpdateThreadArguments),
    Sends(
        "threads.create_and_run",
        "createThreadAndRun",
        {},
        frozenset({"assistant_id"}),
        CreateThreadAndRunArguments,
    ),
    Sends(
        "messages.create",
        "createMessage",
        {"thread_id": "t"},
        frozenset({"role", "content"}),
        CreateMessageArguments,
    ),
    Sends(
        "messages.update",
        "modifyMessage",
        {"thread_id": "t", "message_id": "m"},
        frozenset({"metadata"}),
        None,
    ),
    Sends(
        "runs.create",
        "createRun",
        {"thread_id": "t"},
        frozenset({"assistant_id"}),
        CreateRunArguments,
    ),
    Sends(
        "runs.update", "modifyRun", {"thread_id": "t", "run_id": "r"}, frozenset({"metadata"}), None
    ),
    Sends(
        "runs.submit_tool_outputs",
        "submitToolOuputsToRun",
        {"thread_id": "t", "run_id": "r"},
        frozenset({"tool_outputs"}),
        None,
    ),
]
NAMES = [one.method for one in SENDS]
NOT_ARGUMENTS = frozenset({"stream"})
"""Keys of bodies that are no arguments: streaming has methods of its own."""
BODIES = {endpoint.operation: endpoint.body for endpoint in ENDPOINTS}

RUN = Run(id="run_1", thread_id="thread_1", assistant_id="asst_1", status="completed")
TAKES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, arguments_of(name)) for name in methods()},
    "runs.result": ("runs.result", {"run": RUN}),
    "runs.timeline": ("runs.timeline", {"run": RUN}),
    "request": ("request", {"method": "GET", "path": "/path"}),
    **{
        f"{name} stream": (name, {**arguments_of(name), "stream": True})
        for name in ("runs.create", "runs.submit_tool_outputs")
    },
}
"""Every method with what it needs, and twice those that return a stream as well."""


def full(sends: Sends) -> dict[str, Any]:
    """Return a full body without what is no argument."""
    schema = OPERATIONS[sends.operation].body
    assert schema is not None
    return {name: value for name, value in FULL[schema].items() if name not in NOT_ARGUMENTS}


async def sent(method: str, **arguments: Any) -> Received:
    """Return the request the method sends."""
    run = Answer(json=run_json())
    headers = {"openai-runs-features": "idempotency"}  # so that a run carries no mark of ours
    async with (
        HostileServer(lambda _: run._replace(headers=headers)) as server,
        AsyncClient(server.url) as client,
    ):
        await client.request("GET", "/anything")
        await attrgetter(method)(client)(**arguments)
    return server.requests[1]


def test_every_operation_with_a_body_is_here() -> None:
    """A new operation with a body needs a line in the table above."""
    assert {one.operation for one in SENDS} == {name for name, body in BODIES.items() if body}


@pytest.mark.parametrize("sends", SENDS, ids=NAMES)
def test_arguments_are_the_keys_of_struct_and_description(sends: Sends) -> None:
    """`TypedDict`, request Struct and OpenAPI file name the same keys."""
    body = BODIES[sends.operation]
    schema = OPERATIONS[sends.operation].body
    assert body is not None
    assert schema is not None
    declared = set(sends.declared.__annotations__) if sends.declared is not None else set()

    assert not declared & sends.own
    assert declared | sends.own == set(body.__struct_fields__) - NOT_ARGUMENTS
    assert declared | sends.own == set(SCHEMAS[schema]["properties"]) - NOT_ARGUMENTS


@pytest.mark.parametrize("sends", SENDS, ids=NAMES)
async def test_full_body_is_sent_as_given(sends: Sends) -> None:
    """Every key arrives with its value, and the server's decoder takes all of it."""
    request = await sent(sends.method, **sends.ids, **full(sends))

    assert request.json == full(sends)
    msgspec.json.decode(request.body, type=BODIES[sends.operation])
    assert (request.method, request.headers["content-type"]) == ("POST", "application/json")


@pytest.mark.parametrize("sends", SENDS, ids=NAMES)
async def test_body_given_as_structs_is_sent_as_it_is_on_the_wire(sends: Sends) -> None:
    """The values of the decoded Struct, nested ones included, are the same body again."""
    body = BODIES[sends.operation]
    assert body is not None
    struct = msgspec.convert(full(sends), body)
    given = {name: getattr(struct, name) for name in full(sends)}

    request = await sent(sends.method, **sends.ids, **given)

    assert request.json == full(sends)


def unrolled(value: Any) -> Any:
    """Return `value` with generators for lists and foreign mappings for dicts, all the way."""
    if isinstance(value, dict):
        kind: Callable[[Any], Any] = types.MappingProxyType if len(value) % 2 else UserDict
        return kind({name: unrolled(inner) for name, inner in value.items()})
    return (unrolled(inner) for inner in value) if isinstance(value, list) else value


@pytest.mark.parametrize("sends", SENDS, ids=NAMES)
async def test_body_given_as_generators_and_mappings_is_sent_as_lists_and_objects(
    sends: Sends,
) -> None:
    """Any iterable is a list and any mapping an object, however deep."""
    given = {name: unrolled(value) for name, value in full(sends).items()}

    request = await sent(sends.method, **sends.ids, **given)

    assert request.json == full(sends)


@pytest.mark.parametrize("sends", SENDS, ids=NAMES)
async def test_omitted_is_left_out_and_none_is_null(sends: Sends) -> None:
    """Three states: left out, null, a value; `UNSET` is left out as well."""
    least = {name: value for name, value in full(sends).items() if name in sends.own}
    others = sorted(set(full(sends)) - sends.own)

    bare = await sent(sends.method, **sends.ids, **least)
    unset = await sent(sends.method, **sends.ids, **least, **dict.fromkeys(others, msgspec.UNSET))
    null = await sent(sends.method, **sends.ids, **least, **dict.fromkeys(others))

    assert bare.json == unset.json == least
    assert null.json == {**least, **dict.fromkeys(others)}


@pytest.mark.parametrize("sends", SENDS, ids=NAMES)
async def test_unknown_keyword_is_a_type_error(sends: Sends) -> None:
    """A typo is caught before anything is sent, as with any function; it names the call."""
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        with pytest.raises(TypeError, match="temperatur"):
            await attrgetter(sends.method)(client)(**sends.ids, **full(sends), temperatur=1)


@pytest.mark.parametrize(("method", "needed"), TAKES.values(), ids=TAKES)
async def test_unknown_keyword_is_reported_under_the_method_that_was_called(
    method: str, needed: dict[str, Any]
) -> None:
    """Whatever the method calls in turn, and before anything is sent."""
    said = rf"(?i)\b{re.escape(method)}\(\) got an unexpected keyword argument 'timeot'"
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        with pytest.raises(TypeError, match=said):
            await carry_out(client, method, {**needed, "timeot": 1})


@pytest.mark.parametrize(("method", "needed"), TAKES.values(), ids=TAKES)
@pytest.mark.parametrize("keyword", ["page", "body", "call"])
async def test_name_of_a_group_of_keywords_is_no_keyword(
    keyword: str, method: str, needed: dict[str, Any]
) -> None:
    """How keywords are sorted inside is no way in."""
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{keyword}'"):
            await carry_out(client, method, {**needed, keyword: {}})


def test_each_keyword_belongs_to_one_group() -> None:
    """Else where a keyword goes would depend on the order of the groups."""
    groups = [CallOptions, WaitArguments, ToolOptions, StreamOptions, StartOptions, PageOptions]
    names = [name for group in groups for name in group.__annotations__]

    assert len(names) == len({*names})


async def test_keyword_of_another_method_is_unknown() -> None:
    """What a stream, a wait or a list takes is no argument of a create."""
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        for keyword in ("idle_timeout", "interval", "max_rounds", "limit", "thread"):
            with pytest.raises(TypeError, match=rf"runs\.create\(\) .*'{keyword}'"):
                await client.runs.create("t", assistant_id="a", **{keyword: 1})  # type: ignore[call-overload]  # on purpose
        with pytest.raises(TypeError, match=r"threads\.create_and_run\(\) .*'on_active_run'"):
            await client.threads.create_and_run(assistant_id="a", on_active_run="wait")  # type: ignore[call-arg]  # on purpose


async def test_unknown_keyword_of_an_item_is_its_outcome() -> None:
    """An item is sorted as the call is; the others go on."""
    item = {"assistant_id": "a", "thread_id": "t", "timeot": 1}
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        outcomes = [one async for one in client.runs.map([("key", item)], concurrency=1)]

    [(key, outcome)] = outcomes
    assert key == "key"
    assert isinstance(outcome, ConfigError)
    assert "runs.map() got an unexpected keyword argument 'timeot'" in str(outcome)


class Colour(enum.StrEnum):
    """An enumeration of texts."""

    RED = "red"


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: int


class Model(pydantic.BaseModel):
    """A pydantic model, such as the official SDK's objects are."""

    x: int


class Square(pydantic.BaseModel):
    """A model with a computed field."""

    side: int
    name: str | None = None

    @pydantic.computed_field  # type: ignore[prop-decorator]  # as pydantic says it is written
    @property
    def area(self) -> int:
        """Return the area."""
        return self.side**2


class Numbers(pydantic.RootModel[list[int]]):
    """A model that is no object."""


class Text(str):
    """A text of a class of its own."""

    __slots__ = ()


OUTPUTS: list[tuple[Any, str]] = [
    ("text", "text"),
    ('{"a": 1}', '{"a": 1}'),
    ("", ""),
    (42, "42"),
    (1.5, "1.5"),
    (True, "true"),
    (None, "null"),
    ([1, "a"], '[1,"a"]'),
    ((1, 2), "[1,2]"),
    ({"a": None}, '{"a":null}'),
    (range(2), "[0,1]"),
    ({1}, "[1]"),
    (types.MappingProxyType({"a": 1}), '{"a":1}'),
    (Point(1), '{"x":1}'),
    (Model(x=1), '{"x":1}'),
    ([Model(x=1)], '[{"x":1}]'),
    ({"a": Square(side=2)}, '{"a":{"side":2,"name":null,"area":4}}'),
    (Square(side=2, name="s"), '{"side":2,"name":"s","area":4}'),
    (Numbers([1, 2]), "[1,2]"),
    (CodeInterpreterTool(), '{"type":"code_interpreter"}'),
    (Colour.RED, "red"),
    (Text("words"), "words"),
    (datetime.date(2026, 1, 2), '"2026-01-02"'),
    (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    (decimal.Decimal("1.10"), '"1.10"'),
]


@pytest.mark.parametrize(("output", "text"), OUTPUTS, ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("as_struct", [False, True], ids=["mapping", "struct"])
async def test_tool_output_is_sent_as_text(output: Any, text: str, as_struct: bool) -> None:
    """A text as it is; anything else as JSON."""
    given = {"tool_call_id": "call_1", "output": output}

    request = await sent(
        "runs.submit_tool_outputs",
        run_id="r",
        thread_id="t",
        tool_outputs=(one for one in [ToolOutput(**given) if as_struct else given]),
    )

    assert request.json == {"tool_outputs": [{"tool_call_id": "call_1", "output": text}]}


async def test_large_tool_output_is_sent() -> None:
    """Ten megabytes are no reason for a warning, nor for a copy in pieces."""
    output = "x" * 10_000_000

    request = await sent(
        "runs.submit_tool_outputs",
        run_id="r",
        thread_id="t",
        tool_outputs=[{"tool_call_id": "call_1", "output": output}],
    )

    assert request.json["tool_outputs"][0]["output"] == output


@pytest.mark.parametrize(
    "outputs",
    [
        {"tool_call_id": "call_1", "output": "4"},
        "call_1",
        ["call_1"],
        [("call_1", "4")],
        [None],
        [{"tool_call_id": "call_1", "output": object()}],
        None,
        7,
    ],
    ids=["bare mapping", "text", "text in a list", "pair", "null", "no JSON", "None", "number"],
)
async def test_tool_outputs_of_another_shape_are_a_type_error(outputs: Any) -> None:
    """A forgotten list, or what JSON cannot hold, is told before anything is sent."""
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        with pytest.raises(TypeError):
            await client.runs.submit_tool_outputs("r", thread_id="t", tool_outputs=outputs)


async def test_value_json_cannot_hold_is_a_type_error() -> None:
    """It names the class, and nothing is sent."""
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        with pytest.raises(TypeError, match="object"):
            await client.runs.create("t", assistant_id="a", metadata={"a": object()})  # type: ignore[dict-item]  # on purpose


async def test_nested_structs_and_mappings_mix() -> None:
    """Structs in mappings in Structs are one JSON."""
    message = CreateMessage(role="user", content=[RequestTextContent(text="Hi")])
    tool = RequestFunctionTool(function=RequestFunction(name="f"))
    request = await sent(
        "threads.create_and_run",
        assistant_id="a",
        thread={"messages": [message, {"role": "assistant", "content": "Ho"}]},
        tools=[tool, {"type": "bing_grounding", "bing_grounding": {"x": 1}}],
        tool_resources=RequestToolResources(),
        truncation_strategy=RequestTruncationStrategy(kind="auto"),
    )

    assert request.json == {
        "assistant_id": "a",
        "thread": {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                {"role": "assistant", "content": "Ho"},
            ]
        },
        "tools": [
            {"type": "function", "function": {"name": "f"}},
            {"type": "bing_grounding", "bing_grounding": {"x": 1}},
        ],
        "tool_resources": {},
        "truncation_strategy": {"type": "auto"},
    }


async def test_tools_of_an_answer_can_be_sent_back() -> None:
    """The tools of an assistant, foreign kinds included, are good for a run as they are."""
    name = "getAssistant/foundry.json"
    assistant = decoder_for(Assistant).decode(raw(name))

    request = await sent("runs.create", thread_id="t", assistant_id="a", tools=assistant.tools)

    assert request.json["tools"] == load(name)["tools"]


async def test_thread_struct_is_the_thread_of_a_new_run() -> None:
    """`thread=CreateThread(...)` leaves out what is not set."""
    request = await sent(
        "threads.create_and_run", assistant_id="a", thread=CreateThread(metadata={"a": "b"})
    )

    assert request.json == {"assistant_id": "a", "thread": {"metadata": {"a": "b"}}}
