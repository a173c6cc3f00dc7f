"""Who forgets `async with` leaves no folder behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import forgetful


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("forget_client", 0),
        ("forget_server", 0),
        ("raise_first", 1),
        ("fork_first", 0),
        ("leave_loop", 3),
    ],
)
def test_forgotten_close_leaves_no_folder(ending: str, code: int, tmp_path: Path) -> None:
    """When the interpreter ends, however it does, the temporary database is removed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", forgetful.__file__, ending],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert done.returncode == code, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_file_of_the_callers_is_kept(tmp_path: Path) -> None:
    """What is removed is the temporary folder alone, never a file that was named."""
    code = (
        "import asyncio\n"
        "from openai_runs import AsyncClient\n"
        "async def main(): await AsyncClient.local('kept.db').threads.create()\n"
        "asyncio.run(main())"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True)

    assert (tmp_path / "kept.db").is_file()
