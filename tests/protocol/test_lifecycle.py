"""The life of a run: the table is closed, and its ends are ends."""

import pytest

from openai_runs._protocol.lifecycle import (
    CANCELLABLE,
    TRANSITIONS,
    is_settled,
    may_become,
    may_move,
)
from openai_runs.types import ACTIVE_STATUSES, TERMINAL_STATUSES
from tests.openapi import SCHEMAS

STATUSES = set(SCHEMAS["RunObject"]["properties"]["status"]["enum"])


def test_table_has_a_row_for_each_status_and_leads_nowhere_else() -> None:
    """Rows and what they lead to are the statuses of the OpenAPI description."""
    assert set(TRANSITIONS) == STATUSES
    assert set().union(*TRANSITIONS.values()) == STATUSES


@pytest.mark.parametrize("status", sorted(TERMINAL_STATUSES))
def test_nothing_follows_a_terminal_status(status: str) -> None:
    """A finished run stays as it is."""
    assert TRANSITIONS[status] == frozenset()
    assert not any(may_move(status, following) for following in STATUSES)


@pytest.mark.parametrize("status", sorted(ACTIVE_STATUSES))
def test_every_active_status_can_still_end(status: str) -> None:
    """From each active status a terminal one can be reached, so no run is stuck by rule."""
    seen, front = {status}, {status}
    while front:
        front = set().union(*(TRANSITIONS[reached] for reached in front)) - seen
        seen |= front

    assert seen >= TERMINAL_STATUSES


def test_every_status_is_reached_from_the_first() -> None:
    """A run starts as queued; each other status follows some status."""
    assert set().union(*TRANSITIONS.values()) >= STATUSES - {"queued"}


@pytest.mark.parametrize(
    ("status", "following", "allowed"),
    [
        ("queued", "in_progress", True),
        ("queued", "requires_action", False),
        ("in_progress", "requires_action", True),
        ("in_progress", "queued", True),
        ("requires_action", "queued", True),
        ("requires_action", "completed", False),
        ("requires_action", "expired", True),
        ("cancelling", "cancelled", True),
        ("cancelling", "completed", True),
        ("cancelling", "queued", False),
        ("queued", "cancelled", False),
        ("completed", "queued", False),
        ("vanished", "queued", False),
        ("queued", "vanished", False),
        ("queued", "queued", False),
    ],
)
def test_moves_are_those_of_the_protocol(status: str, following: str, allowed: bool) -> None:
    """The life of a run, move by move; a status nobody knows goes nowhere."""
    assert may_move(status, following) is allowed


def test_what_can_be_cancelled() -> None:
    """A run that waits for us can be cancelled, one that is being cancelled cannot."""
    assert {"queued", "in_progress", "requires_action"} == CANCELLABLE


@pytest.mark.parametrize("status", sorted(STATUSES | {"vanished", ""}))
def test_waiting_ends_on_every_status_but_three(status: str) -> None:
    """Queued, in progress and cancelling are worth waiting for; nothing else is."""
    assert is_settled(status) is (status not in {"queued", "in_progress", "cancelling"})


@pytest.mark.parametrize("status", sorted(STATUSES))
def test_status_may_become_what_some_way_leads_to(status: str) -> None:
    """Statuses in between may have gone unseen; an end or a cancel leads nowhere else."""
    later = {following for following in STATUSES if may_become(status, following)}

    if status in TERMINAL_STATUSES:
        assert later == {status}
    elif status == "cancelling":
        assert later == {"cancelling"} | TERMINAL_STATUSES
    else:
        assert later == STATUSES


def test_unknown_status_may_come_before_the_end_and_lead_anywhere() -> None:
    """A status from the future is neither refused nor a trap."""
    assert may_become("in_progress", "paused")
    assert may_become("paused", "queued")
    assert may_become("paused", "resting")
    assert not may_become("completed", "paused")
