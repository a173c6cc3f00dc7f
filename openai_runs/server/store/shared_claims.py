"""Claims where several processes execute runs of one database: which runs, and whose.

A process claims queued runs for itself, some at once, and those of a process that is gone, one by
one. Which process executes a run stands in `runs.worker`; when that was last alive, in `workers`,
by the clock of the database, as those of the machines differ.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    bindparam,
    cast,
    delete,
    exists,
    extract,
    func,
    insert,
    literal_column,
    select,
    update,
)

from openai_runs.server.store.claims import Claim, claim_row
from openai_runs.server.store.damage import DamagedRow
from openai_runs.server.store.database import Connection
from openai_runs.server.store.moves import RunChanged, find_run
from openai_runs.server.store.schema import ACTIVE, runs, workers
from openai_runs.server.store.statements import Statement
from openai_runs.server.store.transaction import Transaction
from openai_runs.types.runs import RunStatus

__all__ = [
    "Abandoned",
    "UnreadableRun",
    "claim_queued",
    "find_abandoned",
    "find_cancelling",
    "find_claimed",
    "find_overdue",
    "is_held",
    "report_alive",
    "report_gone",
    "take_over",
]


class Abandoned(NamedTuple):
    """A run in progress whose process is gone."""

    run_id: str
    attempts: int
    """Processes in a row that went while they executed it."""


class UnreadableRun(Exception):  # noqa: N818 - an outcome
    """A row of the run is damaged; nothing was claimed, and the others can be."""

    def __init__(self, run_id: str) -> None:
        """Name the run."""
        super().__init__(run_id)
        self.run_id = run_id


_NOW: Any = cast(extract("epoch", func.clock_timestamp()), BigInteger)
_SILENT = bindparam("silence", type_=BigInteger)
_ROWS: Final = bindparam("rows", type_=BigInteger)
_IN_ORDER: Final = {
    status: select(runs.c.id).where(runs.c.status == literal_column(f"'{status}'"))
    for status in (RunStatus.QUEUED, RunStatus.CANCELLING)
}
_QUEUED: Final = Statement(
    _IN_ORDER[RunStatus.QUEUED]
    .where(
        runs.c.deadline > bindparam("now"),
        exists().where(workers.c.name == bindparam("worker"), workers.c.seen_at >= _NOW - _SILENT),
    )
    .order_by(runs.c.seq)
    .limit(_ROWS)
    .with_for_update(skip_locked=True)
)
_CANCELLING: Final = Statement(_IN_ORDER[RunStatus.CANCELLING].order_by(runs.c.seq).limit(_ROWS))
_OVERDUE: Final = Statement(
    select(runs.c.id).where(ACTIVE, runs.c.deadline <= bindparam("now")).limit(_ROWS)
)
_ALIVE = exists().where(workers.c.name == runs.c.worker, workers.c.seen_at >= _NOW - _SILENT)
_IN_PROGRESS = runs.c.status == literal_column(f"'{RunStatus.IN_PROGRESS}'")
_ABANDONED: Final = Statement(
    select(runs.c.id, runs.c.attempts)
    .where(_IN_PROGRESS, ~_ALIVE)
    .order_by(runs.c.attempts, runs.c.seq)
    .limit(_ROWS)
)
_MINE = runs.c.worker == bindparam("worker")
_CLAIMED: Final = Statement(select(runs.c.id, runs.c.attempts).where(_IN_PROGRESS, _MINE))
_TAKE: Final = Statement(
    select(runs.c.id)
    .where(runs.c.id == bindparam("key"), _IN_PROGRESS, ~_ALIVE | _MINE)
    .with_for_update(skip_locked=True)
)
_HELD: Final = Statement(
    select(runs.c.id).where(
        runs.c.id == bindparam("key"), runs.c.epoch == bindparam("held"), _IN_PROGRESS
    )
)
_REPORT: Final = Statement(
    update(workers).where(workers.c.name == bindparam("key")).values(seen_at=_NOW), []
)
_APPEAR: Final = Statement(insert(workers).values(seen_at=_NOW), ["name"])
_LEAVE: Final = Statement(delete(workers).where(workers.c.name == bindparam("key")))
_FORGET: Final = Statement(delete(workers).where(workers.c.seen_at < _NOW - _SILENT))


def claim_queued(
    tx: Transaction, worker: str, now: int, rows: int, *, silence: int, without: frozenset[str]
) -> list[Claim]:
    """Claim the oldest queued runs that nobody else is claiming now, at most so many.

    None if this process was silent for so many seconds. `without` are left out.

    Raises:
        UnreadableRun: One of them is damaged.
    """
    claimed: list[Claim] = []
    parameters = {"worker": worker, "now": now, "rows": rows + len(without), "silence": silence}
    for (run_id,) in _QUEUED.all(tx.connection, **parameters):
        if run_id in without or len(claimed) == rows:
            continue
        row = find_run(tx.connection, run_id)
        try:
            claim = None if row is None else claim_row(tx, run_id, row, now, worker=worker)
        except DamagedRow as damaged:
            raise UnreadableRun(run_id) from damaged
        tx.write_log()
        if claim is not None:
            claimed.append(claim)
    return claimed


def take_over(tx: Transaction, worker: str, run_id: str, now: int, silence: int) -> Claim | None:
    """Claim a run in progress whose process is gone, or that is this process's own.

    None: it is neither by now, or somebody else claims it.

    A run that has had too many processes go is failed instead; of its own, none has gone.

    Raises:
        UnreadableRun: It is damaged.
    """
    if _TAKE.value(tx.connection, key=run_id, worker=worker, silence=silence) is None:
        return None
    row = find_run(tx.connection, run_id)
    if row is None:
        return None
    attempts = row.attempts - 1 if row.worker == worker else row.attempts
    counted = attempts if attempts >= 0 else None
    try:
        return claim_row(tx, run_id, row, now, attempts=counted, worker=worker)
    except RunChanged:
        return None
    except DamagedRow as damaged:
        raise UnreadableRun(run_id) from damaged


def find_abandoned(connection: Connection, silence: int, rows: int) -> list[Abandoned]:
    """Return runs in progress whose process was silent for so many seconds, or has left."""
    return [Abandoned(*row) for row in _ABANDONED.all(connection, silence=silence, rows=rows)]


def find_claimed(connection: Connection, worker: str) -> list[Abandoned]:
    """Return the runs in progress that this process has claimed."""
    return [Abandoned(*row) for row in _CLAIMED.all(connection, worker=worker)]


def find_cancelling(connection: Connection, rows: int) -> list[str]:
    """Return runs that are being cancelled, oldest first."""
    return [run_id for (run_id,) in _CANCELLING.all(connection, rows=rows)]


def find_overdue(connection: Connection, now: int, rows: int) -> list[str]:
    """Return active runs whose time is up."""
    return [run_id for (run_id,) in _OVERDUE.all(connection, now=now, rows=rows)]


def is_held(connection: Connection, run_id: str, epoch: int) -> bool:
    """Return whether an execution of this epoch still has the run."""
    return _HELD.value(connection, key=run_id, held=epoch) is not None


def report_alive(tx: Transaction, worker: str, silence: int) -> None:
    """Say that this process is alive, and forget those that have been silent for so long."""
    if not _REPORT.run(tx.connection, key=worker).rowcount:
        _APPEAR.run(tx.connection, name=worker)
    _FORGET.run(tx.connection, silence=silence)


def report_gone(tx: Transaction, worker: str) -> None:
    """Say that this process executes nothing any more."""
    _LEAVE.run(tx.connection, key=worker)
