"""Answers of every server that speaks this wire are read, and nothing of them is lost."""

import datetime
from typing import Any, Literal

import msgspec
import pytest

from openai_runs._protocol.endpoints import ENDPOINTS
from openai_runs._protocol.lenient import decoder_for
from openai_runs.types import (
    Assistant,
    Message,
    NamedToolChoice,
    Page,
    Part,
    RequiredToolCall,
    Run,
    RunStep,
    Unknown,
    UnknownAnnotation,
    UnknownContent,
    UnknownItem,
    UnknownOutput,
    UnknownResponseFormat,
    UnknownStepDetails,
    UnknownTool,
    UnknownToolCall,
)
from tests.samples import ANSWERS, differences, load, raw

KINDS: dict[str, Any] = {endpoint.operation: endpoint.answer for endpoint in ENDPOINTS}

OFF_STANDARD = ("foundry", "open_assistant_api", "astra", "v1", "minimal", "one_unreadable")
"""Samples of servers that leave fields out or send other shapes."""

NOT_REWRITTEN = {
    "getRun/foundry_in_progress.json": {"$.tool_resources.azure_ai_search"},
}
"""Fields that only `to_dict()` of a top-level answer keeps, since we have no place for them."""


def decode(name: str) -> Any:
    """Return the sample as our object."""
    return decoder_for(KINDS[name.partition("/")[0]]).decode(raw(name))


def run(**fields: Any) -> bytes:
    """Return the JSON of a run with these fields."""
    wire = {"id": "run_1", "thread_id": "thread_1", "status": "queued", **fields}
    return msgspec.json.encode(wire)


def rewritten(answer: Any) -> Any:
    """Return the JSON that our object is written as."""
    return msgspec.json.decode(msgspec.json.encode(answer))


@pytest.mark.parametrize("name", [n for n in ANSWERS if not any(s in n for s in OFF_STANDARD)])
def test_standard_answers_come_out_as_they_went_in(name: str) -> None:
    """Encoding a decoded answer gives the wire's JSON again, field for field."""
    assert differences(load(name), rewritten(decode(name))) == {}


def harmless(path: str, wire: Any, ours: Any) -> bool:
    """Tell whether the mending made this of it: a default, a whole second, a null, a text."""
    if wire is ... or wire is None:
        return ours in (None, ..., False, True, 0, "", [], "completed", "thread", "null")
    if wire == {}:
        return ours is None
    if ".metadata." in path:
        return isinstance(ours, str)
    return path.endswith("_at") and isinstance(wire, float) and ours == int(wire)


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_change_only_where_they_are_mended(name: str) -> None:
    """What differs after decoding and encoding is a default or a mended shape, else named."""
    found = differences(load(name), rewritten(decode(name)))

    harmful = {path for path, (wire, ours) in found.items() if not harmless(path, wire, ours)}

    assert harmful == NOT_REWRITTEN.get(name, set())


def test_foreign_tools_cost_only_themselves() -> None:
    """The function between Foundry's own tools is a function; they keep their raw JSON."""
    tools = decode("getRun/foundry_in_progress.json").tools

    assert [type(tool) for tool in tools[:4]] == [UnknownTool] * 4
    assert [tool.type for tool in tools] == [
        "openapi",
        "bing_grounding",
        "azure_ai_search",
        "mcp",
        "function",
    ]
    assert tools[3].raw["server_label"] == "github"
    assert tools[4].function.name == "get_weather"


UNKNOWN = [
    ("getRun/foundry_requires_foreign_call.json", UnknownToolCall, "mcp"),
    ("getRunStep/foundry_foreign_calls.json", UnknownToolCall, "openapi"),
    ("getRunStep/foundry_foreign_details.json", UnknownStepDetails, "activities"),
    ("getRunStep/foreign_output.json", UnknownOutput, "video"),
    ("getMessage/foundry_foreign_parts.json", UnknownAnnotation, "url_citation"),
    ("getMessage/foundry_foreign_parts.json", UnknownContent, "audio"),
    ("getMessage/foundry_foreign_parts.json", UnknownTool, "mcp"),
    ("getAssistant/foundry.json", UnknownResponseFormat, "xml"),
    ("listRuns/one_unreadable.json", UnknownItem, ""),
]


