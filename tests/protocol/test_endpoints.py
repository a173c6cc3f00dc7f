"""The table agrees with the vendor's OpenAPI description, in both directions."""

import re
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from openai_runs._protocol import endpoints
from openai_runs._protocol.endpoints import ENDPOINTS, Endpoint
from openai_runs._protocol.lenient import decoder_for
from openai_runs._protocol.spec import Retry
from openai_runs.types import Page, Run, RunStep
from openai_runs.types.base import ADOPTION_KEY
from tests.openapi import EXAMPLES, OPERATIONS, SCHEMAS, is_valid, problems
from tests.openapi.bodies import FULL, variations
from tests.samples import differences
from tests.support import run_json

BY_NAME = {endpoint.operation: endpoint for endpoint in ENDPOINTS}
BODIES: dict[str, Any] = {
    operation.body: BY_NAME[operation.operation].body
    for operation in OPERATIONS.values()
    if operation.body
}
"""Schema of a body -> our request Struct."""
ANSWERS: dict[str, Any] = {
    operation.answer: BY_NAME[operation.operation].answer for operation in OPERATIONS.values()
}
"""Schema of an answer -> our answer type."""


def test_table_has_exactly_the_operations() -> None:
    """23 operations under the same ids, methods and paths, each once."""
    described = {(o.operation, o.method, o.path) for o in OPERATIONS.values()}

    assert {(e.operation, e.method, e.path) for e in ENDPOINTS} == described
    assert len(ENDPOINTS) == len(OPERATIONS) == 23


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.operation)
def test_row_agrees_with_the_description(endpoint: Endpoint[Any]) -> None:
    """Query names, whether there is a body, and which answer."""
    described = OPERATIONS[endpoint.operation]

    assert list(endpoint.query) == [name.removesuffix("[]") for name in described.query]
    assert (endpoint.body is None) == (described.body is None)
    assert endpoint.ids == tuple(re.findall(r"{(\w+)}", described.path))
    assert endpoint.retry == (
        Retry.NOT_IDEMPOTENT if endpoint.method == "POST" else Retry.IDEMPOTENT
    )


def test_constants_are_the_rows() -> None:
    """Each row has one name in capitals; the extensions are not among OpenAI's."""
    named = [value for value in vars(endpoints).values() if isinstance(value, Endpoint)]
    theirs = [row for row in named if row not in endpoints.EXTENSIONS]

    assert sorted(row.operation for row in theirs) == sorted(BY_NAME)
    assert len(named) == len(theirs) + len(endpoints.EXTENSIONS)


def test_a_fixed_path_stands_before_a_path_with_an_id() -> None:
    """`/threads/runs` is found before `/threads/{thread_id}` by a router that takes the first."""
    paths = [endpoint.path for endpoint in ENDPOINTS]

    assert paths.index("/threads/runs") < paths.index("/threads/{thread_id}")


@pytest.mark.parametrize("schema", BODIES)
def test_body_has_the_same_keys(schema: str) -> None:
    """Every property is a field of our Struct and every field a property."""
    fields = {field.encode_name for field in msgspec.structs.fields(BODIES[schema])}

    assert fields == set(SCHEMAS[schema]["properties"])


@pytest.mark.parametrize("schema", BODIES)
def test_full_body_has_every_key(schema: str) -> None:
    """The body that is varied below leaves no property out and is valid."""
    assert set(FULL[schema]) == set(SCHEMAS[schema]["properties"])
    assert problems(schema, FULL[schema]) == []


STRICTER = {
    # path -> (labels of the changes, or None for any; why we refuse what the schema allows)
    r"\.metadata": ({"17 keys", "key of 65"}, "at most 16 pairs, keys of 64: prose"),
    r"\.metadata\.a": (
        {"513 characters", "256000 characters", "256001 characters"},
        "values of 512: prose",
    ),
    r"\.function\.name": (None, "letters, digits, _ and -, at most 64: prose"),
    r"\.json_schema\.name": (None, "letters, digits, _ and -, at most 64: prose"),
    r"\$\.instructions": ({"256001 characters"}, "the bound that assistants have"),
    r"\.messages": ({"129 items"}, "the bound on messages that the API answers with"),
    r"\.attachments\[0\].*": (None, "`required` stands at the wrong level of the schema"),
    r"\.tool_outputs\[0\]": (None, "an output without `tool_call_id` answers no call"),
    r"\.tool_outputs\[0\]\.tool_call_id": ({"left out"}, "the same"),
}
LOOSER = {
    # path -> (labels, why we accept what the schema refuses)
    r"\.messages": ({"= None"}, "null is harmless, and other bodies allow it"),
    r"\.tools": ({"21 items", "128 items"}, "runs inherit an assistant's 128"),
    r"\.file_search": (None, "neither ids nor stores is harmless"),
    r"\.file_search\.vector_stores": ({"left out"}, "the same"),
}


