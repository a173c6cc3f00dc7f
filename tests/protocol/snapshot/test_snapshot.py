"""A snapshot holds what a stream has told, whatever a server leaves out or says twice."""

import tracemalloc

import msgspec
import pytest

from openai_runs._protocol.snapshot.snapshot import Snapshot
from openai_runs.types import Event, Message
from openai_runs.types.base import ACTIVE_STATUSES, TERMINAL_STATUSES
from tests.protocol.event_builders import (
    event_with,
    full,
    message,
    message_delta,
    piece,
    run,
    snapshot_of,
    step,
    text,
)


def test_message_never_created_is_still_one() -> None:
    """Its id is known, and what the run says of it; the rest are defaults."""
    snapshot = snapshot_of(run("in_progress"), message_delta("Hi"))

    assert snapshot.message("msg_1") == Message(
        id="msg_1",
        status="in_progress",
        role="assistant",
        thread_id="thread_1",
        run_id="run_1",
        assistant_id="asst_1",
        content=snapshot.messages[0].content,
    )


def test_message_names_its_run_once_that_is_known() -> None:
    """Pieces that come before any event about the run are not left without it."""
    snapshot = snapshot_of(message_delta("Hi"), step("created", {"type": "tool_calls"}))
    before = snapshot.messages[0]
    snapshot.apply(run("in_progress"))

    assert (before.run_id, before.thread_id) == (None, "")
    assert (snapshot.messages[0].run_id, snapshot.messages[0].thread_id) == ("run_1", "thread_1")


def test_role_comes_with_the_pieces() -> None:
    """The last role that was sent counts; without one the model speaks."""
    user = message_delta("Hi", role="user")
    assert snapshot_of(user, message_delta("Hi")).messages[0].role == "user"
    assert snapshot_of(message_delta("Hi", role=None)).messages[0].role == "assistant"
    empty = event_with("thread.message.delta", id="msg_1", delta={"role": "user"})
    assert snapshot_of(empty).messages[0].role == "user"


ORDERS = {
    "created first": [message("created"), message_delta("Hel"), message_delta("lo")],
    "created last": [message_delta("Hel"), message_delta("lo"), message("created")],
    "created again": [
        message("created"),
        message_delta("Hel"),
        message("in_progress"),
        message_delta("lo"),
        message("created"),
    ],
    "never created": [message_delta("Hel"), message_delta("lo")],
    "created with its beginning": [message("created", "Hel"), message_delta("lo")],
    "its beginning told twice": [
        message("created", "Hel"),
        message_delta("lo"),
        message("in_progress", "Hel"),
    ],
    "an empty part to begin with": [message("created", ""), message_delta("Hello")],
    "whole without pieces": [message("in_progress", "Hello")],
    "another part between": [
        message("created", "Hel"),
        message_delta({"index": 1, "type": "text"}),
        message_delta("lo"),
    ],
}


@pytest.mark.parametrize("events", ORDERS.values(), ids=ORDERS)
def test_what_was_collected_is_never_wiped(events: list[Event]) -> None:
    """`created` and `in_progress` may come late, again, or not at all."""
    snapshot = snapshot_of(*events)

    assert snapshot.text_of("msg_1") == snapshot.text == "Hello"


def test_created_keeps_the_parts_that_no_piece_speaks_of() -> None:
    """Pieces go on from a part of their own kind, and replace one of another."""
    refusal = {"type": "refusal", "refusal": "I "}
    image = {"type": "image_file", "image_file": {"file_id": "file_1", "detail": "low"}}
    created = message("created", "a", refusal, image, "b", "c")

    snapshot = snapshot_of(
        created,
        message_delta(
            piece("refusal", 1, refusal="can't"),
            piece("image_file", 2, image_file={"file_id": "file_2"}),
            piece("refusal", 3, refusal="No"),
            text("d", 5),
        ),
    )

    assert msgspec.to_builtins(snapshot.messages[0].content) == [
        full("a"),
        {"type": "refusal", "refusal": "I can't"},
        {"type": "image_file", "image_file": {"file_id": "file_2", "detail": "low"}},
        {"type": "refusal", "refusal": "No"},
        full("c"),
        full("d"),
    ]


def test_text_does_not_go_on_from_a_part_of_another_kind() -> None:
    """A refusal that `created` told is not the beginning of a text."""
    created = message("created", {"type": "refusal", "refusal": "No"})

    assert snapshot_of(created, message_delta("Hi")).text == "Hi"


@pytest.mark.parametrize("end", ["completed", "incomplete"])
def test_last_form_replaces_what_was_collected(end: str) -> None:
    """What the server says at the end counts, and nothing that comes later."""
    last = message(end, "Hello!")

    snapshot = snapshot_of(
        message("created"),
        message_delta("Helo"),
        last,
        message_delta(" again"),
        message("created"),
        message("in_progress", "Hel"),
    )

    assert snapshot.messages == [last.data]
    assert snapshot.text == "Hello!"