def parts(value: Any) -> list[Any]:
    """Return every part of an answer, at any depth."""
    if isinstance(value, msgspec.Struct):
        inner = [parts(getattr(value, name)) for name in value.__struct_fields__]
        return [value, *(part for group in inner for part in group)]
    if isinstance(value, list):
        return [part for item in value for part in parts(item)]
    return [value] if isinstance(value, Unknown) else []


@pytest.mark.parametrize(("name", "kind", "wire"), UNKNOWN)
def test_unknown_variants_are_kept(name: str, kind: type[Unknown], wire: str) -> None:
    """A variant nobody here knows is an `Unknown...` of its union, with the wire's type."""
    found = [part for part in parts(decode(name)) if isinstance(part, kind)]

    assert type(found[0]) is kind
    assert found[0].type == wire
    assert found[0].raw == dict(found[0])


@pytest.mark.parametrize("name", ANSWERS)
def test_every_variant_says_its_type(name: str) -> None:
    """`.type` of each tagged part is a text, the same that stands in the JSON."""
    for part in parts(decode(name)):
        if isinstance(part, Part) and "type" in rewritten(part):
            assert part.type == rewritten(part)["type"]


def test_foreign_call_leaves_the_function_calls_usable() -> None:
    """`run.tool_calls` holds the functions, the action holds all, each with its id."""
    answer: Run = decode("getRun/foundry_requires_foreign_call.json")

    action = answer.required_action
    assert action is not None
    assert action.submit_tool_outputs is not None
    assert [call.id for call in action.submit_tool_outputs.tool_calls] == ["call_9", "call_1"]
    assert [call.function.name for call in answer.tool_calls] == ["get_weather"]
    assert isinstance(answer.tool_calls[0], RequiredToolCall)


def test_unreadable_item_costs_only_itself() -> None:
    """A run without `thread_id` becomes an `UnknownItem` among readable runs."""
    page: Page[Run] = decode("listRuns/one_unreadable.json")

    assert [type(item) for item in page.data] == [Run, UnknownItem, Run]
    assert [item.id for item in page.data] == ["run_1", "run_2", "run_3"]


def test_floats_and_numbers_of_other_servers_are_mended() -> None:
    """Float times are cut to seconds, `{}` is null, metadata is text."""
    answer: Run = decode("getRun/open_assistant_api_completed.json")

    assert (answer.created_at, answer.expires_at) == (1710330640, 1710331240)
    assert (answer.usage, answer.last_error, answer.required_action) == (None, None, None)
    assert (answer.response_format, answer.tool_choice) == (None, None)
    assert answer.metadata == {
        "user": "42",
        "ratio": "0.5",
        "flag": "true",
        "nothing": "null",
        "nested": '{"a":[1]}',
    }


def test_null_for_a_field_with_a_default_is_the_default() -> None:
    """A server that sends null where the API has a value does not break the reader."""
    answer: Run = decode("getRun/astra_in_progress.json")

    assert (answer.tools, answer.parallel_tool_calls, answer.model) == ([], True, "")


def test_unknown_status_is_read() -> None:
    """A status from the future is kept as it is, and counts as neither active nor finished."""
    answer: Run = decode("getRun/unknown_status.json")

    assert answer.status == "paused_for_review"
    assert not answer.is_active
    assert not answer.is_terminal


def test_mending_reaches_into_a_named_tool_choice() -> None:
    """A choice among shapes is made by what fits: an object is a named tool."""
    answer = decoder_for(Run).decode(run(tool_choice={"type": "mcp"}, created_at=1.5))

    assert answer.tool_choice == NamedToolChoice(kind="mcp")


