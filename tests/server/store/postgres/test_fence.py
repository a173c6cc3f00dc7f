"""The fence on PostgreSQL: each state is left once, whoever comes in between.

The same operations as on a file, where SQLite lets one transaction write at a time. Here several
go on at once, each at READ COMMITTED, and only rows are locked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest

from openai_runs.server.api_errors import Refusal
from openai_runs.server.store import rows, runs
from openai_runs.types.assistants import Assistant
from openai_runs.types.messages import Message
from openai_runs.types.threads import Thread
from tests.postgres import Postgres
from tests.server.store.postgres.racing import open_racing_pair
from tests.server.store.test_fence import check
from tests.server.store.test_fence_keys import KEYED, answer_of, keyed
from tests.server.two_writers import ACTS, EXECUTING, Pair, Side, at_once, void
from tests.tiers import few


@pytest.fixture(scope="module")
def pair(postgres_databases: Postgres) -> Iterator[Pair]:
    """Two servers' databases, which are one."""
    with postgres_databases.database(new=True) as url, open_racing_pair(url) as opened:
        yield opened


STATES = few(range(len(EXECUTING) + 1), kept=[1, 2, 4], rest=pytest.mark.seeds)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("steps", STATES)
def test_state_is_left_once_when_another_server_comes_in_between(
    pair: Pair, steps: int, act: str
) -> None:
    """Each two operations, from each state: one after the other, whatever the first had read."""
    for between in ACTS:
        pair.begin()
        for step in EXECUTING[:steps]:
            assert pair.perform(pair.first, step, 0) is not None

        pair.race(act, between, after=9)

        check(pair, announced=False)


@pytest.mark.parametrize("seed", few(range(40), kept=range(4), rest=pytest.mark.seeds))
def test_runs_end_once_when_two_servers_work_at_the_same_time(pair: Pair, seed: int) -> None:
    """The same operations in threads, the transactions in whatever order PostgreSQL lets them."""
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


@pytest.mark.parametrize("what", [Assistant, Thread, Message], ids=lambda kind: kind.__name__)
def test_object_keeps_the_changes_of_both_servers(pair: Pair, what: type[Assistant]) -> None:
    """Two fields, changed at once: neither is lost."""
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
    (body,) = pair.bodies("SELECT body FROM threads WHERE id = ?", pair.thread_id)
    thread = msgspec.convert(body, Thread)
    pair.first.connection.race_with(
        lambda: pair.second.run(lambda tx: runs.delete_thread(tx, thread.id)), after=9
    )

    with pytest.raises(Refusal, match="No thread found"):
        pair.first.run(lambda tx: rows.rewrite(tx.connection, thread, metadata={"a": "b"}))


@pytest.mark.parametrize("request_", KEYED)
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_work_of_a_key_is_done_once_when_both_servers_have_it(
    pair: Pair, steps: int, request_: str
) -> None:
    """Both give the same answer, also a refusal, and one of them has done it."""
    pair.begin()
    for step in EXECUTING[:steps]:
        pair.perform(pair.first, step, 0)
    work, once, inner = KEYED[request_](pair), keyed(pair), []
    pair.first.connection.race_with(
        lambda: inner.append((answer_of(pair.second, work, once), stored(pair))), after=0
    )

    outer = answer_of(pair.first, work, once)

    assert inner == [(outer, stored(pair))]


def stored(pair: Pair) -> list[Any]:
    """Return what tells whether anything was written since."""
    tables = ("runs", "messages", "events", "idempotency")
    count: Callable[[str], Any] = lambda table: pair.second.connection.execute(  # noqa: E731
        f"SELECT count(*) FROM {table}"
    ).fetchone()
    return [
        *map(count, tables),
        pair.bodies("SELECT body FROM runs WHERE thread_id = ?", pair.thread_id),
    ]


def test_key_makes_one_run_when_two_servers_get_it_at_the_same_time(pair: Pair) -> None:
    """Twenty requests with one key, half of them to each: one run, one answer."""
    pair.begin()
    pair.perform(pair.first, "expire", 0)
    answers: list[tuple[int, bytes]] = []

    def send(side: Side) -> None:
        answers.append(answer_of(side, KEYED["create"](pair), keyed(pair)))

    at_once(*(partial(send, side) for side in (pair.first, pair.second) for _ in range(10)))

    assert len(answers) == 20
    assert len(set(answers)) == 1
    assert answers[0][0] == 200
    assert len(pair.bodies("SELECT body FROM runs WHERE thread_id = ?", pair.thread_id)) == 2
