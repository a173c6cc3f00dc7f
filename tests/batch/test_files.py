"""The files of a batch: torn, lost, moved, of somebody else, or in use."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from openai_runs.batch import Batch, BatchError, read_jsonl, status
from tests.batch.batching import Folder, Moody, errors_of, results_of


@pytest.mark.parametrize("left", [0, 1, 5, 300], ids=["all", "a-byte", "five-bytes", "300-bytes"])
async def test_torn_output_is_completed(folder: Folder, left: int) -> None:
    """A crash may cut the last line anywhere; the checkpoint has it whole."""
    folder.write(a="one", b="two", c="three")
    await folder.run(concurrency=1)
    whole = folder.out.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    folder.out.write_bytes(whole[: last + left] if left else b"")

    await folder.run()

    assert folder.out.read_bytes() == whole


async def test_missing_output_is_written_anew(folder: Folder) -> None:
    """Also under another name."""
    folder.write(a="one", b="two")
    await folder.run()
    other = folder.path / "other.jsonl"

    await folder.batch().run(read_jsonl(folder.source), out=other)

    assert other.read_bytes() == folder.out.read_bytes()


async def test_results_may_go_back_to_the_first_file(folder: Folder) -> None:
    """It has what this checkpoint wrote, and gets what came since, failures included."""
    other = folder.path / "other.jsonl"
    folder.write(a="one", b="bad one")
    await folder.run()
    folder.write(a="one", b="bad one", c="two", d="bad two")
    await folder.batch().run(read_jsonl(folder.source), out=other)

    status = await folder.run()

    assert status.out == str(folder.out)
    assert folder.out.read_bytes() == other.read_bytes()
    assert [one["custom_id"] for one in errors_of(folder.path)] == ["b", "d"]


async def test_first_file_with_something_else_is_not_written_to(folder: Folder) -> None:
    """Somebody used its name meanwhile."""
    folder.write(a="one")
    await folder.run()
    await folder.batch().run(read_jsonl(folder.source), out=folder.path / "other.jsonl")
    folder.out.write_text("mine\n")

    with pytest.raises(BatchError, match=r"out\.jsonl does not hold what this checkpoint"):
        await folder.run()

    assert folder.out.read_text() == "mine\n"


@pytest.mark.parametrize("name", ["out.jsonl", "out.errors.jsonl"])
async def test_file_of_somebody_else_is_not_written_to(folder: Folder, name: str) -> None:
    """A result of another batch is worth something."""
    folder.write(a="one")
    (folder.path / name).write_text("mine\n")

    with pytest.raises(BatchError, match=f"{name} exists already"):
        await folder.run()

    assert (folder.path / name).read_text() == "mine\n"


async def test_output_that_was_changed_is_not_written_to(folder: Folder) -> None:
    """Neither repaired nor appended to: somebody has worked on it."""
    folder.write(a="one")
    await folder.run()
    folder.out.write_text(folder.out.read_text() + "mine\n")

    with pytest.raises(BatchError, match="does not hold what this checkpoint has written"):
        await folder.run()


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough", None], ids=["text", "db"]
)
async def test_file_that_is_no_checkpoint_is_refused(folder: Folder, content: bytes | None) -> None:
    """Another database is not changed."""
    folder.write(a="one")
    if content is None:
        with sqlite3.connect(folder.checkpoint) as other:
            other.execute("CREATE TABLE mine (a)")
        other.close()
    else:
        folder.checkpoint.write_bytes(content)
    before = folder.checkpoint.read_bytes()

    with pytest.raises(BatchError, match="checkpoint"):
        await folder.run()

    assert folder.checkpoint.read_bytes() == before


@pytest.mark.parametrize("name", ["batch.db", "batch.db.lock"])
async def test_links_are_not_followed(folder: Folder, name: str) -> None:
    """Whoever may write into the folder could otherwise have another file written."""
    folder.write(a="one")
    target = folder.path / "target"
    target.write_text("mine")
    (folder.path / name).symlink_to(target)

    with pytest.raises(BatchError, match=name):
        await folder.run()

    assert target.read_text() == "mine"


async def test_lock_that_is_another_file_too_is_left_alone(folder: Folder) -> None:
    """A hard link: the id of the process would stand in that file."""
    folder.write(a="one")
    target = folder.path / "target"
    target.write_text("mine")
    (folder.path / "batch.db.lock").hardlink_to(target)

    with pytest.raises(BatchError, match=r"batch\.db\.lock: .* not a regular file of one name"):
        await folder.run()

    assert target.read_text() == "mine"


async def test_lock_that_is_a_fifo_is_an_error(folder: Folder) -> None:
    """Not a hang, and no error of the system's own."""
    folder.write(a="one")
    os.mkfifo(folder.path / "batch.db.lock")

    with pytest.raises(BatchError, match=r"batch\.db\.lock: .* not a regular file of one name"):
        await folder.run()


