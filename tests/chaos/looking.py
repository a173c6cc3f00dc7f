"""What the database holds: looked at all the time, and as a whole in the end."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter, defaultdict
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec
import psycopg

from tests.chaos.callers import Acknowledged, Journal
from tests.chaos.model import text_of
from tests.chaos.processes import Process
from tests.chaos.reading import check_frames, frames_of

__all__ = ["Found", "Takeovers", "Watch", "look"]

_ACTIVE: Final = "('queued', 'in_progress', 'requires_action', 'cancelling')"
_TWO: Final = (
    f"SELECT thread_id FROM runs WHERE status IN {_ACTIVE} GROUP BY thread_id HAVING count(*) > 1"
)
_BOUND: Final = 20.0
"""Seconds in which the runs of a killed process are to be taken over."""


class _Silent(NamedTuple):
    """A run whose process was killed, or says nothing."""

    run_id: str
    epoch: int
    since: float
    disturbed: int
    """Restarts of PostgreSQL until then."""


class Takeovers:
    """How long runs waited for another process."""

    def __init__(self) -> None:
        """Start with none."""
        self.waiting: dict[str, _Silent] = {}
        self.seconds: list[float] = []
        self.disturbed: list[float] = []
        """Where PostgreSQL itself was stopped meanwhile."""
        self.restarts = 0

    def begin(self, runs: dict[str, int]) -> None:
        """Count from now for these runs, in these epochs."""
        now = time.monotonic()
        for run_id, epoch in runs.items():
            self.waiting[run_id] = _Silent(run_id, epoch, now, self.restarts)

    def see(self, rows: list[tuple[str, str, int]]) -> None:
        """Look which of them have moved on."""
        now = time.monotonic()
        for run_id, status, epoch in rows:
            silent = self.waiting.get(run_id)
            if silent is not None and (epoch > silent.epoch or status != "in_progress"):
                del self.waiting[run_id]
                kept = self.seconds if silent.disturbed == self.restarts else self.disturbed
                kept.append(now - silent.since)

    def __str__(self) -> str:
        """Return the figures."""
        kinds = {"": self.seconds, ", PostgreSQL stopped meanwhile": self.disturbed}
        return "; ".join(
            f"{len(kept)} runs taken over{how}: p50 {statistics.median(kept):.1f} s, "
            f"max {max(kept):.1f} s"
            for how, kept in kinds.items()
            if kept
        )

    @property
    def is_right(self) -> bool:
        """Return whether none took too long."""
        return max(self.seconds, default=0) < _BOUND


class Watch:
    """Looks at the database all the time."""

    def __init__(self, url: str, journal: Journal) -> None:
        """Look at this database."""
        self._url = url
        self._journal = journal
        self.takeovers = Takeovers()
        self.looks = 0

    async def serve(self) -> None:
        """Look again and again, also after PostgreSQL was stopped."""
        while True:
            with suppress(psycopg.Error):
                async with await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True
                ) as connection:
                    while True:
                        await self._look(connection)
                        await asyncio.sleep(0.2)
            await asyncio.sleep(0.2)

    async def _look(self, connection: psycopg.AsyncConnection[Any]) -> None:
        two = await (await connection.execute(_TWO)).fetchall()
        self._journal.wrong += [f"{thread_id}: two active runs" for (thread_id,) in two]
        if waiting := list(self.takeovers.waiting):
            sql = "SELECT id, status, epoch FROM runs WHERE id = ANY(%s)"
            self.takeovers.see(await (await connection.execute(sql, (waiting,))).fetchall())
        self.looks += 1

    async def silence(self, process: Process) -> None:
        """Begin to count for what this process executes, which does so no more."""
        with suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(
                self._url, autocommit=True
            ) as connection:
                self.takeovers.begin(await process.executing(connection))


class Found(NamedTuple):
    """What has come of the runs."""

    runs: int
    ends: Counter[str]
    lost: list[str]
    doubled: list[str]
    stuck: list[str]
    failed: list[str]
    given_up: list[str]
    """Failed because process after process went that executed them."""
    garbled: list[str]
    """Events with a gap or a repeat, or a text that is not what its deltas or the model said."""

    @property
    def is_right(self) -> bool:
        """Return whether none is wrong, and few were given up."""
        wrong = self.lost or self.doubled or self.stuck or self.failed or self.garbled
        return not wrong and len(self.given_up) * 100 < max(100, self.runs)

    def __str__(self) -> str:
        """Return it in words."""
        return (
            f"{self.runs} runs, {len(self.lost)} lost, {len(self.doubled)} doubled, "
            f"{len(self.stuck)} stuck, {len(self.failed)} failed, {len(self.garbled)} garbled, "
            f"{len(self.given_up)} given up"
        )


def look(url: str, acknowledged: dict[str, Acknowledged]) -> Found:
    """Return what the database holds; `acknowledged` are runs by their keys."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT id, thread_id, status, body FROM runs").fetchall()
        answers: dict[str, list[Any]] = defaultdict(list)
        for run_id, body in connection.execute(
            "SELECT run_id, body FROM messages WHERE run_id IS NOT NULL"
        ):
            message = msgspec.json.decode(body)
            if message["role"] == "assistant":
                answers[run_id].append(message)
        logs: dict[str, list[tuple[int, int, bytes]]] = defaultdict(list)
        for run_id, first, last, body in connection.execute(
            "SELECT run_id, first, last, body FROM events ORDER BY run_id, last"
        ):
            logs[run_id].append((first, last, body))
    found = Found(len(rows), Counter(row[2] for row in rows), [], [], [], [], [], [])
    made: dict[str, str] = {}
    for run_id, _, status, body in rows:
        run = msgspec.json.decode(body)
        key = run["metadata"]["key"]
        if made.setdefault(key, run_id) != run_id:
            found.doubled.append(key)
        _sort(found, key, status, run)
        found.garbled.extend(f"{key} {run_id}: {what}" for what in _read(logs[run_id], status))
        _check_answers(found, run, status, answers[run_id])
    found.lost.extend(key for key, one in acknowledged.items() if made.get(key) != one.run_id)
    return found


