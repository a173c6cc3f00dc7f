"""The timer of all active runs holds about as many entries as there are such runs."""

from __future__ import annotations

import math
import random

import pytest

from openai_runs.server.execution.engine import _Timer

DAY = 24 * 3600


@pytest.mark.parametrize("active", [0, 1, 500])
async def test_runs_that_are_over_leave_the_timer_long_before_their_deadline(active: int) -> None:
    """A million runs a day that last a second each are no million entries."""
    timer = _Timer()
    for number in range(active):
        timer.add(f"active_{number}", number)

    for number in range(20_000):
        timer.add(f"over_{number}", DAY + number)
        timer.discard(f"over_{number}")

    assert len(timer._heap) < 2_100


async def test_runs_still_expire_in_order_when_most_others_were_discarded() -> None:
    """Dropping the entries of runs that are over drops no other and keeps the order."""
    chance = random.Random(10)
    timer, deadlines = _Timer(), {}
    for number in range(10_000):
        deadline = chance.randrange(DAY)
        timer.add(f"run_{number}", deadline)
        if number % 100:
            timer.discard(f"run_{number}")
        else:
            deadlines[f"run_{number}"] = deadline

    found = timer.pop_overdue(DAY)

    assert sorted(found) == sorted(deadlines)
    assert [deadlines[run_id] for run_id in found] == sorted(deadlines.values())
    assert timer.next_deadline() == math.inf
