"""What is read along with a claim, while every other write waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from openai_runs.server import Hang
from openai_runs.server.store import open_store
from openai_runs.server.store.runs import History, get, history, short_history
from openai_runs.types.runs import Run
from tests.databases import Database, Db
from tests.server.conftest import Serve

pytestmark = pytest.mark.postgresql

LARGE = "x" * 70_000
LAST = {"truncation_strategy": {"type": "last_messages", "last_messages": 2}}


async def read_both(db: Db, run: Any) -> tuple[History | None, History]:
    """Return what a claim reads of the run's history, and what it is."""
    store = await open_store(db, lambda change: None)
    try:
        stored = (await store.read(get, run["thread_id"], run["id"])).stored
        found = msgspec.json.decode(stored, type=Run)
        return await store.read(short_history, found), await store.read(history, found)
    finally:
        await store.aclose()


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
    *,
    serve: Serve,
    tmp_path: Path,
    database: Database,
    texts: list[str],
    fields: dict[str, Any],
    is_short: bool,
) -> None:
    """Few messages, and none of them large, of those that the model is to see."""
    caller = await serve(Hang(), db=tmp_path / "history.db")
    thread_id = await caller.thread()
    for text in texts:
        await caller.post(f"/threads/{thread_id}/messages", {"role": "user", "content": text})
    body = {"assistant_id": await caller.assistant(), **fields}
    run = await caller.post(f"/threads/{thread_id}/runs", body)

    await caller.close()

    short, whole = await read_both(database(tmp_path / "history.db"), run)

    assert [message.text for message in whole.messages] == (texts[-2:] if fields else texts)
    assert short == (whole if is_short else None)
