"""Pieces of steps become the steps they are pieces of: calls, their outputs, their messages."""

from typing import Any

import msgspec
import pytest

from openai_runs.types import (
    CodeInterpreterToolCall,
    Event,
    RunStepEvent,
    UnknownOutput,
    UnknownStepDetails,
    UnknownToolCall,
)
from tests.protocol.event_builders import call_delta, run, snapshot_of, step, step_delta


def function(index: int = 0, id: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return a piece of a function call."""
    return {"index": index, "type": "function", "id": id, "function": fields}


def code(index: int = 0, id: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return a piece of a call of the code interpreter."""
    return {"index": index, "type": "code_interpreter", "id": id, "code_interpreter": fields}


def called(id: str, name: str, arguments: str, output: str | None = None) -> dict[str, Any]:
    """Return a function call as a step has it."""
    done = {"name": name, "arguments": arguments, "output": output}
    return {"type": "function", "id": id, "function": done}


def ran(id: str, code: str, *outputs: Any) -> dict[str, Any]:
    """Return a call of the code interpreter as a step has it."""
    done: dict[str, Any] = {"input": code, "outputs": list(outputs)}
    return {"type": "code_interpreter", "id": id, "code_interpreter": done}


def output(kind: str, index: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a piece of what code printed or made."""
    return {"type": kind, "index": index, **fields}


MERGED: dict[str, tuple[list[Any], list[Any]]] = {
    "arguments are put one after the other": (
        [
            function(id="call_1", name="f", arguments=""),
            function(arguments='{"a"'),
            function(arguments=":1}"),
        ],
        [called("call_1", "f", '{"a":1}')],
    ),
    "id, name and type may be said again": (
        [
            function(id="call_1", name="f", arguments="{"),
            function(id="call_1", name="f", arguments="}"),
        ],
        [called("call_1", "f", "{}")],
    ),
    "id and name may come late": (
        [function(arguments="{"), function(name="f"), function(id="call_1", arguments="}")],
        [called("call_1", "f", "{}")],
    ),
    "id and name may be empty later": (
        [function(id="call_1", name="f"), function(id="", name="", arguments="{}")],
        [called("call_1", "f", "{}")],
    ),
    "a call of which nothing is known": (
        [{"index": 0, "type": "function"}],
        [called("", "", "")],
    ),
    "null becomes the output": (
        [
            function(id="call_1", name="f", arguments="{}", output=None),
            function(output="42"),
            function(output=None),
        ],
        [called("call_1", "f", "{}", "42")],
    ),
    "an output is replaced": (
        [function(id="call_1", output="4"), function(output="")],
        [called("call_1", "", "", "")],
    ),
    "calls are told apart by index": (
        [
            function(3, id="call_3", name="g", arguments="{"),
            function(0, id="call_0", name="f", arguments="["),
            function(3, arguments="}"),
            function(0, arguments="]"),
        ],
        [called("call_0", "f", "[]"), called("call_3", "g", "{}")],
    ),
    "code and logs are put one after the other": (
        [
            code(id="call_1", input=""),
            code(input="print"),
            code(input="(1)"),
            code(outputs=[output("logs", logs="1"), output("image", 2)]),
            code(outputs=[output("logs", logs="\n"), output("logs")]),
            code(outputs=[output("image", 2, image={"file_id": "file_1"})]),
            code(),
            {"index": 0, "type": "code_interpreter"},
        ],
        [
            ran(
                "call_1",
                "print(1)",
                {"type": "logs", "logs": "1\n"},
                {"type": "image", "image": {"file_id": "file_1"}},
            )
        ],
    ),
    "an image of which nothing is known": (
        [code(id="call_1", outputs=[output("image")])],
        [ran("call_1", "", {"type": "image", "image": {"file_id": ""}})],
    ),
    "an unknown output": (
        [
            code(id="call_1", outputs=[output("video", url="a")]),
            code(outputs=[output("video", url="b")]),
        ],
        [ran("call_1", "", {"type": "video", "url": "b"})],
    ),
    "what file search finds": (
        [
            {"index": 0, "type": "file_search", "id": "call_1", "file_search": {}},
            {
                "index": 0,
                "type": "file_search",
                "file_search": {"results": [{"file_id": "file_1", "score": 0.5}]},
            },
            {"index": 0, "type": "file_search", "file_search": {}},
        ],
        [
            {
                "type": "file_search",
                "id": "call_1",
                "file_search": {"results": [{"file_id": "file_1", "file_name": "", "score": 0.5}]},
            }
        ],
    ),
    "a file search of which nothing is known": (
        [{"index": 0, "type": "file_search"}],
        [{"type": "file_search", "id": "", "file_search": {}}],
    ),
    "an unknown tool": (
        [
            {"index": 0, "type": "mcp", "id": "call_1", "server_label": "a"},
            {"index": 0, "type": "mcp", "id": "call_1", "server_label": "b"},
        ],
        [{"type": "mcp", "id": "call_1", "server_label": "b"}],
    ),
    "pieces as a chat completion has them": (
        [
            function(id="call_1", name="f", arguments=""),
            {"index": 0, "function": {"arguments": '{"a"'}},
            {"index": 0, "function": {"arguments": ":1}"}},
        ],
        [called("call_1", "f", '{"a":1}')],
    ),
}


@pytest.mark.parametrize(("pieces", "calls"), MERGED.values(), ids=MERGED)
def test_pieces_are_merged(pieces: list[Any], calls: list[Any]) -> None:
    """One piece a delta or all in one, the calls of the step are the same."""
    one_each = snapshot_of(*(call_delta(piece) for piece in pieces))
    in_one = snapshot_of(call_delta(*pieces))

    for snapshot in (one_each, in_one):
        (built,) = snapshot.steps
        assert msgspec.to_builtins(built.tool_calls) == calls
        assert (built.type, built.status) == ("tool_calls", "in_progress")


def test_hopeless_search_result_is_kept_as_it_came() -> None:
    """A call whose result cannot be read is there with its JSON."""
    piece = {"index": 0, "type": "file_search", "id": "call_1", "file_search": {"results": 5}}

    (call,) = snapshot_of(call_delta(piece)).steps[0].tool_calls

    assert isinstance(call, UnknownToolCall)
    assert (call.id, call["file_search"]) == ("call_1", {"results": 5})


def test_unknown_kinds_have_the_classes_of_a_whole_step() -> None:
    """What came in pieces looks the same as what is fetched."""
    tool = {"index": 1, "type": "mcp", "id": "call_2"}
    delta = call_delta(code(outputs=[output("video")]), tool)

    first, second = snapshot_of(delta).steps[0].tool_calls
    assert isinstance(first, CodeInterpreterToolCall)

    assert type(first.code_interpreter.outputs[0]) is UnknownOutput
    assert type(second) is UnknownToolCall


def message_details(message_id: str) -> dict[str, Any]:
    """Return the details of a step that writes a message."""
    return {"type": "message_creation", "message_creation": {"message_id": message_id}}


DETAILS: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "a message": ([message_details("msg_1")], message_details("msg_1"), "message_creation"),
    "the last message": (
        [message_details("msg_1"), {"type": "message_creation"}, message_details("msg_2")],
        message_details("msg_2"),
        "message_creation",
    ),
    "calls": (
        [{"type": "tool_calls"}, {"type": "tool_calls", "tool_calls": [function(id="call_1")]}],
        {"type": "tool_calls", "tool_calls": [called("call_1", "", "")]},
        "tool_calls",
    ),
    "an unknown kind": (
        [{"type": "activities", "x": 1}, {"type": "activities", "y": 1}],
        {"type": "activities", "y": 1},
        "activities",
    ),
    "a kind that becomes another": (
        [message_details("msg_1"), {"type": "tool_calls", "tool_calls": [function(id="call_1")]}],
        {"type": "tool_calls", "tool_calls": [called("call_1", "", "")]},
        "tool_calls",
    ),
    "nothing": ([None], {}, ""),
}


@pytest.mark.parametrize(("pieces", "details", "kind"), DETAILS.values(), ids=DETAILS)
def test_details_are_of_the_last_kind_that_was_told(
    pieces: list[Any], details: dict[str, Any], kind: str
) -> None:
    """A step says what it does as soon as a piece says so."""
    (built,) = snapshot_of(*(step_delta(piece) for piece in pieces)).steps

    assert msgspec.to_builtins(built.step_details) == details
    assert built.type == kind


def test_step_never_created_is_still_one() -> None:
    """Its id is known, and what the run says of it."""
    (built,) = snapshot_of(run("in_progress"), step_delta(None)).steps

    assert (built.id, built.status) == ("step_1", "in_progress")
    assert (built.run_id, built.thread_id, built.assistant_id) == ("run_1", "thread_1", "asst_1")
    assert built.step_details == UnknownStepDetails()


CREATED = step("created", {"type": "tool_calls", "tool_calls": []})
WHOLE = step("created", {"type": "tool_calls", "tool_calls": [called("call_1", "f", "{}")]})
ORDERS: dict[str, list[Event]] = {
    "created first": [CREATED, call_delta(function(id="call_1", name="f", arguments="{}"))],
    "created last": [call_delta(function(id="call_1", name="f", arguments="{}")), CREATED],
    "created again": [
        CREATED,
        call_delta(function(id="call_1", name="f", arguments="{")),
        CREATED,
        call_delta(function(arguments="}")),
    ],
    "created whole": [WHOLE],
    "created whole, and the call repeated": [
        WHOLE,
        call_delta(function(id="call_1", name="f", arguments="{}")),
    ],
    "created whole, and the call told in part": [WHOLE, call_delta(function(id="call_1"))],
    "the step said before to write a message": [
        step("created", message_details("msg_1")),
        call_delta(function(id="call_1", name="f", arguments="{}")),
    ],
}


@pytest.mark.parametrize("events", ORDERS.values(), ids=ORDERS)
def test_calls_are_there_once_in_every_order(events: list[Event]) -> None:
    """`created` may come late, again, whole or not at all; arguments are never doubled."""
    (built,) = snapshot_of(*events).steps

    assert msgspec.to_builtins(built.tool_calls) == [called("call_1", "f", "{}")]
    assert built.type == "tool_calls"


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "expired"])
def test_last_form_replaces_what_was_collected(end: str) -> None:
    """What the server says at the end counts, and nothing that comes later."""
    details = {"type": "tool_calls", "tool_calls": [called("call_1", "f", "{}", "42")]}
    last = step(end, details)
    assert isinstance(last, RunStepEvent)

    snapshot = snapshot_of(
        CREATED,
        step_delta(message_details("msg_1")),
        call_delta(function(id="call_1", arguments="{")),
        last,
        call_delta(function(arguments="}")),
        CREATED,
    )

    assert snapshot.steps == [last.data]
    assert snapshot.step("step_1") is snapshot.steps[0]


def test_end_that_only_the_name_tells_is_an_end() -> None:
    """A server that sends an old status with the last event is believed by the event's name."""
    ended = step("completed", message_details("msg_1"), status="in_progress")

    assert snapshot_of(ended).steps[0].status == "completed"


def test_steps_may_be_interleaved() -> None:
    """They stand in the order in which they appeared; pieces go to their own."""
    snapshot = snapshot_of(
        call_delta(function(arguments="a"), id="step_2"),
        call_delta(function(arguments="x"), id="step_1"),
        call_delta(function(arguments="b"), id="step_2"),
    )

    assert [(built.id, msgspec.to_builtins(built.tool_calls)) for built in snapshot.steps] == [
        ("step_2", [called("", "", "ab")]),
        ("step_1", [called("", "", "x")]),
    ]


def test_piece_that_has_the_id_of_the_run_is_the_last_steps() -> None:
    """A server that writes the run's id into a step's deltas makes no step of them."""
    piece = call_delta(function(id="call_2", name="g", arguments="{}"), id="run_1")
    snapshot = snapshot_of(
        run("in_progress"), WHOLE, step("created", message_details("m"), id="step_2"), piece
    )

    assert [built.id for built in snapshot.steps] == ["step_1", "step_2"]
    assert msgspec.to_builtins(snapshot.steps[1].tool_calls) == [called("call_2", "g", "{}")]
    assert [built.id for built in snapshot_of(run("queued"), piece).steps] == ["run_1"]


def test_step_is_kept_until_something_comes() -> None:
    """Reading twice builds once; the next piece makes it anew."""
    snapshot = snapshot_of(call_delta(function(arguments="a")))
    first = snapshot.step("step_1")

    assert snapshot.step("step_1") is first
    snapshot.apply(call_delta(function(arguments="b")))
    assert snapshot.step("step_1") is not first