def test_last_form_may_come_twice() -> None:
    """The later one counts."""
    snapshot = snapshot_of(message("completed", "Hi"), message("completed", "Hi", run_id="run_1"))

    assert [one.run_id for one in snapshot.messages] == ["run_1"]


def test_message_ends_by_its_name_alone_and_asks_for_a_poll() -> None:
    """Some servers send an old status with the last event; what is stored has the last word."""
    snapshot = snapshot_of(message("completed", "Hi", status="in_progress"))

    assert snapshot.messages[0].status == "completed"
    assert snapshot.is_contradicted
    assert snapshot.contradicts("msg_1")
    snapshot.apply(message("completed", "Hi", status="completed"))
    assert not snapshot.is_contradicted


@pytest.mark.parametrize("named", sorted(ACTIVE_STATUSES | TERMINAL_STATUSES))
@pytest.mark.parametrize("status", [*sorted(ACTIVE_STATUSES | TERMINAL_STATUSES), "vanished"])
def test_data_decides_what_a_run_is_whatever_the_event_is_called(named: str, status: str) -> None:
    """A name that says another status than the data asks for a poll, and changes nothing."""
    snapshot = snapshot_of(run(status, named))

    assert snapshot.run is not None
    assert snapshot.run.status == status
    assert snapshot.is_contradicted == (named != status)
    snapshot.verified()
    assert not snapshot.is_contradicted


@pytest.mark.parametrize("status", sorted(ACTIVE_STATUSES | TERMINAL_STATUSES))
def test_created_run_has_only_just_begun(status: str) -> None:
    """`created` says no status; over data of a later one it is a contradiction."""
    snapshot = snapshot_of(run(status, "created"))

    assert snapshot.is_contradicted == (status not in {"queued", "in_progress"})


LAST_MOVES = {
    "completed while it waits": (["requires_action", "completed"], True),
    "failed while it waits": (["requires_action", "failed"], True),
    "expired while it waits": (["requires_action", "expired"], False),
    "cancelled while it waits": (["requires_action", "cancelling", "cancelled"], False),
    "at work again": (["requires_action", "in_progress"], False),
    "backwards": (["completed", "in_progress"], True),
    "another end": (["completed", "failed"], True),
    "backwards and to the end again": (["in_progress", "queued", "in_progress"], False),
}


@pytest.mark.parametrize(("statuses", "contradicted"), LAST_MOVES.values(), ids=LAST_MOVES.keys())
def test_move_that_no_run_makes_is_a_contradiction(statuses: list[str], contradicted: bool) -> None:
    """Each event agrees with itself, and the last does not follow on the one before."""
    snapshot = snapshot_of(*(run(status) for status in statuses))

    assert snapshot.is_contradicted == contradicted


def test_run_may_complete_at_once_when_its_outputs_were_submitted() -> None:
    """A small server streams nothing between the outputs and the end."""
    snapshot = snapshot_of(run("requires_action"))
    snapshot.outputs_submitted()
    snapshot.apply(run("completed"))

    assert not snapshot.is_contradicted


def test_messages_may_be_interleaved() -> None:
    """They stand in the order in which they appeared; pieces go to their own."""
    snapshot = snapshot_of(
        message("created", id="msg_2"),
        message_delta("a", id="msg_1"),
        message_delta("x", id="msg_2"),
        message_delta("b", id="msg_1"),
        message("completed", "xy", id="msg_2"),
    )

    assert [one.id for one in snapshot.messages] == ["msg_2", "msg_1"]
    assert (snapshot.text_of("msg_1"), snapshot.text) == ("ab", "xy\n\nab")


def test_text_is_what_the_run_wrote() -> None:
    """A message of the user's that a server tells of is no part of it."""
    assert (
        snapshot_of(message("created", "Hi", id="msg_0", role="user"), message_delta("Ho")).text
        == "Ho"
    )


STRANGE_IDS = {
    "last event": [message("created"), message_delta("Hi"), message("completed", "Hi", id="run_1")],
    "created": [message("created", id="run_1"), message_delta("Hi"), message("completed", "Hi")],
    "all but the pieces": [
        message("created", id="msg_2"),
        message_delta("Hi"),
        message("completed", "Hi", id="msg_2"),
    ],
}


@pytest.mark.parametrize("events", STRANGE_IDS.values(), ids=STRANGE_IDS)
def test_text_is_there_once_although_an_event_has_another_id(events: list[Event]) -> None:
    """Of two messages that are one, the text is not told twice."""
    snapshot = snapshot_of(*events)

    assert snapshot.text == "Hi"
    assert [one.status for one in snapshot.messages if one.text] == ["completed"]


