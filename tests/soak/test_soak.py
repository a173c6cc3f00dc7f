"""The soak itself, for some seconds: it runs, keeps its samples, and gives its verdict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.soak.__main__ import LIMITS, ROOT, SHORTEST, verdict

SAMPLE = {
    **{limit.figure: 1.0 for limit in LIMITS},
    "runs": 10.0,
    "client calls": 20.0,
    "client foreign": 0.0,
}


@pytest.mark.timeout(120)
def test_soak_ends_with_a_verdict(tmp_path: Path) -> None:
    """Some seconds of it: no foreign exception, no row left of deleted threads, samples kept."""
    options = ["--minutes", "0.05", "--interval", "1", "--rate", "10", "--folder", str(tmp_path)]

    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("soak: ")
    assert last.endswith("; too short to judge what grows")
    samples = msgspec.json.Decoder().decode_lines((tmp_path / "samples.jsonl").read_bytes())
    assert len(samples) >= 3
    assert samples[-1]["runs"] > 0
    assert "| database, MB |" in (tmp_path / "table.md").read_text()


def growing(figure: str, by: float) -> list[dict[str, float]]:
    """Return samples of half an hour, with one figure that grows by so much in all."""
    steps = 60
    return [
        {**SAMPLE, figure: 1.0 + by * step / steps, "at": SHORTEST * 3 * step / steps}
        for step in range(steps + 1)
    ]


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.figure)
def test_verdict_names_the_figure_that_grows(limit: Any) -> None:
    """Each figure of the table may fail the soak, and half of what it may grow by does not."""
    hours = SHORTEST * 3 / 3600

    code, line = verdict(growing(limit.figure, 2 * (limit.grows * hours + limit.noise)), [])
    assert (code, line.rpartition("; ")[2]) == (1, f"{limit.figure} grows")

    code, line = verdict(growing(limit.figure, limit.grows * hours / 2), [])
    assert (code, line.rpartition("; ")[2]) == (0, "nothing grows")


def test_verdict_names_other_trouble_and_foreign_exceptions() -> None:
    """Both fail the soak, however short it was."""
    sample = {**SAMPLE, "at": 1.0, "client foreign": 3.0}

    code, line = verdict([sample], ["2 rows of events are left"])

    assert code == 1
    assert line.endswith("; 2 rows of events are left, 3 foreign exceptions")
