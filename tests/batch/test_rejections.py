"""Lines that the server rejects: when the batch ends, and how they are put right."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
import pytest

from openai_runs.batch import Batch, BatchError, read_csv
from tests.batch.batching import ECHO, Folder, anonymous, errors_of


def rejected(text: str, **wrong: Any) -> dict[str, Any]:
    """Return a template that the server rejects."""
    return {"thread": {"messages": [{"role": "user", "content": text}]}, **wrong}


async def test_rejection_of_each_line_ends_the_batch_and_the_template_may_be_mended(
    folder: Folder,
) -> None:
    """A typo costs the first lines, and no run; put right, all of them have results."""
    source = folder.path / "in.csv"
    source.write_text("q\n" + "".join(f"text {n}\n" for n in range(100)))
    wrong = read_csv(source, rejected("{q}", tread={}))

    with pytest.raises(
        BatchError, match=r"rejected each of the first 20 lines .*'tread'; start .*may chan"
    ):
        await folder.batch(assistant=ECHO).run(wrong, out=folder.out)
    assert 20 <= len(errors_of(folder.path)) < 40

    right = read_csv(source, rejected("{q}"))
    mended = await folder.batch(assistant=ECHO).run(right, out=folder.out)

    assert (mended.completed, mended.failed) == (100, 0)
    assert errors_of(folder.path) == []
    assert folder.results()["row-2"] == "text 0"
    assert await anyio.to_thread.run_sync(folder.server.count, "runs") == 100


async def test_rejected_lines_end_no_batch_that_has_results(folder: Folder) -> None:
    """Many bad rows among good ones, or several kinds of them, are no fault of the template."""
    bad = [(f"id{n}", rejected("x", tread={})) for n in range(30)]
    other = ("other", rejected("x", treed={}))

    one = await folder.batch(assistant=ECHO, concurrency=1).run(
        [*anonymous("fine"), *bad], out=folder.out
    )
    again = Batch(folder.client, checkpoint=folder.path / "two.db", assistant=ECHO, concurrency=1)
    two = await again.run([other, *bad], out=folder.path / "two.jsonl")

    assert (one.completed, one.failed) == (1, 30)
    assert (two.completed, two.failed) == (0, 31)


async def test_line_that_was_rejected_may_change(folder: Folder) -> None:
    """It has no run; one that failed with a run, beside it, may not."""
    pairs = [("a", rejected("a", tread={})), ("b", rejected("bad")), ("c", rejected("c"))]
    await folder.batch(assistant=ECHO).run(pairs, out=folder.out)

    pairs[0] = ("a", rejected("a"))
    status = await folder.batch(assistant=ECHO).run(pairs, out=folder.out)
    pairs[1] = ("b", rejected("good"))
    with pytest.raises(BatchError, match="custom_id 'b', is not what it was"):
        await folder.batch(assistant=ECHO).run(pairs, out=folder.out)

    assert (status.completed, status.failed) == (2, 1)
    assert [one["custom_id"] for one in errors_of(folder.path)] == ["b"]


async def test_line_that_changes_leaves_the_file_of_errors_to_those_that_fail_now(
    folder: Folder,
) -> None:
    """The file is written anew while the batch is at work, and no line of it is lost."""
    pairs = [(name, rejected(name, tread={})) for name in ("a", "b")]
    await folder.batch(assistant=ECHO).run([*pairs, ("c", rejected("c"))], out=folder.out)

    pairs[1] = ("b", rejected("b"))
    await folder.batch(assistant=ECHO, concurrency=1).run(
        [("d", rejected("bad d")), pairs[0], pairs[1], ("e", rejected("bad e"))], out=folder.out
    )

    assert [one["custom_id"] for one in errors_of(folder.path)] == ["a", "d", "e"]