async def test_second_batch_on_a_checkpoint_is_told_who_has_it(
    folder: Folder, backend: Moody
) -> None:
    """By the id of the process and the path."""
    folder.write(a="wait")
    async with anyio.create_task_group() as group:
        group.start_soon(folder.run)
        await backend.waiting.wait()
        with pytest.raises(
            BatchError, match=f"process {os.getpid()} works on .*{folder.checkpoint}"
        ):
            await folder.run()
        backend.open.set()

    assert folder.results() == {"a": "wait"}


async def test_moved_folder_goes_on(folder: Folder, tmp_path: Path) -> None:
    """The output is known by its place beside the checkpoint."""
    folder.write(a="one")
    await folder.run()
    there = tmp_path / "there"
    await anyio.Path(there).mkdir()
    for name in ("in.jsonl", "out.jsonl", "batch.db"):
        await anyio.Path(tmp_path / name).rename(there / name)

    batch = Batch(folder.client, checkpoint=there / "batch.db")
    status = await batch.run(read_jsonl(there / "in.jsonl"), out=there / "out.jsonl")

    assert status.completed == 1
    assert len(results_of(there / "out.jsonl")) == 1


async def test_files_must_be_three(folder: Folder) -> None:
    """Two of them in one would destroy each other."""
    folder.write(a="one")

    with pytest.raises(BatchError, match="need a file each"):
        await folder.batch().run(read_jsonl(folder.source), out=folder.out, errors=folder.out)


def test_status_of_another_file_is_an_error(tmp_path: Path) -> None:
    """A database of another program, or no database."""
    other = tmp_path / "other.db"
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE mine (a)")
    database.close()
    (tmp_path / "text").write_text("no database at all, but long enough to be looked at")

    with pytest.raises(BatchError, match="no checkpoint"):
        status(other)
    with pytest.raises(BatchError, match="cannot be read"):
        status(tmp_path / "text")


@pytest.mark.parametrize("name", ["out", "errors", "checkpoint"])
async def test_file_that_cannot_be_made_is_an_error_before_anything_is_done(
    folder: Folder, name: str
) -> None:
    """Its folder is not there: the folder is named, and no other file is made."""
    folder.write(a="one")
    files = {"out": folder.out, "errors": folder.path / "errors", "checkpoint": folder.checkpoint}
    files[name] = folder.path / "no" / "file"
    before = (folder.server.requests, await anyio.to_thread.run_sync(os.listdir, folder.path))
    batch = Batch(folder.client, checkpoint=files["checkpoint"])

    with pytest.raises(BatchError, match=rf"no/file: there is no folder {folder.path}/no: make it"):
        await batch.run(read_jsonl(folder.source), out=files["out"], errors=files["errors"])

    after = (folder.server.requests, await anyio.to_thread.run_sync(os.listdir, folder.path))
    assert after == before


@pytest.mark.parametrize("name", ["answers.csv", "answers.XLSX", "answers.tsv"])
async def test_results_under_the_name_of_a_table_are_refused(folder: Folder, name: str) -> None:
    """They are JSON lines, which a spreadsheet would show as one column of braces."""
    folder.write(a="one")

    with pytest.raises(BatchError, match=r"no table: name it answers\.jsonl, and .*read_results"):
        await folder.batch().run(read_jsonl(folder.source), out=folder.path / name)

    assert not folder.checkpoint.exists()


async def test_status_leaves_no_file_behind(folder: Folder) -> None:
    """Whoever asks has the same files as before."""
    folder.write(a="one")
    await folder.run()

    found = await anyio.to_thread.run_sync(status, folder.checkpoint)

    assert found.completed == 1
    names = await anyio.to_thread.run_sync(os.listdir, folder.path)
    own = sorted(name for name in names if name.startswith("batch.db"))
    assert own == ["batch.db", "batch.db.lock"]