def named(path: str, label: str, table: dict[str, tuple[set[str] | None, str]]) -> str | None:
    """Return the entry of the table that explains this difference."""
    for pattern, (labels, _) in table.items():
        if re.search(pattern + r"\Z", path) and (labels is None or label in labels):
            return pattern
    return None


@pytest.mark.parametrize("schema", BODIES)
def test_body_is_accepted_and_refused_as_described(schema: str) -> None:
    """Required keys, unknown keys, nulls, enums and both sides of every bound agree."""
    decoder = msgspec.json.Decoder(BODIES[schema])
    surprising = []

    for path, label, body in variations(schema):
        accepted = decodes(decoder, body)
        table = LOOSER if accepted else STRICTER
        if accepted != is_valid(schema, body) and not named(path, label, table):
            surprising.append(f"{path} {label}: {'accepted' if accepted else 'refused'}")

    assert surprising == []


def test_differences_are_all_real() -> None:
    """An entry of the two tables that explains nothing any more is to be deleted."""
    used = {True: set[str | None](), False: set[str | None]()}
    for schema in (
        "CreateThreadAndRunRequest",
        "CreateMessageRequest",
        "ModifyAssistantRequest",
        "SubmitToolOutputsRunRequest",
    ):
        decoder = msgspec.json.Decoder(BODIES[schema])
        for path, label, body in variations(schema):
            for accepted, table in ((True, LOOSER), (False, STRICTER)):
                entry = named(path, label, table)
                if entry in used[accepted] or entry is None:
                    continue
                if is_valid(schema, body) != accepted and decodes(decoder, body) == accepted:
                    used[accepted].add(entry)

    assert used == {True: set(LOOSER), False: set(STRICTER)}


def decodes(decoder: msgspec.json.Decoder[Any], body: Any) -> bool:
    """Tell whether our Struct takes the body."""
    try:
        decoder.decode(msgspec.json.encode(body))
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize("schema", BODIES)
def test_unknown_key_of_a_body_is_named(schema: str) -> None:
    """A closed body says which key it does not know."""
    body = {**FULL[schema], "no_such_key": 1}

    with pytest.raises(msgspec.ValidationError, match="no_such_key"):
        msgspec.json.decode(msgspec.json.encode(body), type=BODIES[schema])


@pytest.mark.parametrize("schema", BODIES)
def test_body_is_sent_as_it_was_meant(schema: str) -> None:
    """A decoded request encodes to the same JSON: left out stays out, null stays null."""
    for body in (FULL[schema], dict.fromkeys(FULL[schema]) | required(schema)):
        decoder = msgspec.json.Decoder(BODIES[schema])
        if decodes(decoder, body):
            request = decoder.decode(msgspec.json.encode(body))
            assert msgspec.json.decode(msgspec.json.encode(request)) == body


def required(schema: str) -> dict[str, Any]:
    """Return the keys a body cannot do without, from the full one."""
    return {name: FULL[schema][name] for name in SCHEMAS[schema].get("required", [])}


def objects(shape: inspect.Type) -> dict[str, inspect.Field]:
    """Return the fields of a Struct by their wire names."""
    assert isinstance(shape, inspect.StructType)
    return {field.encode_name: field for field in shape.fields}


OURS_ALONE = {
    "RunObject": {"file_ids", "tool_resources"},  # v1; Azure
    "AssistantObject": {"file_ids", "reasoning_effort"},  # v1; answered by the API, not described
    "MessageObject": {"file_ids"},  # v1
    "RunStepObject": {"expires_at"},  # Foundry
}


@pytest.mark.parametrize("schema", ANSWERS)
def test_answer_has_the_same_fields(schema: str) -> None:
    """Every property is a field of ours; what else we have is named."""
    fields = set(objects(inspect.type_info(ANSWERS[schema])))

    assert fields - set(SCHEMAS[schema]["properties"]) == OURS_ALONE.get(schema, set())
    assert set(SCHEMAS[schema]["properties"]) - fields == set()


SHOWN = [example for example in EXAMPLES["operations"] if isinstance(example["answer"], dict)]


@pytest.mark.parametrize("example", SHOWN, ids=lambda example: example["operation"])
def test_official_answers_come_out_valid(example: dict[str, Any]) -> None:
    """The reference's own examples decode, lose nothing, and come out valid.

    Many of them lack fields that the description requires; those are the ones added.
    """
    operation = OPERATIONS[example["operation"]]

    answer = BY_NAME[operation.operation].answer
    ours = msgspec.json.decode(
        msgspec.json.encode(decoder_for(answer).decode(msgspec.json.encode(example["answer"])))
    )

    lost = {p for p, (wire, _) in differences(example["answer"], ours).items() if wire is not ...}
    assert lost == set()
    assert problems(operation.answer, ours) == []


