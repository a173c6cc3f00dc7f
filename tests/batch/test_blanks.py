"""Rows with nothing in a column of the template: they are sent, and named before."""

from __future__ import annotations

import logging

import pytest

from openai_runs.batch import read_csv
from tests.batch.batching import ECHO, Folder

ROWS = {
    "two": ("id,q\na,one\nb,\nc,  \n", "Say {q}", ["2 rows have nothing in {q}: b, c"]),
    "one": ("id,q\na,one\nb,\n", "Say {q}", ["1 row has nothing in {q}: b"]),
    "many": (
        "id,q\n" + "".join(f"r{n},\n" for n in range(7)),
        "Say {q}",
        ["7 rows have nothing in {q}: r0, r1, r2, r3, r4, ..."],
    ),
    "two columns": (
        "id,q,name\na,,Ada\nb,two,\n",
        "{name}: {q}",
        ["1 row has nothing in {q}: a", "1 row has nothing in {name}: b"],
    ),
    "a column that is not used": ("id,q,name\na,one,\n", "Say {q}", []),
    "no row": ("id,q\n", "Say {q}", ["the input has no lines"]),
}


@pytest.mark.parametrize("name", ROWS)
async def test_rows_with_nothing_in_a_column_are_named(
    folder: Folder, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Once for each column, before anything is sent."""
    text, prompt, words = ROWS[name]
    source = folder.path / "in.csv"
    source.write_text(text)

    with caplog.at_level(logging.WARNING, "openai_runs.batch"):
        lines = read_csv(source, prompt, id_column="id")
        status = await folder.batch(assistant=ECHO).run(lines, out=folder.out)

    assert [one.getMessage() for one in caplog.records] == words
    assert status.completed == status.total


async def test_rows_that_are_done_are_not_named_again(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    """They were sent, and nothing can be saved."""
    source = folder.path / "in.csv"
    source.write_text("id,q\na,\n")
    lines = read_csv(source, "Say {q}", id_column="id")
    await folder.batch(assistant=ECHO).run(lines, out=folder.out)
    caplog.clear()

    await folder.batch().run(lines, out=folder.out)

    assert caplog.records == []
