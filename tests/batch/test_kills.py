"""A batch killed with -9 goes on: each line has one result and one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.batch.kill_sweep import sweep


@pytest.mark.parametrize("remembers", [True, False], ids=["keys", "no-keys"])
async def test_killed_batch_makes_no_run_twice(tmp_path: Path, *, remembers: bool) -> None:
    """200 lines and 5 kills: 200 results, 200 runs, tool calls repeated once per kill at most."""
    found = await sweep(tmp_path, lines=200, kills=5, remembers=remembers)

    assert found.is_right, str(found)
    assert found.calls == 40
    assert found.orphans == 0 or not remembers