def test_messages_of_equal_text_are_two() -> None:
    """A message that ends is not taken for another one that has a text of its own."""
    snapshot = snapshot_of(
        message_delta("Hi", id="msg_1"),
        message_delta("Hi", id="msg_2"),
        message("completed", "Hi", id="msg_2"),
        message("completed", "Ho", id="msg_3"),
    )

    assert [(one.id, one.text) for one in snapshot.messages] == [
        ("msg_1", "Hi"),
        ("msg_2", "Hi"),
        ("msg_3", "Ho"),
    ]


def test_nothing_is_known_of_what_was_not_told() -> None:
    """An empty snapshot has no run, no thread, no messages, no steps and no text."""
    snapshot = Snapshot()

    assert (snapshot.run, snapshot.thread, snapshot.messages, snapshot.steps) == (
        None,
        None,
        [],
        [],
    )
    assert (snapshot.text, snapshot.text_of("msg_1")) == ("", "")
    assert (snapshot.message("msg_1"), snapshot.step("step_1")) == (None, None)


def test_thread_and_unknown_events() -> None:
    """The thread is kept; an event that nobody knows changes nothing."""
    snapshot = snapshot_of(
        event_with("thread.created", id="thread_1"), event_with("thread.banana", id="x")
    )

    assert snapshot.thread is not None
    assert snapshot.thread.id == "thread_1"
    assert snapshot.messages == []


MOVES = [
    (["queued", "in_progress", "completed"], "completed"),
    (["completed", "in_progress"], "completed"),
    (["completed", "queued"], "completed"),
    (["failed", "completed"], "failed"),
    (["completed", "paused"], "completed"),
    (["cancelling", "in_progress"], "cancelling"),
    (["cancelling", "completed"], "completed"),
    (["requires_action", "queued", "in_progress"], "in_progress"),
    (["requires_action", "queued"], "queued"),
    (["in_progress", "queued"], "queued"),
    (["queued", "completed"], "completed"),
    (["queued", "requires_action"], "requires_action"),
    (["in_progress", "paused"], "paused"),
    (["paused", "in_progress"], "in_progress"),
]


@pytest.mark.parametrize(("statuses", "last"), MOVES)
def test_run_is_never_set_back(statuses: list[str], last: str) -> None:
    """An event that is late does not undo what is known; gaps and new statuses are fine."""
    snapshot = snapshot_of(*(run(status, "created") for status in statuses))

    assert snapshot.run is not None
    assert snapshot.run.status == last


def test_same_status_told_again_is_newer() -> None:
    """Usage that comes with a second `completed` is taken in; so is another run."""
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    snapshot = snapshot_of(run("completed"), run("completed", usage=usage))
    assert snapshot.run is not None
    assert snapshot.run.usage is not None

    snapshot.apply(
        event_with("thread.run.queued", id="run_2", thread_id="thread_1", status="queued")
    )
    assert snapshot.run.id == "run_2"


def test_objects_are_kept_until_something_comes() -> None:
    """Reading twice builds once; the next piece makes it anew, and what was read stays."""
    snapshot = snapshot_of(message_delta("Hel"))
    first, text = snapshot.message("msg_1"), snapshot.text

    assert snapshot.message("msg_1") is first
    assert snapshot.text is text
    snapshot.apply(message_delta("lo"))
    assert first is not None
    assert (first.text, snapshot.text_of("msg_1"), snapshot.text) == ("Hel", "Hello", "Hello")


def test_a_delta_costs_the_same_however_long_the_message_is() -> None:
    """Of 20,000 deltas the last 5,000 take no more memory, fleeting or kept, than the first."""
    words = [message_delta(f"{number:0100}") for number in range(20_000)]
    snapshot = snapshot_of(message("created"))
    costs: list[int] = []
    tracemalloc.start()
    try:
        for begin in range(0, 20_000, 5_000):
            cost = 0
            for word in words[begin : begin + 5_000]:
                before = tracemalloc.get_traced_memory()[0]
                tracemalloc.reset_peak()
                snapshot.apply(word)
                cost += tracemalloc.get_traced_memory()[1] - before
            costs.append(cost)
    finally:
        tracemalloc.stop()

    assert costs[-1] < 2 * costs[0]
    assert snapshot.text == "".join(f"{number:0100}" for number in range(20_000))


def test_reading_now_and_then_gives_all_of_the_text() -> None:
    """What was joined for a reader is the beginning of what comes next."""
    snapshot = Snapshot()
    for number in range(100):
        snapshot.apply(message_delta(f" {number}"))
        if number % 7 == 0:
            assert snapshot.text == "".join(f" {one}" for one in range(number + 1))

    assert snapshot.text_of("msg_1") == "".join(f" {one}" for one in range(100))
