"""What the sweep of kills and its clients ask, and what the file must hold at the end."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

__all__ = ["Found", "look", "mix"]

_QUESTIONS = {"hello": 30, "slow": 40, "pause": 20, "seconds": 10}
"""How many in a hundred: at once, in a moment, after half a second, for three seconds."""


def mix(key: str) -> str:
    """Return the question of the run with this key, always the same."""
    chance = random.Random(key)
    return chance.choices(list(_QUESTIONS), list(_QUESTIONS.values()))[0]


class Found(NamedTuple):
    """What has come of the runs."""

    runs: int
    lost: list[str]
    """Acknowledged, and not there."""
    doubled: list[str]
    """Two runs for one key, or two answers for one run."""
    stuck: list[str]
    """Active after all, or expired."""
    given_up: list[str]
    failed: list[str]
    """For another reason than crashes."""

    @property
    def is_right(self) -> bool:
        """Return whether none is lost, doubled, stuck or failed, and few are given up."""
        wrong = self.lost or self.doubled or self.stuck or self.failed
        return not wrong and len(self.given_up) * 100 < self.runs

    def __str__(self) -> str:
        """Return it in words."""
        share = 100 * len(self.given_up) / max(1, self.runs)
        return (
            f"{self.runs} runs, {len(self.lost)} lost, {len(self.doubled)} doubled, "
            f"{len(self.stuck)} stuck, {len(self.failed)} failed, "
            f"{len(self.given_up)} given up ({share:.2f} %)"
        )


def look(db: Path, acknowledged: dict[str, str]) -> Found:
    """Return what the file holds; `acknowledged` are the ids of runs by their keys."""
    with closing(sqlite3.connect(db)) as file:
        rows = file.execute(
            "SELECT id, status, body ->> '$.metadata.key', body ->> '$.last_error.message' "
            "FROM runs ORDER BY seq"
        ).fetchall()
        answers = Counter(
            run_id
            for (run_id,) in file.execute(
                "SELECT run_id FROM messages WHERE run_id IS NOT NULL "
                "AND body ->> '$.role' = 'assistant'"
            )
        )
    keys = Counter(key for _, _, key, _ in rows)
    made = {key: run_id for run_id, _, key, _ in rows}
    completed = [run_id for run_id, status, *_ in rows if status == "completed"]
    failed = {run_id: message for run_id, status, _, message in rows if status == "failed"}
    given_up = [run_id for run_id, why in failed.items() if why.startswith("The server crashed")]
    return Found(
        runs=len(rows),
        lost=[key for key, run_id in acknowledged.items() if made.get(key) != run_id],
        doubled=[key for key, number in keys.items() if number > 1]
        + [run_id for run_id in completed if answers[run_id] != 1],
        stuck=[run_id for run_id, status, *_ in rows if status not in {"completed", "failed"}],
        given_up=given_up,
        failed=[run_id for run_id in failed if run_id not in given_up],
    )
