"""`openai-runs batch table`: results as CSV, beside the rows that were asked about."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path

import pytest

from tests.batch.batching import Moody, Site, launch, site
from tests.cli.processes import execute, finish
from tests.cli.test_batch import FILES, write


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Site]:
    """Serve."""
    async with site(tmp_path / "server.db", backend=Moody) as served:
        yield served


async def test_table_has_each_row_with_its_answer(tmp_path: Path, server: Site) -> None:
    """In the order of the rows, errors and lines without an outcome included."""
    source = tmp_path / "in.csv"
    source.write_text('name,q\nAda,"Größe, ""a""\nb"\nAlan,bad one\nGrace,wait\n', "utf-8")
    options = [*FILES, "--prompt", "{q}", "--model", "echo", "--base-url", server.url]
    stopped = ["--max-failures", "1", "--concurrency", "1"]
    await execute("batch", "run", "in.csv", *options, *stopped, folder=tmp_path)

    table = await execute("batch", "table", "batch.db", "--rows", "in.csv", folder=tmp_path)
    plain = await execute("batch", "table", "batch.db", folder=tmp_path)

    assert (table.code, table.err, plain.code) == (0, "", 0)
    header, ada, alan, grace = csv.reader(StringIO(table.out.removeprefix("\ufeff")))
    assert header == ["name", "q", "answer", "error", "status"]
    assert ada == ["Ada", 'Größe, "a"\nb', 'Größe, "a"\nb', "", "completed"]
    assert alan == ["Alan", "bad one", "", "No such thing.", "failed"]
    assert grace == ["Grace", "wait", "", "", "pending"]
    assert [row[0] for row in csv.reader(StringIO(plain.out.removeprefix("\ufeff")))] == [
        *("custom_id", "row-3", "row-4")
    ]


async def test_table_of_other_rows_says_what_is_left_out(tmp_path: Path, server: Site) -> None:
    """No result is lost without a word."""
    write(tmp_path, server, "one", "two")
    (tmp_path / "in.csv").write_text("custom_id,q\nid-1,two\n")
    await finish(await launch(tmp_path, server.url))

    done = await execute("batch", "table", "batch.db", "--rows", "in.csv", folder=tmp_path)

    assert done.out.splitlines()[1] == "id-1,two,two,,completed"
    assert "left out: 1 of the results, whose ids no row of in.csv has\n" in done.err


OTHER_ROWS = {
    "row at the top": (
        "q\nzero\none\ntwo\n",
        "line 2 of in.csv, custom_id 'row-2', is not the row",
    ),
    "value changed": ("q\none\ntwo!\n", "line 3 of in.csv, custom_id 'row-3', is not the row"),
    "sorted": ("q\ntwo\none\n", "line 2 of in.csv, custom_id 'row-2', is not the row"),
    "column renamed": ("query\none\ntwo\n", "line 2 of in.csv, custom_id 'row-2', is not the"),
    "other ids": ("custom_id,q\na,one\nb,two\n", "no row of in.csv has the id of a result"),
}


@pytest.mark.parametrize("name", OTHER_ROWS)
async def test_table_beside_rows_that_were_not_asked_about_is_refused(
    tmp_path: Path, name: str
) -> None:
    """As `batch run` refuses them: no answer stands beside another question."""
    text, words = OTHER_ROWS[name]
    await batch_of_csv(tmp_path, "q\none\ntwo\n")
    (tmp_path / "in.csv").write_text(text)

    done = await execute("batch", "table", "batch.db", "--rows", "in.csv", folder=tmp_path)

    assert (done.code, done.out) == (1, "")
    assert words in done.err


async def test_table_beside_more_rows_and_columns_is_printed(tmp_path: Path) -> None:
    """Rows added at the end have no answer yet; a column that no prompt uses says nothing."""
    await batch_of_csv(tmp_path, "q\none\ntwo\n")
    (tmp_path / "in.csv").write_text("q,note\none,x\ntwo,y\nthree,z\n")

    done = await execute("batch", "table", "batch.db", "--rows", "in.csv", folder=tmp_path)

    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1:] == [
        "one,x,one,,completed",
        "two,y,two,,completed",
        "three,z,,,pending",
    ]


async def test_table_knows_the_prompts_of_all_files_of_a_checkpoint(tmp_path: Path) -> None:
    """Each row may have been asked about with one of them."""
    await batch_of_csv(tmp_path, "custom_id,q\na,one\n")
    await batch_of_csv(tmp_path, "custom_id,q\nb,two\n", prompt="Say {q}")
    (tmp_path / "in.csv").write_text("custom_id,q\na,one\nb,two\n")

    done = await execute("batch", "table", "batch.db", "--rows", "in.csv", folder=tmp_path)

    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1:] == ["a,one,one,,completed", "b,two,Say two,,completed"]


async def batch_of_csv(folder: Path, rows: str, *, prompt: str = "{q}") -> None:
    """Carry out a batch of these rows."""
    (folder / "in.csv").write_text(rows)
    options = [*FILES, "--prompt", prompt, "--model", "echo", "--db", "runs.db"]
    done = await execute("batch", "run", "in.csv", *options, folder=folder)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no.db"], "there is no checkpoint no.db"),
        (["batch.db", "--rows", "no.csv"], "no.csv: can"),
    ],
    ids=["no-checkpoint", "no-rows"],
)
async def test_table_of_no_file_is_an_error(
    tmp_path: Path, server: Site, arguments: list[str], words: str
) -> None:
    """It is named, and nothing is printed."""
    write(tmp_path, server, "one")
    await finish(await launch(tmp_path, server.url))

    done = await execute("batch", "table", *arguments, folder=tmp_path)

    assert (done.code, done.out) == (1, "")
    assert words in done.err


async def test_table_pairs_rows_by_the_column_that_names_them(tmp_path: Path, server: Site) -> None:
    """`batch run --id-column` has said which; a start without it is refused."""
    source = tmp_path / "in.csv"
    source.write_text("id,q\na,one\nb,two\n")
    options = [*FILES, "--prompt", "{q}", "--model", "echo", "--base-url", server.url]
    run = await execute("batch", "run", "in.csv", *options, "--id-column", "id", folder=tmp_path)
    source.write_text("id,q\nc,three\nb,two\na,one\n")

    table = await execute("batch", "table", "batch.db", "--rows", "in.csv", folder=tmp_path)
    other = await execute("batch", "run", "in.csv", *options, folder=tmp_path)

    assert run.code == 0, run.err
    assert table.out.removeprefix("\ufeff").splitlines() == [
        "id,q,answer,error,status",
        *("c,three,,,pending", "b,two,two,,completed", "a,one,one,,completed"),
    ]
    assert (table.code, table.err, other.code) == (0, "", 1)
    assert "go on with id_column='id' (--id-column)" in other.err


async def test_table_of_a_table_has_columns_of_other_names(tmp_path: Path) -> None:
    """So it may be the input of another batch, and that one's table too."""
    await batch_of_csv(tmp_path, "answer,error,status\none,,open\n", prompt="{answer}")
    options = ["--rows", "in.csv"]

    first = await execute("batch", "table", "batch.db", *options, folder=tmp_path)
    (tmp_path / "two").mkdir()
    await batch_of_csv(tmp_path / "two", first.out, prompt="{answer_2}!")
    second = await execute("batch", "table", "batch.db", *options, folder=tmp_path / "two")

    names = "answer,error,status,answer_2,error_2,status_2"
    assert first.out.removeprefix("\ufeff").splitlines() == [*(names, "one,,open,one,,completed")]
    assert second.out.removeprefix("\ufeff").splitlines() == [
        f"{names},answer_3,error_3,status_3",
        "one,,open,one,,completed,one!,,completed",
    ]


async def test_empty_answer_is_known_from_one_that_is_not_there(tmp_path: Path) -> None:
    """By its status."""
    await batch_of_csv(tmp_path, "id,q\na,one\nb,\n")
    (tmp_path / "in.csv").write_text("id,q\na,one\nb,\nc,three\n")

    done = await execute("batch", "table", "batch.db", "--rows", "in.csv", folder=tmp_path)

    assert done.out.splitlines()[1:] == [
        *("a,one,one,,completed", "b,,,,completed", "c,three,,,pending")
    ]
