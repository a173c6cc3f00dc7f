"""What is read along with a claim, while every other write waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec
import pytest

from openai_runs.server import Hang
from openai_runs.server.store.runs import History, get, history, short_history
from openai_runs.server.store.sqlite.connection import open_reader
from openai_runs.types.runs import Run
from tests.server.conftest import Serve

LARGE = "x" * 70_000
LAST = {"truncation_strategy": {"type": "last_messages", "last_messages": 2}}


def read_both(db: Path, run: Any) -> tuple[History | None, History]:
    """Return what a claim reads of the run's history, and what it is."""
    reader = open_reader(db)
    try:
        stored = get(reader, run["thread_id"], run["id"]).stored
        found = msgspec.json.decode(stored, type=Run)
        return short_history(reader, found), history(reader, found)
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("texts", "fields", "is_short"),
    [
        (["a", "b", "c"], {}, True),
        (["a"] * 32, {}, True),
        (["a"] * 33, {}, False),
        (["a"] * 33, LAST, True),
        (["a", LARGE], {}, False),
        ([LARGE[:30_000]] * 3, {}, False),
        ([LARGE, "a", "b"], LAST, True),
        (["a", LARGE, "b"], LAST, False),
    ],
    ids=["few", "most", "many", "last of many", "large", "large together", "last", "large last"],
)
async def test_claim_reads_a_history_only_where_it_is_short(
    serve: Serve, tmp_path: Path, texts: list[str], fields: dict[str, Any], is_short: bool
) -> None:
    """Few messages, and none of them large, of those that the model is to see."""
    caller = await serve(Hang(), db=tmp_path / "history.db")
    thread_id = await caller.thread()
    for text in texts:
        await caller.post(f"/threads/{thread_id}/messages", {"role": "user", "content": text})
    body = {"assistant_id": await caller.assistant(), **fields}
    run = await caller.post(f"/threads/{thread_id}/runs", body)

    short, whole = await anyio.to_thread.run_sync(read_both, tmp_path / "history.db", run)

    assert [message.text for message in whole.messages] == (texts[-2:] if fields else texts)
    assert short == (whole if is_short else None)