OBJECTS: dict[str, Any] = {
    **{name: kind for name, kind in ANSWERS.items() if not name.startswith("Delete")},
    "RunObject": Run,
    "RunStepObject": RunStep,
}


@pytest.mark.parametrize("example", EXAMPLES["objects"], ids=lambda example: example["schema"])
def test_official_objects_come_out_valid(example: dict[str, Any]) -> None:
    """The example of each schema decodes and comes out valid; deltas come with streaming."""
    if "Delta" in example["schema"]:
        assert example["schema"] not in OBJECTS
        return

    answer = decoder_for(OBJECTS[example["schema"]]).decode(msgspec.json.encode(example["value"]))

    assert problems(example["schema"], msgspec.json.decode(msgspec.json.encode(answer))) == []


REQUESTS = [example for example in EXAMPLES["operations"] if isinstance(example["request"], dict)]


@pytest.mark.parametrize("example", REQUESTS, ids=lambda example: example["operation"])
def test_official_requests_are_accepted(example: dict[str, Any]) -> None:
    """The reference's own request bodies are read by our Structs and encode unchanged."""
    body = BY_NAME[example["operation"]].body
    assert body is not None

    request = msgspec.json.decode(msgspec.json.encode(example["request"]), type=body)

    assert msgspec.json.decode(msgspec.json.encode(request)) == example["request"]


def test_spec_is_the_whole_request() -> None:
    """Ids, query and body in; path, query, bytes, decoder and the ids for errors out."""
    spec = endpoints.LIST_RUN_STEPS.spec(
        {"thread_id": "thread_1", "run_id": "rün"}, query={"limit": 2, "include": ["a[*]"]}
    )

    assert (spec.method, spec.path) == ("GET", "/threads/thread_1/runs/r%C3%BCn/steps")
    assert spec.query == "limit=2&include%5B%5D=a%5B%2A%5D"
    assert spec.body is None
    assert (spec.thread_id, spec.run_id, spec.retry) == ("thread_1", "rün", Retry.IDEMPOTENT)
    page: Page[RunStep] = spec.decode(b'{"data": []}')
    assert page.data == []


def test_spec_of_a_create_has_its_body() -> None:
    """The body is JSON; an empty one is sent as an empty object."""
    assert endpoints.CREATE_THREAD.spec({}, body={}).body == b"{}"
    assert endpoints.CREATE_RUN.spec({"thread_id": "t"}, body={"a": 1}).body == b'{"a":1}'
    assert endpoints.CANCEL_RUN.spec({"thread_id": "t", "run_id": "r"}).body is None


@pytest.mark.parametrize(
    ("endpoint", "ids", "answer"),
    [
        (endpoints.DELETE_THREAD, {"thread_id": "x"}, "DeleteThreadResponse"),
        (endpoints.DELETE_ASSISTANT, {"assistant_id": "x"}, "DeleteAssistantResponse"),
        (endpoints.DELETE_MESSAGE, {"thread_id": "t", "message_id": "x"}, "DeleteMessageResponse"),
        (endpoints.GET_THREAD, {"thread_id": "x"}, None),
    ],
)
def test_a_delete_knows_what_it_would_have_been_told(
    endpoint: Endpoint[Any], ids: dict[str, str], answer: str | None
) -> None:
    """What a second DELETE answers after the first one worked is a valid answer."""
    deleted_body = endpoint.spec(ids).deleted_body

    if answer is None:
        assert deleted_body == b""
        return
    assert problems(answer, msgspec.json.decode(deleted_body)) == []
    assert msgspec.json.decode(deleted_body)["id"] == "x"


MARKED = {"metadata": {"a": "b", ADOPTION_KEY: "key"}}
ROWS = (*ENDPOINTS, *endpoints.EXTENSIONS)
RUN_ROWS = [row for row in ROWS if row.answer in (Run, Page[Run])]


@pytest.mark.parametrize("row", RUN_ROWS, ids=lambda row: row.operation)
def test_decoded_run_carries_no_create_marker(row: Endpoint[Any]) -> None:
    """It is stripped in one place, so that no method can forget it; a verifier may keep it."""
    run = {**run_json(), **MARKED}
    answer = msgspec.json.encode(run if row.answer is Run else {"data": [run, {"id": 7}]})
    keeping = msgspec.structs.replace(row, keeps_marker=True)

    shown, kept = row.decode(answer), keeping.decode(answer)

    first, verified = (shown, kept) if row.answer is Run else (shown.data[0], kept.data[0])
    assert first.metadata == {"a": "b"}
    assert verified.metadata == MARKED["metadata"]


def test_every_operation_that_answers_with_runs_is_among_these() -> None:
    """Seven of the description's, the stream of a run, and the runs of all threads."""
    assert len(RUN_ROWS) == 9
