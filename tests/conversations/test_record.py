"""The moves of a conversation, row by row of the table in `record`."""

import msgspec
import pytest

from openai_runs.conversations.record import Answered, Next, Record

NOW = 100.0
LEASE = 10.0


def record(*waiting: tuple[str, float]) -> Record:
    """Return a conversation in which these owners wait, with the ends of their leases."""
    made = Record(thread_id="thread_1")
    for owner, until in waiting:
        made.add(f"text of {owner}", owner, until)
    return made


def begin(of: Record, message_id: int, owner: str, now: float = NOW, *, together: bool) -> Next:
    """Return what an owner has to do."""
    return of.begin(
        message_id, owner, now=now, until=now + LEASE, key=f"key of {owner}", together=together
    ).next


ALIVE, DEAD = NOW + 5, NOW - 5
LINES = {
    "alone": ([("a", ALIVE)], 1, False, [1]),
    "first of a queue": ([("a", ALIVE), ("b", ALIVE)], 1, False, [1]),
    "second of a queue": ([("a", ALIVE), ("b", ALIVE)], 2, False, None),
    "first together": ([("a", ALIVE), ("b", ALIVE)], 1, True, None),
    "last together": ([("a", ALIVE), ("b", ALIVE)], 2, True, [1, 2]),
    "behind the dead": ([("a", DEAD), ("b", DEAD), ("c", ALIVE)], 3, False, [1, 2, 3]),
    "before the dead": ([("a", ALIVE), ("b", DEAD)], 1, False, [1]),
    "before the dead, together": ([("a", ALIVE), ("b", DEAD)], 1, True, [1, 2]),
    "behind a dead and a live one": ([("a", DEAD), ("b", ALIVE), ("c", ALIVE)], 3, False, None),
}


@pytest.mark.parametrize(("waiting", "asks", "together", "taken"), LINES.values(), ids=LINES)
def test_claim_goes_to_who_is_next(
    waiting: list[tuple[str, float]], asks: int, together: bool, taken: list[int] | None
) -> None:
    """In a queue to the first that is alive, together to the last; with those it answers."""
    made = record(*waiting)

    found = begin(made, asks, waiting[asks - 1][0], together=together)

    if taken is None:
        assert (found, made.claim) == (Next.WAIT, None)
    else:
        assert made.claim is not None
        assert (found, made.claim.ids, made.claim.lead) == (Next.ANSWER, taken, asks)
        assert made.claim.thread_id == "thread_1"
        assert [one.id for one in made.waiting] == [
            number for number in range(1, len(waiting) + 1) if number not in taken
        ]


def test_claim_is_held_until_its_lease_expires() -> None:
    """Renewed, it goes on; expired, whoever asks first recovers it, and then only that one."""
    made = record(("a", ALIVE), ("b", NOW + 1000), ("c", NOW + 1000))
    assert begin(made, 1, "a", together=False) is Next.ANSWER

    assert begin(made, 2, "b", NOW + 9, together=False) is Next.WAIT
    assert made.renew(1, "a", NOW + 20)
    assert begin(made, 2, "b", NOW + 19, together=False) is Next.WAIT
    assert begin(made, 3, "c", NOW + 21, together=False) is Next.RECOVER
    assert begin(made, 2, "b", NOW + 21, together=False) is Next.WAIT
    made.end_recovered("c", has_answer=False)
    assert begin(made, 2, "b", NOW + 21, together=False) is Next.ANSWER


def test_recovery_that_fails_is_left_to_the_next() -> None:
    """Who gives up recovering ends its own message, and not what it recovers."""
    made = record(("a", ALIVE), ("b", NOW + 1000), ("c", NOW + 1000))
    assert begin(made, 1, "a", together=False) is Next.ANSWER
    assert begin(made, 2, "b", NOW + LEASE, together=False) is Next.RECOVER

    made.end(2, "b")

    assert begin(made, 3, "c", NOW + LEASE, together=False) is Next.RECOVER
    assert made.claim is not None
    assert made.claim.ids == [1]


