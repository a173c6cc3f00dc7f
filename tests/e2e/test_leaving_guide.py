"""The program of the guide takes everything out of a Foundry whose token expires."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openai_runs import AsyncClient
from openai_runs.archive import ExportReport, LoadReport
from tests.archive.world import Foundry, project
from tests.test_docs import PAGES_FOLDER, execute

if TYPE_CHECKING:
    import pytest


async def test_program_of_the_guide_moves_a_foundry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is in the file afterwards, by its old ids, and in the other form."""
    monkeypatch.chdir(tmp_path)
    fake = Foundry()

    async with project(fake, fake.late_token) as client:
        names: dict[str, Any] = await execute(
            PAGES_FOLDER / "guides" / "leaving-foundry.md", client, tmp_path
        )

    report, loaded = names["report"], names["loaded"]
    assert isinstance(report, ExportReport)
    assert isinstance(loaded, LoadReport)
    assert fake.refused > 0
    assert report.counts["threads"] == 7
    assert loaded.outcomes == {"created": 8}
    async with AsyncClient.local(tmp_path / "runs.db") as ours:
        for thread in fake.objects["threads"]:
            wanted = [one["id"] for one in fake.objects[f"threads/{thread['id']}/messages"]]
            listed = ours.messages.list(thread["id"], order="asc")
            assert [message.id async for message in listed] == wanted
    lines = (tmp_path / "archive" / "responses" / "thread_f1.jsonl").read_bytes().splitlines()
    kinds = [json.loads(line)["type"] for line in lines]
    assert kinds == ["message", "function_call", "function_call_output", "message"]
