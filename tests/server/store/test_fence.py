"""The fence: two writers on one file, and each state is left once, whoever comes in between.

Straight on the transactions: the lock of the file, which keeps a second server out, is left
away, and the other writer's work is done between the reads and the writes of one piece.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from functools import partial

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openai_runs._protocol.lifecycle import TRANSITIONS
from openai_runs.server.api_errors import Refusal
from openai_runs.server.store import Removed, rows, runs
from openai_runs.types.assistants import Assistant
from openai_runs.types.base import ACTIVE_STATUSES, TERMINAL_STATUSES
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run
from openai_runs.types.threads import Thread
from tests.server.two_writers import (
    ACTS,
    EXECUTING,
    Event,
    Pair,
    Side,
    at_once,
    create,
    open_pair,
    void,
)
from tests.tiers import few


def check(pair: Pair, *, announced: bool = True) -> None:
    """Check all that was stored, and what was announced if that is in the order of commits."""
    stored = pair.second.connection.execute(
        "SELECT id, status, epoch, body FROM runs WHERE thread_id = ?", (pair.thread_id,)
    ).fetchall()
    assert [status in ACTIVE_STATUSES for _, status, _, _ in stored].count(True) <= 1
    for run_id, status, epoch, body in stored:
        run = msgspec.json.decode(body, type=Run)
        assert run.status == status
        assert run.metadata == pair.metadata.get(run_id, {})
        check_log(pair.events(run_id), status, epoch)
        if announced:
            moves = pair.moves(run_id)
            assert moves[-1] == status
            assert all(b in TRANSITIONS[a] for a, b in itertools.pairwise(moves)), moves
        if status in TERMINAL_STATUSES:
            check_closed(pair, run_id)


def check_log(events: list[Event], status: str, epoch: int) -> None:
    """The events are numbered without a gap, each by the epoch it belongs to; the end is last."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    epochs = [event.epoch for event in events]
    assert epochs == sorted(epochs)
    assert epochs[-1] <= epoch
    assert all(event.data.get("by", event.epoch) == event.epoch for event in events)
    told = [e.name.removeprefix("thread.run.") for e in events if e.name.count(".") == 2]
    moves = [name for name in told if name in TRANSITIONS or name in TERMINAL_STATUSES]
    assert moves[-1] == status
    assert all(b in TRANSITIONS[a] for a, b in itertools.pairwise(moves)), moves
    assert [name in TERMINAL_STATUSES for name in moves].count(True) <= 1
    if status in TERMINAL_STATUSES:
        assert events[-1].name == f"thread.run.{status}"


