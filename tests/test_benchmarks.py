"""The benchmarks run: nothing is said here about how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import page
from tests.benchmarks.machine import file_system_of
from tests.benchmarks.rows import GROUPS, ROWS

ROOT = Path(__file__).resolve().parents[1]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Return what the command did."""
    return subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_every_row() -> None:
    """The command tells what it can measure."""
    done = bench("--help")

    assert done.returncode == 0
    assert [row.name for row in ROWS if row.name not in done.stdout] == []


def test_cheap_row_gives_a_table_and_its_figures(tmp_path: Path) -> None:
    """Two clients decode the same run in two rounds, and are compared."""
    kept = tmp_path / "figures.json"

    done = bench(
        *("--only", "decode", "--quick", "--rounds", "2"),
        *("--against", "baseline", "ours", "--json", str(kept)),
    )

    assert done.returncode == 0, done.stderr
    assert "| decode 1 run | CPU |" in done.stdout
    figures = json.loads(kept.read_text())["decode"]["figures"]
    assert {name: len(each["cpu"]) for name, each in figures.items()} == {"baseline": 2, "ours": 2}


def test_file_system_is_named_where_it_is_known() -> None:
    """The mount nearest to the path says it; in a chroot there may be none."""
    mounts = "/dev/a / ext4 rw\nproc /proc proc rw\n/dev/b /home xfs rw\n"

    assert file_system_of("/home/me/file", mounts) == "xfs"
    assert file_system_of("/var/file", mounts) == "ext4"
    assert file_system_of("/var/file", "proc /proc proc rw\n") == "a file system unknown"


def test_unknown_row_is_refused() -> None:
    """A typo measures nothing."""
    done = bench("--only", "retreive")

    assert done.returncode == 2
    assert "no such row: retreive" in done.stderr


@pytest.mark.parametrize("group", GROUPS)
def test_page_shows_every_group(group: str) -> None:
    """The page of the docs has a place for each table."""
    text = (ROOT / "docs" / "pages" / "explain" / "benchmarks.md").read_text()

    assert f"<!-- measured: {group} -->" in text


def test_page_shows_the_figures_that_are_kept() -> None:
    """The page is what the last measurements make of it."""
    assert page.rendered(page.kept()) == page.PAGE.read_text()
