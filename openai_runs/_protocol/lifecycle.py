"""The life of a run, as a table.

Theory of operation. Each change of a run's status is in `TRANSITIONS`. The server checks
`may_move` before it writes; a wait ends by `is_settled`, and its default deadline is
`seconds_to_expiry`; a create that waits for its thread uses `is_inactive`; a snapshot drops states
that `may_become` rules out; the docs draw their diagram from the table.

    queued -> in_progress -> completed | failed | incomplete
    queued | in_progress | requires_action -> cancelling -> cancelled
    in_progress -> requires_action -> queued            (outputs submitted)
    queued | in_progress | requires_action -> expired
    cancelling -> completed | failed | incomplete | expired   (finished before it was cancelled)

OpenAPI's RunObject names the statuses; docs/pages/explain/lifecycle.md draws the moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openai_runs._protocol import retry
from openai_runs.config import DEFAULT_RUN_LIFETIME, EXPIRY_MARGIN, MAX_RUN_LIFETIME
from openai_runs.types.base import ACTIVE_STATUSES, TERMINAL_STATUSES
from openai_runs.types.runs import Run, RunStatus

__all__ = [
    "CANCELLABLE",
    "TRANSITIONS",
    "is_inactive",
    "is_settled",
    "may_become",
    "may_move",
    "needs_no_cancel",
    "seconds_to_expiry",
]

TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    RunStatus.QUEUED: frozenset(
        {RunStatus.IN_PROGRESS, RunStatus.CANCELLING, RunStatus.EXPIRED, RunStatus.FAILED}
    ),
    RunStatus.IN_PROGRESS: frozenset(
        {
            RunStatus.QUEUED,  # executed again after a restart
            RunStatus.REQUIRES_ACTION,
            RunStatus.CANCELLING,
            RunStatus.COMPLETED,
            RunStatus.FAILED,
            RunStatus.INCOMPLETE,
            RunStatus.EXPIRED,
        }
    ),
    RunStatus.REQUIRES_ACTION: frozenset(
        {RunStatus.QUEUED, RunStatus.CANCELLING, RunStatus.EXPIRED}
    ),
    RunStatus.CANCELLING: frozenset(
        {
            RunStatus.CANCELLED,
            RunStatus.COMPLETED,
            RunStatus.FAILED,
            RunStatus.INCOMPLETE,
            RunStatus.EXPIRED,
        }
    ),
    **{status: frozenset[str]() for status in sorted(TERMINAL_STATUSES)},
}
"""From each status, the statuses that may follow."""

CANCELLABLE: Final = frozenset(
    status for status, following in TRANSITIONS.items() if RunStatus.CANCELLING in following
)
"""Statuses from which a run can be cancelled."""


def may_move(status: str, following: str) -> bool:
    """Return whether a run may go from one status to the other.

    >>> may_move("queued", "in_progress"), may_move("completed", "queued")
    (True, False)
    """
    return following in TRANSITIONS.get(status, frozenset())


def _reachable(status: str) -> frozenset[str]:
    reached: set[str] = set()
    front = {status}
    while front:
        front = set().union(*(TRANSITIONS[one] for one in front)) - reached
        reached |= front
    return frozenset(reached)


_REACHABLE: Final = {status: _reachable(status) for status in TRANSITIONS}


def may_become(status: str, following: str) -> bool:
    """Return whether a run seen in one status may later be seen in the other.

    Statuses in between may not have been seen, and an unknown status may come any time before
    the end. A status that only precedes the first one is ruled out.

    >>> may_become("queued", "completed"), may_become("completed", "in_progress")
    (True, False)
    """
    if status not in TRANSITIONS or status == following:
        return True
    if following not in TRANSITIONS:
        return status not in TERMINAL_STATUSES
    return following in _REACHABLE[status]


def is_settled(status: str) -> bool:
    """Return whether a wait ends with this status: terminal, requires_action or unknown.

    >>> [is_settled(s) for s in ("queued", "cancelling", "requires_action", "vanished")]
    [False, False, True, True]
    """
    return status not in ACTIVE_STATUSES or status == RunStatus.REQUIRES_ACTION


def needs_no_cancel(status: str) -> bool:
    """Return whether a run is over, or is being cancelled already.

    >>> needs_no_cancel("cancelling"), needs_no_cancel("completed"), needs_no_cancel("queued")
    (True, True, False)
    """
    return status == "cancelling" or status in TERMINAL_STATUSES


def is_inactive(status: str) -> bool:
    """Return whether a run of this status no longer blocks its thread.

    >>> [is_inactive(s) for s in ("cancelling", "requires_action", "expired", "vanished")]
    [False, False, True, True]
    """
    return status not in ACTIVE_STATUSES


def seconds_to_expiry(run: Run, headers: Mapping[str, str]) -> float:
    """Return the seconds the run has left by the server's own clock, plus a margin."""
    now = retry.server_time(headers) or run.created_at
    if run.expires_at is None or not now:
        return DEFAULT_RUN_LIFETIME
    if run.expires_at > now + MAX_RUN_LIFETIME:  # such as milliseconds: no run lives for years
        return DEFAULT_RUN_LIFETIME
    return max(0.0, run.expires_at - now) + EXPIRY_MARGIN
