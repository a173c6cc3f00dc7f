"""A batch killed with -9 goes on: each line has one result and one run."""

from __future__ import annotations

from pathlib import Path

import anyio.to_thread
import pytest

from tests.batch.batching import batch_line, launch, results_of, site, write_lines
from tests.batch.kill_sweep import sweep


@pytest.mark.parametrize("remembers", [True, False], ids=["keys", "no-keys"])
async def test_killed_batch_makes_no_run_twice(tmp_path: Path, *, remembers: bool) -> None:
    """200 lines and 5 kills: 200 results, 200 runs, tool calls repeated once per kill at most."""
    found = await sweep(tmp_path, lines=200, kills=5, remembers=remembers)

    assert found.is_right, str(found)
    assert found.calls == 40
    assert found.orphans == 0 or not remembers


@pytest.mark.parametrize("remembers", [True, False], ids=["keys", "no-keys"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_batch_makes_its_assistant_once(
    tmp_path: Path, *, after: bool, remembers: bool
) -> None:
    """Killed while it makes it: all runs have one; without keys one more may be left over."""
    lines = [batch_line(f"id-{n}", "", "hello") for n in range(3)]
    for line in lines:
        del line["body"]["assistant_id"]
    write_lines(tmp_path / "in.jsonl", lines)
    async with site(tmp_path / "server.db", remembers=remembers) as server:
        for requests in (1, 1, 2, 3):
            process = await launch(tmp_path, server.url, "--model", "echo")
            server.kill_at(process, requests, after=after)
            await process.communicate()
            assert process.returncode == -9
        process = await launch(tmp_path, server.url, "--model", "echo")
        _, said = await process.communicate()

        made = await anyio.to_thread.run_sync(server.count, "assistants")

    results = results_of(tmp_path / "out.jsonl")
    assert process.returncode == 0, said.decode()
    assert len(results) == 3
    assert len({one["response"]["body"]["assistant_id"] for one in results}) == 1
    assert made - 1 <= (1 if remembers else 4)  # beside the one that the site has made