def test_mending_keeps_json_of_any_shape() -> None:
    """A field that may hold any JSON keeps it, null included, while another is mended."""
    function = {"name": "f", "parameters": {"a": [1.5, None, {"b": True}]}, "strict": None}
    tools = [{"type": "function", "function": function}]

    answer = decoder_for(Run).decode(run(created_at=1.5, tools=tools, temperature=1, top_p=0.5))

    assert rewritten(answer)["tools"][0]["function"]["parameters"] == function["parameters"]
    assert (answer.temperature, answer.top_p) == (1.0, 0.5)


HOPELESS = [
    (Run, run(created_at="yesterday"), "$.created_at"),
    (Run, run(created_at=1e300), "$.created_at"),
    (Run, run(created_at=True), "$.created_at"),
    (Run, run(id=5), "$.id"),
    (Run, run(status=None), "$.status"),
    (Run, run(tools=5), "$.tools"),
    (Run, run(tools={"a": 1}), "$.tools"),
    (Run, run(metadata=[1]), "$.metadata"),
    (Run, run(metadata="x"), "$.metadata"),
    (Run, run(usage={"prompt_tokens": "many"}), "$.usage.prompt_tokens"),
    (Run, run(usage=[]), "$.usage"),
    (Run, run(usage={"total_tokens": 1}), "prompt_tokens` - at `$.usage"),
    (Run, run(last_error={"code": "x"}), "message` - at `$.last_error"),
    (Run, run(tool_choice=5), "$.tool_choice"),
    (Run, run(parallel_tool_calls="yes"), "$.parallel_tool_calls"),
    (Run, run(temperature="hot"), "$.temperature"),
    (Run, run(incomplete_details="x"), "$.incomplete_details"),
    (Run, run(truncation_strategy={"last_messages": 1}), "$.truncation_strategy"),
    (Run, run(file_ids=["a", 1]), "$.file_ids[1]"),
    (Run, b'{"thread_id": "t", "status": "queued"}', "`id` - at `$`"),
    (Run, b"[]", "at `$`"),
    (Run, b"null", "at `$`"),
    (Page[Run], b'{"data": {}}', "$.data"),
    (Page[Run], b'{"object": "list"}', "`data` - at `$`"),
    (RunStep, b'{"id": "s", "status": "x"}', "`step_details` - at `$`"),
    (
        RunStep,
        b'{"id": "s", "status": "x", "step_details": {"type": "tool_calls", "tool_calls": 5}}',
        "$.step_details.tool_calls",
    ),
    (Run, b'{"id": "a/b", "thread_id": "t", "status": "queued"}', "$.id"),
    (Run, b'{"id": "r", "thread_id": "..", "status": "queued"}', "$.thread_id"),
    (Run, b'{"id": 5, "thread_id": "t", "status": "queued"}', "$.id"),
    (Message, b'{"id": "m", "content": "Hi"}', "$.content"),
    (Assistant, b'{"id": "a", "response_format": 5}', "$.response_format"),
]


@pytest.mark.parametrize(("kind", "wire", "path"), HOPELESS)
def test_hopeless_shape_is_an_error_that_names_its_path(kind: Any, wire: bytes, path: str) -> None:
    """A known field that cannot be read is not guessed at."""
    with pytest.raises(msgspec.ValidationError) as caught:
        decoder_for(kind).decode(wire)

    assert path in str(caught.value)


@pytest.mark.parametrize("item", [None, "x", 5, [1]])
def test_item_that_is_no_object_costs_only_itself(item: object) -> None:
    """A list keeps its other items; the odd one is there as it came."""
    wire = msgspec.json.encode({"data": [item, msgspec.Raw(run())]})

    page = decoder_for(Page[Run]).decode(wire)

    odd: object = page.data[0]
    assert odd == UnknownItem({"value": item})
    assert page.data[1].id == "run_1"


class Leaf(msgspec.Struct):
    """A caller's own type, tagged by nothing."""

    kind: Literal["a", "b"]


class Shelf(msgspec.Struct, tag="shelf"):
    """A caller's own variant."""

    size: int


class Box(msgspec.Struct, tag="box"):
    """Another variant."""

    leaf: Leaf