def test_message_answered_in_another_claim_learns_so() -> None:
    """It waits until that claim is over; where its holder is killed, it goes on in its place."""
    made = record(("a", ALIVE), ("b", ALIVE))
    assert begin(made, 2, "b", together=True) is Next.ANSWER
    assert begin(made, 1, "a", together=True) is Next.WAIT
    assert made.renew(1, "a", ALIVE)

    again = msgspec.convert(msgspec.to_builtins(made), Record)
    assert begin(again, 1, "a", NOW + LEASE, together=True) is Next.RESUME
    assert again.claim is not None
    assert again.claim.lead == 1

    assert made.start("b", thread_id="thread_1", run_id="run_1") is False
    made.end(2, "b")
    assert begin(made, 1, "a", together=True) is Next.ANSWERED
    assert made.answered == [Answered([1, 2], "thread_1", "run_1")]


def test_owner_that_was_replaced_has_lost_its_lease() -> None:
    """What it renews, starts or ends is no longer its own, and stays as it is."""
    made = record(("a", ALIVE), ("b", NOW + 1000))
    assert begin(made, 1, "a", together=False) is Next.ANSWER
    assert begin(made, 2, "b", NOW + LEASE, together=False) is Next.RECOVER

    assert not made.renew(1, "a", NOW + 1000)
    assert made.start("a", thread_id="thread_1", run_id="run_1")
    made.end(1, "a")
    assert made.claim is not None
    assert made.claim.run_id is None
    made.end_recovered("b", has_answer=False)
    assert begin(made, 1, "a", together=False) is Next.ANSWERED


def test_message_that_was_withdrawn_is_lost() -> None:
    """Its owner gave up waiting."""
    made = record(("a", ALIVE), ("b", ALIVE))
    made.end(1, "a")

    assert begin(made, 1, "a", together=False) is Next.LOST
    assert begin(made, 2, "b", together=False) is Next.ANSWER


@pytest.mark.parametrize("is_reset", [False, True], ids=["stop", "reset"])
def test_stopped_claim_learns_so_when_its_run_is_known(is_reset: bool) -> None:
    """A reset also begins a new thread, and a thread made meanwhile does not come back."""
    made = record(("a", ALIVE))
    made.thread_id = None
    assert made.stop() is None
    assert begin(made, 1, "a", together=False) is Next.ANSWER

    assert (made.reset() if is_reset else made.stop()) is made.claim
    assert made.start("a", thread_id="thread_2", run_id="run_1")
    assert made.thread_id == (None if is_reset else "thread_2")


@pytest.mark.parametrize("named", ["run_1", "run_2", None, ""])
@pytest.mark.parametrize("known", ["run_1", None])
def test_stop_of_a_run_that_is_not_at_work_stops_nothing(
    named: str | None, known: str | None
) -> None:
    """Neither a run that came after it, nor one that is being created."""
    made = record(("a", ALIVE))
    assert begin(made, 1, "a", together=False) is Next.ANSWER
    if known is not None:
        assert not made.start("a", thread_id="thread_1", run_id=known)
    assert made.claim is not None

    stopped = made.stop(named)

    assert (stopped is made.claim) is (named is None or named == known)
    assert made.claim.is_stopped is (stopped is not None)


ADOPTIONS = {
    "nothing left": ([], None),
    "somebody waits": ([("a", DEAD), ("b", ALIVE)], None),
    "all are dead": ([("a", DEAD), ("b", DEAD)], 2),
}


@pytest.mark.parametrize(("waiting", "adopted"), ADOPTIONS.values(), ids=ADOPTIONS)
def test_what_nobody_waits_for_is_adopted(
    waiting: list[tuple[str, float]], adopted: int | None
) -> None:
    """The last message, whose claim answers all; not where somebody who is alive will."""
    made = record(*waiting)

    assert made.adopt("x", now=NOW, until=ALIVE) == adopted
    if adopted is not None:
        assert made.adopt("y", now=NOW, until=ALIVE) is None
        assert begin(made, adopted, "x", together=False) is Next.ANSWER


def test_claim_of_a_killed_process_is_adopted() -> None:
    """With the message whose reply showed the answer; before that it is held."""
    made = record(("a", ALIVE))
    assert begin(made, 1, "a", together=False) is Next.ANSWER

    assert made.adopt("x", now=NOW, until=ALIVE) is None
    assert made.adopt("x", now=NOW + LEASE, until=NOW + 2 * LEASE) == 1
    assert begin(made, 1, "x", NOW + LEASE, together=False) is Next.RESUME
    made.end(1, "x")
    assert not made.is_open