def check_closed(pair: Pair, run_id: str) -> None:
    """No step or message of a run that is over is still in progress."""
    found = [
        *pair.bodies("SELECT body FROM steps WHERE run_id = ?", run_id),
        *pair.bodies("SELECT body FROM messages WHERE run_id = ?", run_id),
    ]
    assert [each["id"] for each in found if each["status"] == "in_progress"] == []


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two writers on a file of their own."""
    with open_pair(tmp_path_factory.mktemp("fence") / "f.db") as opened:
        yield opened


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("steps", range(len(EXECUTING) + 1))
def test_state_is_left_once_when_another_writer_comes_in_between(
    pair: Pair, steps: int, act: str
) -> None:
    """Each two operations, from each state: one after the other, whatever the first had read."""
    for between in ACTS:
        pair.begin()
        for step in EXECUTING[:steps]:
            assert pair.perform(pair.first, step, 0) is not None

        pair.race(act, between, after=9)

        check(pair)


_act = st.sampled_from([*ACTS, "claim", "write", "submit", "require_action"])


@given(
    st.lists(
        st.tuples(_act, st.none() | _act, st.integers(0, 4), st.integers(0, 2)),
        min_size=2,
        max_size=14,
    )
)
@example([("claim", None, 0, 0), ("complete", "claim", 0, 0)])
@example([("claim", None, 0, 0), ("write", "expire", 0, 0), ("create", "create", 1, 0)])
def test_runs_end_once_in_any_interleaving(
    pair: Pair, story: list[tuple[str, str | None, int, int]]
) -> None:
    """Any operations of two writers, in any order, also in the midst of each other."""
    pair.begin()

    for act, between, after, which in story:
        if between is None:
            pair.perform(pair.second, act, which)
        else:
            pair.race(act, between, after, which)
        check(pair)
    pair.perform(pair.second, "expire", 0)
    check(pair)


def test_second_run_on_a_thread_is_refused_with_the_id_of_the_first(pair: Pair) -> None:
    """Also if the first is made when the second has seen that there is none."""
    pair.begin()
    pair.perform(pair.first, "expire", 0)
    pair.first.connection.race_with(lambda: void(pair.perform(pair.second, "create", 0)), after=9)

    with pytest.raises(Refusal) as refused:
        create(pair, pair.first, 0)

    assert refused.value.status_code == 400
    assert refused.value.message == (
        f"Thread {pair.thread_id} already has an active run {pair.runs[-1]}."
    )


def test_thread_that_is_deleted_takes_a_run_along_that_was_made_meanwhile(pair: Pair) -> None:
    """Its execution must hear of it, or it would go on for nothing."""
    pair.begin()
    pair.perform(pair.first, "expire", 0)
    pair.first.connection.race_with(lambda: void(pair.perform(pair.second, "create", 0)), after=9)

    pair.first.run(lambda tx: runs.delete_thread(tx, pair.thread_id))

    assert pair.changes[-1] == Removed(pair.runs[-1])
    assert pair.bodies("SELECT body FROM runs WHERE thread_id = ?", pair.thread_id) == []


@pytest.mark.parametrize("seed", few(range(40), kept=range(4), rest=pytest.mark.seeds))
def test_runs_end_once_when_two_writers_work_at_the_same_time(pair: Pair, seed: int) -> None:
    """The same operations in threads, the transactions in whatever order SQLite lets them."""
    pair.begin()
    chance = random.Random(seed)

    def work(side: Side, acts: list[str]) -> None:
        for act in acts:
            pair.perform(side, act, chance.randrange(3))

    at_once(
        *(
            partial(work, side, chance.choices([*ACTS, *EXECUTING], k=20))
            for side in (pair.first, pair.second)
            for _ in range(2)
        )
    )

    pair.metadata.update(pair.stored_metadata())  # which change was the last, nobody knows here
    check(pair, announced=False)


def test_message_keeps_what_a_client_changed_while_its_run_ended(pair: Pair) -> None:
    """The run's end and the client's change are both in it."""
    pair.begin()
    for step in ("claim", "write"):
        pair.perform(pair.first, step, 0)
    pair.first.connection.change_before(
        "UPDATE messages",
        "UPDATE messages SET body = json_set(body, '$.metadata', json('{\"a\": \"b\"}')) "
        "WHERE seq = (SELECT max(seq) FROM messages)",
    )

    pair.perform(pair.first, "complete", 0)

    messages = pair.bodies("SELECT body FROM messages WHERE run_id = ?", pair.runs[-1])
    assert [each["status"] for each in messages] == ["completed", "completed"]
    assert [each["metadata"] for each in messages].count({"a": "b"}) == 1


@pytest.mark.parametrize("what", [Assistant, Thread, Message], ids=lambda kind: kind.__name__)
def test_object_keeps_the_changes_of_both_writers(pair: Pair, what: type[Assistant]) -> None:
    """Two fields, changed by two writers at once: neither is lost."""
    pair.begin()
    pair.perform(pair.first, "claim", 0)
    pair.perform(pair.first, "write", 0)
    sql = f"SELECT body FROM {rows.TABLES[what].name} ORDER BY seq DESC LIMIT 1"
    thing = msgspec.convert(pair.bodies(sql)[0], what)
    pair.first.connection.race_with(
        lambda: void(pair.second.run(lambda tx: rows.rewrite(tx.connection, thing, created_at=7))),
        after=9,
    )

    pair.first.run(lambda tx: rows.rewrite(tx.connection, thing, metadata={"a": "b"}))

    (stored,) = pair.bodies(sql)
    assert (stored["created_at"], stored["metadata"]) == (7, {"a": "b"})


def test_object_that_is_deleted_meanwhile_is_not_changed(pair: Pair) -> None:
    """The change is refused like one that comes later."""
    pair.begin()
    sql = "SELECT body FROM threads ORDER BY seq DESC LIMIT 1"
    thread = msgspec.convert(pair.bodies(sql)[0], Thread)
    pair.first.connection.race_with(
        lambda: pair.second.run(lambda tx: runs.delete_thread(tx, thread.id)), after=9
    )

    with pytest.raises(Refusal, match="No thread found"):
        pair.first.run(lambda tx: rows.rewrite(tx.connection, thread, metadata={"a": "b"}))
