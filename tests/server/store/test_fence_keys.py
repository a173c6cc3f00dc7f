"""The fence of the keys: two writers on one file, and what a key stands for is done once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from openai_runs.config import IDEMPOTENCY_TTL
from openai_runs.server.api_errors import Refusal, Replay
from openai_runs.server.objects.builders import build_message
from openai_runs.server.store import rows, runs
from openai_runs.server.store.idempotency import Once, encode_answer
from openai_runs.server.store.transaction import Transaction
from openai_runs.types.messages import CreateMessage, Message
from tests.server.two_writers import EXECUTING, NOW, OUTPUTS, Pair, Side, at_once, open_pair, void


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two writers on a file of their own."""
    with open_pair(tmp_path_factory.mktemp("fence") / "f.db") as opened:
        yield opened


def keyed(pair: Pair, *, fingerprint: bytes = b"f", at: int = NOW) -> Once:
    """Return a request with a key of its own for each thread."""
    return Once(key=f"key of {pair.thread_id}", fingerprint=fingerprint, at=at)


KEYED: dict[str, Callable[[Pair], Callable[[Transaction], Any]]] = {
    "create": lambda pair: lambda tx: runs.create(tx, pair.thread_id, pair.assistant_id, pair.make),
    "cancel": lambda pair: lambda tx: runs.cancel(tx, pair.thread_id, pair.runs[0], NOW),
    "submit": lambda pair: lambda tx: runs.submit(tx, pair.thread_id, pair.runs[0], OUTPUTS, NOW),
    "modify": lambda pair: (
        lambda tx: runs.update_run(
            tx, pair.thread_id, pair.runs[0], {"metadata": {"number": str(pair.number())}}
        )
    ),
    "message": lambda pair: (
        lambda tx: void(rows.add(tx.connection, user_message(pair), thread_id=pair.thread_id))
    ),
}
"""Requests that may come with a key; some are refused, as the states are."""


def user_message(pair: Pair) -> Message:
    """Return a message with an id of its own."""
    request = CreateMessage(role="user", content="Hello.")
    return build_message(request, pair.thread_id, NOW)


def answer_of(side: Side, work: Callable[[Transaction], Any], once: Once) -> tuple[int, bytes]:
    """Return the answer of the API, and nothing of how it came about."""
    try:
        return 200, encode_answer(side.run(work, once))
    except Replay as replay:
        return replay.status_code, replay.body
    except Refusal as refusal:
        return refusal.status_code, refusal.encode()


@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("request_", KEYED)
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_work_of_a_key_is_done_once_when_both_writers_have_it(
    pair: Pair, steps: int, request_: str, after: int
) -> None:
    """Both give the same answer, also a refusal, and the file holds what one of them did."""
    pair.begin()
    for step in EXECUTING[:steps]:
        pair.perform(pair.first, step, 0)
    work, once, inner = KEYED[request_](pair), keyed(pair), []
    pair.first.connection.race_with(
        lambda: inner.append((answer_of(pair.second, work, once), count_all(pair))), after=after
    )

    outer = answer_of(pair.first, work, once)

    assert inner == [(outer, count_all(pair))]


def count_all(pair: Pair) -> list[Any]:
    """Return what tells whether anything was written since."""
    tables = ("runs", "messages", "events", "idempotency")
    counts = [f"SELECT count(*), (SELECT max(rowid) FROM {table}) FROM {table}" for table in tables]
    found = [pair.second.connection.execute(sql).fetchone() for sql in counts]
    return [*found, pair.bodies("SELECT body FROM runs WHERE thread_id = ?", pair.thread_id)]


def test_key_of_another_request_is_refused_when_both_writers_have_it(pair: Pair) -> None:
    """The one that comes second is refused; what the first did stays."""
    pair.begin()
    work = KEYED["message"](pair)
    pair.first.connection.race_with(
        lambda: void(answer_of(pair.second, work, keyed(pair, fingerprint=b"other"))), after=0
    )

    status, body = answer_of(pair.first, work, keyed(pair))

    assert (status, b"idempotency_key_reused" in body) == (409, True)
    assert len(pair.bodies("SELECT body FROM messages WHERE thread_id = ?", pair.thread_id)) == 1


def test_key_that_is_over_its_time_is_used_by_one_of_two_writers(pair: Pair) -> None:
    """Both find the old answer; one replaces it, and the other answers with the new one."""
    pair.begin()
    work, later = KEYED["message"](pair), keyed(pair, at=NOW + 2 * IDEMPOTENCY_TTL)
    old = answer_of(pair.first, KEYED["modify"](pair), keyed(pair))
    inner: list[Any] = []
    pair.first.connection.race_with(
        lambda: inner.append(answer_of(pair.second, work, later)), after=0
    )

    new = answer_of(pair.first, work, later)

    assert inner == [new]
    assert new != old
    assert len(pair.bodies("SELECT body FROM messages WHERE thread_id = ?", pair.thread_id)) == 1


def test_key_makes_one_run_when_two_writers_get_it_at_the_same_time(pair: Pair) -> None:
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