def _sort(found: Found, key: str, status: str, run: Any) -> None:
    if status == "failed":
        why = run["last_error"]["message"]
        (found.given_up if why.startswith("The server crashed") else found.failed).append(
            f"{key} {run['id']}: {why}"
        )
    elif status != "completed" and not (
        status == "cancelled" and run["metadata"]["kind"] == "cancel"
    ):
        found.stuck.append(f"{key} {run['id']}: {status}")


def _read(log: list[tuple[int, int, bytes]], status: str) -> list[str]:
    wrong, frames = [], []
    for first, last, body in log:
        row = frames_of(body)
        if [row[0].seq, row[-1].seq] != [first, last]:
            wrong.append(f"the row {first} to {last} holds {row[0].seq} to {row[-1].seq}")
        frames += row
    wrong += check_frames(frames, first=1)
    if not frames or frames[-1].name != f"thread.run.{status}":
        wrong.append(
            f"the run is {status}, and its last event {frames[-1].name if frames else None}"
        )
    return wrong


def _check_answers(found: Found, run: Any, status: str, answers: list[Any]) -> None:
    key, asked = run["metadata"]["key"], run["metadata"]["asked"]
    texts = ["".join(part["text"]["value"] for part in one["content"]) for one in answers]
    if len(texts) > 1 or (status == "completed" and not texts):
        found.doubled.append(f"{key} {run['id']}: {len(texts)} answers")
    for text in texts:
        whole = text_of(asked)
        if text != whole if status == "completed" else not whole.startswith(text):
            found.garbled.append(f"{key} {run['id']} {status}: {text[:200]!r}")
