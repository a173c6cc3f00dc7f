"""Answers are plain values: what came with them over HTTP stays out of JSON, repr and ==."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import pydantic
import pytest
from fastapi.encoders import jsonable_encoder

from openai_runs._protocol.lenient import decoder_for
from openai_runs.types import (
    ADOPTION_KEY,
    Answer,
    Deleted,
    HTTPInfo,
    Message,
    Page,
    Run,
    SortOrder,
    Unknown,
    UnknownItem,
)
from tests.samples import load, raw

SAMPLES: dict[str, Any] = {
    "getRun/requires_action.json": Run,
    "getRun/completed.json": Run,
    "getRun/foundry_in_progress.json": Run,
    "getMessage/completed.json": Message,
    "listMessages/astra_page.json": Page[Message],
    "listRuns/one_unreadable.json": Page[Run],
    "deleteThread/completed.json": Deleted,
}


def read(name: str, content: bytes | None = None) -> Any:
    """Return a sample as it comes out of a call: with its `.http`."""
    text = raw(name) if content is None else content
    answer = decoder_for(SAMPLES[name]).decode(text)
    vars(answer)["_http"] = HTTPInfo(200, {"x-request-id": "req_1"}, text, 1)
    return answer


@pytest.mark.parametrize("name", SAMPLES)
def test_http_is_seen_by_nobody_who_does_not_ask(name: str) -> None:
    """An answer with `.http` equals, prints and encodes like one without."""
    answer = read(name)
    bare = decoder_for(SAMPLES[name]).decode(raw(name))

    assert answer.http.request_id == "req_1"
    assert bare.http is None
    assert answer == bare
    assert repr(answer) == repr(bare)
    assert msgspec.json.encode(answer) == msgspec.json.encode(bare)


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda answer: pickle.loads(pickle.dumps(answer)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "replace": msgspec.structs.replace,
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("way", COPIES)
def test_copies_are_equal_and_leave_http_behind(way: str, name: str) -> None:
    """However an answer is copied, the copy is the same object of the API, without `.http`."""
    answer = read(name)

    twin = COPIES[way](answer)

    assert twin == answer
    assert type(twin) is type(answer)
    assert twin is not answer
    assert twin.http is None
    assert answer.http is not None


def test_answers_are_frozen() -> None:
    """An answer cannot be changed by accident."""
    run = read("getRun/completed.json")

    with pytest.raises(AttributeError, match="immutable"):
        run.status = "failed"


@pytest.mark.parametrize("name", SAMPLES)
def test_to_dict_and_to_json_are_the_wire(name: str) -> None:
    """Fields that this version does not know are there, also in pages and their items."""
    answer = read(name)

    assert answer.to_dict() == load(name)
    assert msgspec.json.decode(answer.to_json()) == load(name)
    assert answer.model_dump() == answer.model_dump(mode="python") == load(name)
    assert msgspec.json.decode(answer.model_dump_json()) == load(name)


def test_to_dict_of_a_copy_is_what_we_know() -> None:
    """Without `.http` the object itself is written."""
    wire = {**load("getRun/completed.json"), "from_the_future": 1}
    run = read("getRun/completed.json", msgspec.json.encode(wire))

    assert run.to_dict() == wire
    assert copy.copy(run).to_dict() == load("getRun/completed.json")


def test_to_dict_does_not_trust_what_came() -> None:
    """An answer whose body was no object is written from its fields."""
    run = read("getRun/completed.json")
    vars(run)["_http"] = HTTPInfo(200, {}, b"[]", 1)

    assert run.to_dict() == load("getRun/completed.json")


def test_to_json_is_indented_on_demand() -> None:
    """`indent` gives lines to read, as json.dumps does."""
    answer = read("deleteThread/completed.json")

    assert answer.to_json(indent=1).splitlines()[1] == ' "id": "x_1",'
    assert answer.model_dump_json(indent=2).splitlines()[1] == '  "id": "x_1",'
    assert "\n" not in answer.to_json()


def test_model_dump_leaves_nulls_out_on_demand() -> None:
    """`exclude_none` reaches into lists and nested objects."""
    wire = load("getRun/completed.json")
    wire["tools"] = [{"type": "function", "function": {"name": "f", "strict": None}}]
    run = read("getRun/completed.json", msgspec.json.encode(wire))

    dumped = run.model_dump(exclude_none=True)

    assert dumped["tools"] == [{"type": "function", "function": {"name": "f"}}]
    assert "last_error" not in dumped
    assert "null" not in run.model_dump_json(exclude_none=True)


@pytest.mark.parametrize("name", ["getRun/completed.json", "listRuns/one_unreadable.json"])
def test_the_mark_of_a_create_is_never_shown(name: str) -> None:
    """The pair that marks our creates is not in the JSON handed on, the caller's pairs are."""
    wire = load(name)
    for run in wire.get("data", [wire]):
        run["metadata"] = {"mine": "1", ADOPTION_KEY: "k"}

    shown = read(name, msgspec.json.encode(wire)).to_dict()

    assert [run["metadata"] for run in shown.get("data", [shown])] == [{"mine": "1"}] * len(
        shown.get("data", [shown])
    )


