"""What an execution writes: pieces in, events and whole calls out. No store, no loop."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_runs.server.backends.base import Echoed, ModelFailure, ToolCallDelta
from openai_runs.server.execution.draft import Draft
from openai_runs.server.objects.transitions import Delta, Opening, Writing
from openai_runs.types.runs import Run

RUN = Run(
    id="run_1",
    created_at=1,
    thread_id="thread_1",
    assistant_id="asst_1",
    status="in_progress",
    model="m",
)


def new_draft(**options: Any) -> Draft:
    """Return a draft of a run that has written nothing yet."""
    return Draft(RUN, lambda: 1, **{"message_id": None, "step_id": None, **options})


def told_calls(writings: list[Writing]) -> list[dict[str, Any]]:
    """Return the pieces of tool calls that are told."""
    deltas = [json.loads(w.data) for w in writings if isinstance(w, Delta)]
    return [d["delta"]["step_details"]["tool_calls"][0] for d in deltas]


def test_call_is_told_once_its_name_is_known() -> None:
    """What came before waits, and is told with the name, under the id it will keep."""
    draft = new_draft()

    draft.add_call(ToolCallDelta(index=3, id="call_a"))
    draft.add_call(ToolCallDelta(index=3, arguments='{"a"'))
    assert draft.pop_writings() == []
    draft.add_call(ToolCallDelta(index=3, name="f"))
    draft.add_call(ToolCallDelta(index=3, id="call_late", name="late", arguments=": 1}"))
    opening, *deltas = draft.pop_writings()

    assert isinstance(opening, Opening)
    assert told_calls(deltas) == [
        {
            "type": "function",
            "index": 0,
            "id": "call_a",
            "function": {"name": "f", "arguments": '{"a"'},
        },
        {"type": "function", "index": 0, "function": {"arguments": ": 1}"}},
    ]
    (call,) = draft.calls
    assert (call.id, call.function.name, call.function.arguments) == ("call_a", "f", '{"a": 1}')


def test_calls_have_indexes_without_gaps() -> None:
    """Whatever the model numbers them, readers put them into a list."""
    draft = new_draft()

    for index in (7, 2, 7, 9):
        draft.add_call(ToolCallDelta(index=index, name=f"f{index}", arguments="x"))

    _, *deltas = draft.pop_writings()
    assert [call["index"] for call in told_calls(deltas)] == [0, 1, 0, 2]
    assert [call.function.name for call in draft.calls] == ["f7", "f2", "f9"]


@pytest.mark.parametrize("sent", ["", "call_old", "with space", "x" * 65])
def test_id_that_cannot_be_kept_is_replaced_at_once(sent: str) -> None:
    """Missing, taken by an earlier call, or none that fits: the first piece has the new one."""
    draft = new_draft(used_ids=["call_old"])

    draft.add_call(ToolCallDelta(id=sent, name="f"))

    _, delta = draft.pop_writings()
    (call,) = draft.calls
    assert told_calls([delta])[0]["id"] == call.id != sent
    assert call.id.startswith("call_")


def test_call_without_a_name_fails_the_turn() -> None:
    """It could not be answered by anybody."""
    draft = new_draft()
    draft.add_call(ToolCallDelta(index=0, name="f"))
    draft.add_call(ToolCallDelta(index=1, arguments="{}"))

    with pytest.raises(ModelFailure, match="without a name"):
        draft.check()


def test_what_was_begun_before_is_written_on() -> None:
    """No second message and no second step."""
    draft = new_draft(message_id="msg_1", step_id="step_1")

    draft.add_text("Hi.")
    draft.add_call(ToolCallDelta(name="f"))

    message, step = draft.pop_writings()
    assert isinstance(message, Delta)
    assert isinstance(step, Delta)
    assert json.loads(message.data)["id"] == "msg_1"
    assert json.loads(step.data)["id"] == "step_1"


def test_only_the_first_piece_of_a_text_has_annotations() -> None:
    """As servers of this protocol send it."""
    draft = new_draft()

    draft.add_text("Hel")
    draft.add_text("lo.")

    _, *deltas = draft.pop_writings()
    texts = [
        json.loads(delta.data)["delta"]["content"][0]["text"]
        for delta in deltas
        if isinstance(delta, Delta)
    ]
    assert texts == [{"value": "Hel", "annotations": []}, {"value": "lo."}]
    assert draft.text == "Hello."


def test_text_that_cannot_be_written_is_not_kept() -> None:
    """The run fails, with what was said before."""
    draft = new_draft()
    draft.add_text("fine")

    with pytest.raises(UnicodeEncodeError):
        draft.add_text("\ud800")

    assert draft.text == "fine"


def test_closed_draft_takes_nothing_more() -> None:
    """What its end says stays all; what could not be stored comes back, in order."""
    draft = new_draft()
    draft.add_text("a")
    first = draft.pop_writings()
    draft.add_text("b")

    draft.close()
    draft.add_text("c")
    draft.add_call(ToolCallDelta(name="f"))
    draft.put_back(first)
    taken = draft.pop_writings()

    assert draft.text == "ab"
    assert taken[: len(first)] == first
    assert len(taken) == len(first) + 1
    assert draft.calls == []
    draft.discard()
    assert draft.pop_writings() == []


def test_what_is_echoed_of_a_call_follows_it_to_its_place() -> None:
    """A step has its calls in the order in which their names came, without gaps."""
    draft = new_draft()
    for index in (7, 2, 4):
        draft.add_call(ToolCallDelta(index=index, name=f"f{index}"))
    message = {"reasoning": "x"}
    echoed = Echoed(message=message, calls={2: {"a": 2}, 7: {"a": 7}, 9: {"a": 9}})

    assert draft.as_placed(echoed) == Echoed(message=message, calls={0: {"a": 7}, 1: {"a": 2}})
    assert draft.as_placed(None) is None
