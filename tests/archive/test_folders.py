"""The files of an archive: for their owner alone, and written in the place that they name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from openai_runs.archive import export, write_responses
from openai_runs.archive.folders import write_whole
from tests.archive.world import Foundry, project


async def test_archive_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask: it holds the words of users, as the database does."""
    fake = Foundry(threads=2)
    before = os.umask(0)
    try:
        async with project(fake, fake.token) as client:
            await export(client, tmp_path / "made" / "here")
        await write_responses(tmp_path / "made" / "here")
    finally:
        os.umask(before)

    made = tmp_path / "made" / "here"
    paths = [made, *made.rglob("*")]
    modes = {str(path): stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert modes == {str(path): 0o700 if path.is_dir() else 0o600 for path in paths}
    assert len(paths) == 11


@pytest.mark.parametrize("kind", ["link", "file"])
def test_file_in_the_place_of_a_temporary_one_is_not_written_to(tmp_path: Path, kind: str) -> None:
    """A link that somebody planted leads nowhere; what a kill left is no obstacle."""
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    part = tmp_path / "mine.part"
    if kind == "link":
        part.symlink_to(theirs)
    else:
        part.write_text("half")

    write_whole(tmp_path / "mine", b"mine")

    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert not (tmp_path / "mine").is_symlink()
    assert theirs.read_text() == "theirs"
