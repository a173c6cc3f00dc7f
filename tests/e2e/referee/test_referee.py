"""The official `openai` package, in two major versions, agrees with our server."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import Database
from tests.e2e.referee import environments

HERE = Path(__file__).parent
CHECKS = sorted(path.stem for path in HERE.glob("check_*.py"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, module_database: Database) -> Iterator[str]:
    """`openai-runs serve` as its own process; the URL it prints."""
    database = module_database(tmp_path_factory.mktemp("referee") / "runs.db")
    command = [sys.executable, "-m", "openai_runs", "serve", "--port", "0", "--db", str(database)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert line.startswith("listening on http://127.0.0.1:"), line
            yield line.split()[-1]
        finally:
            process.terminate()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("version", list(environments.REQUIREMENTS))
def test_official_package_agrees_when_it_validates_strictly(served: str, version: str) -> None:
    """Every step of each script holds, with `_strict_response_validation=True`."""
    done = subprocess.run(
        [str(environments.python(version)), str(HERE / "judge.py"), served],
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert CHECKS
    assert done.stdout.splitlines() == [f"{check}: ok" for check in CHECKS]