@pytest.mark.parametrize("name", SAMPLES)
def test_fastapi_encodes_answers_as_the_wire(name: str) -> None:
    """`return run`, `return page` and `return {"run": run}` give the wire's JSON."""
    answer = read(name)

    assert jsonable_encoder(answer) == load(name)
    assert jsonable_encoder({"run": answer}) == {"run": load(name)}


def test_pydantic_models_can_hold_answers() -> None:
    """A FastAPI response model is written as the wire's JSON and described as an object."""
    adapter: pydantic.TypeAdapter[Run] = pydantic.TypeAdapter(Run)
    run = read("getRun/completed.json")

    assert adapter.validate_python(run) is run
    assert adapter.dump_python(run) == load("getRun/completed.json")
    assert adapter.dump_python(None, warnings=False) is None  # type: ignore[arg-type]
    assert adapter.json_schema() == {"type": "object", "title": "Run"}


def test_dict_of_an_answer_is_the_wire() -> None:
    """`dict(run)` and `dict(page)` are JSON objects, as encoders that call `dict` expect."""
    assert dict(read("getRun/completed.json")) == load("getRun/completed.json")
    assert dict(read("listMessages/astra_page.json")) == load("listMessages/astra_page.json")


def test_page_is_a_collection_of_its_items() -> None:
    """A page can be iterated and counted, and is true even when it is empty."""
    page = read("listMessages/astra_page.json")
    empty: Page[Run] = Page(data=[])

    assert [message.id for message in page] == ["msg_abc123"]
    assert len(page) == 1
    assert (len(empty), bool(empty), empty.has_more, empty.first_id) == (0, True, False, None)
    assert page["has_more"] is False


def finish(step: Any) -> Any:
    """Run a coroutine that waits for nothing to its end, without an event loop."""
    with pytest.raises(StopIteration) as end:
        step.send(None)
    return end.value.value


def test_next_page_is_what_the_list_call_left() -> None:
    """A page asks the call it came from; None after the last."""
    page = read("listMessages/astra_page.json")

    async def follow(last: object) -> None:
        assert last is page

    vars(page)["_follow"] = follow

    assert finish(page.next_page()) is None


def test_next_page_of_a_copy_says_why_there_is_none() -> None:
    """A page that does not come from a list call is told apart from a last page."""
    page = copy.copy(read("listMessages/astra_page.json"))

    with pytest.raises(RuntimeError, match="does not come from a list call"):
        page.next_page().send(None)


def test_unknown_says_its_type_and_keeps_its_json() -> None:
    """`.type` is a text in any case, `.raw` a dict of its own."""
    unknown = Unknown(type="mcp", a=1)

    assert (unknown.type, Unknown(type=5).type, Unknown().type) == ("mcp", "", "")
    assert unknown.raw == {"type": "mcp", "a": 1}
    assert type(unknown.raw) is dict
    assert msgspec.json.decode(msgspec.json.encode([unknown])) == [unknown.raw]


def test_unknown_item_reads_like_the_item_it_should_have_been() -> None:
    """Fields that are there can be read by name; others are no attributes."""
    item = UnknownItem(id="run_1", status="queued")

    assert (item.id, item.status) == ("run_1", "queued")
    assert not hasattr(item, "thread_id")
    assert pickle.loads(pickle.dumps(item)) == item
    assert copy.deepcopy(item) == item


def test_unknown_parts_survive_pickling() -> None:
    """A run with foreign tools is the same run in another process, types included."""
    run = read("getRun/foundry_in_progress.json")

    twin = pickle.loads(pickle.dumps(run))

    assert [type(tool) for tool in twin.tools] == [type(tool) for tool in run.tools]


def test_answers_hold_nothing_but_http_beside_their_fields() -> None:
    """The space beside the fields is empty unless a call filled it."""
    assert vars(decoder_for(Run).decode(raw("getRun/completed.json"))) == {}
    assert issubclass(Run, Answer)


def test_sort_order_is_what_the_api_takes() -> None:
    """The two orders, by their wire names."""
    assert (SortOrder.ASC, SortOrder.DESC) == ("asc", "desc")