class Own(msgspec.Struct):
    """A caller's own answer, as `client.request(into=Own)` reads it."""

    at: int
    anything: Any = None
    leaves: dict[str, Leaf] = {}
    held: Shelf | Box | None = None
    number: int | str = 0
    exactly: int | None = None
    when: datetime.date | None = None
    many: list[Leaf] = []


OWN = [
    ({"anything": [1, None, {"a": 1.5}]}, Own(at=1, anything=[1, None, {"a": 1.5}])),
    ({"leaves": {"x": {"kind": "a"}}}, Own(at=1, leaves={"x": Leaf("a")})),
    ({"held": {"type": "box", "leaf": {"kind": "b"}}}, Own(at=1, held=Box(Leaf("b")))),
    ({"held": {}}, Own(at=1)),
    ({"number": "7"}, Own(at=1, number="7")),
    ({"number": 7.5}, Own(at=1, number=7)),
    ({"held": {"type": "bag"}}, "$.held.type"),
    ({"held": 5}, "$.held"),
    ({"leaves": {"x": {"kind": "c"}}}, "$.leaves.x.kind"),
    ({"leaves": {"x": 5}}, "$.leaves.x"),
    ({"exactly": {"a": 1}}, "$.exactly"),
    ({"when": "2026-01-01"}, "$.when"),
    ({"many": [{"kind": "a"}, {"kind": "c"}]}, "$.many[1].kind"),
]


@pytest.mark.parametrize(("fields", "outcome"), OWN)
def test_types_of_the_caller_are_mended_or_refused(fields: Any, outcome: Own | str) -> None:
    """Any Struct may be read into; what cannot be mended names its path, and is never wrong."""
    wire = msgspec.json.encode({"at": 1.5, **fields})

    if isinstance(outcome, Own):
        assert decoder_for(Own).decode(wire) == outcome
        return
    with pytest.raises(msgspec.ValidationError) as caught:
        decoder_for(Own).decode(wire)
    assert outcome in str(caught.value)


DEEP = b"[" * 1_000_000
"""Too deep for each Python: from 3.14 on the stack is the limit, and not a number of calls."""
NO_JSON = {
    "empty": b"",
    "truncated": run()[:-5],
    "html": b"<html>502 Bad Gateway</html>",
    "bom": b"\xef\xbb\xbf" + run(),
    "deep": DEEP,
    "deep in an unknown field": b'{"x": ' + DEEP,
    "deep behind a field to mend": b'{"created_at": 1.5, "x": ' + DEEP,
    "lone surrogate": b'{"id": "\\ud800"}',
    "not UTF-8": b'{"id": "\xff"}',
    "NaN": b'{"created_at": NaN}',
    "beyond float": b'{"created_at": 1e999}',
}


@pytest.mark.parametrize("wire", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_is_a_decode_error(wire: bytes) -> None:
    """Whatever bytes a server sends, the reader raises one kind of error."""
    with pytest.raises(msgspec.DecodeError):
        decoder_for(Run).decode(wire)


def test_decoders_are_made_once() -> None:
    """Asking twice for the same kind gives the same decoder."""
    assert decoder_for(Page[Run]) is decoder_for(Page[Run])


ODD_PAGES: dict[str, tuple[dict[str, Any], bool]] = {
    "numbers for ids": ({"first_id": 1, "last_id": {"id": 2}, "has_more": True}, True),
    "texts for has_more": ({"has_more": "true"}, True),
    "no as a text": ({"has_more": "false", "last_id": []}, False),
    "numbers for has_more": ({"has_more": 1}, True),
    "null for all": ({"object": None, "has_more": None, "first_id": None}, False),
}


@pytest.mark.parametrize(("fields", "more"), ODD_PAGES.values(), ids=ODD_PAGES)
def test_page_survives_what_is_around_its_items(fields: dict[str, Any], more: bool) -> None:
    """Cursors that cannot be read are those of the items."""
    items = [{"id": "run_1", "thread_id": "thread_1", "status": "queued"}]
    text = msgspec.json.encode({"object": "list", "data": items, **fields})

    page = decoder_for(Page[Run]).decode(text)

    assert [type(item) for item in page.data] == [Run]
    assert page.has_more is more
