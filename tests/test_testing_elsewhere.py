"""The pytest plugin in the suites of others: what they need to install, and in which loops."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.suites import PLUGINS


def run_suite(folder: Path, test: str, conftest: str = "") -> subprocess.CompletedProcess[str]:
    """Run a test file of a user's, with warnings as errors, in a process of its own."""
    (folder / "test_it.py").write_text(test)
    (folder / "conftest.py").write_text(
        f'import sys\n{conftest}\npytest_plugins = ["openai_runs.testing"]\n'
    )
    (folder / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"
    )
    root = str(Path(__file__).resolve().parents[1])
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *PLUGINS, str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root, "OPENAI_API_KEY": "sk-of-the-developer"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_pytest_asyncio_is_all_a_user_needs(tmp_path: Path) -> None:
    """One line in conftest.py, then tests in any mode and any loop scope."""
    test = """
import pytest

@pytest.mark.asyncio
async def test_own_loop(runs_server, runs_client):
    runs_server.reply("Hi.")
    assert (await runs_client.threads.create()).object == "thread"
    assert "sk-of-the-developer" not in repr(runs_server.requests)

@pytest.mark.asyncio(loop_scope="module")
async def test_shared_loop(runs_server):
    from openai_runs import AsyncClient
    async with AsyncClient(runs_server.url) as client:
        await client.threads.create()

def test_no_loop(runs_server):
    assert runs_server.url.startswith("http://127.0.0.1:")
"""

    done = run_suite(tmp_path, test)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


@pytest.mark.parametrize(
    ("missing", "advice"),
    [
        ("sqlalchemy", "pip install 'openai-runs[server]'"),
        ("pytest_asyncio", "pip install pytest-asyncio"),
    ],
)
def test_missing_package_is_named(missing: str, advice: str, tmp_path: Path) -> None:
    """A suite that lacks something says what to install, not where a traceback ended."""
    test = "def test_it(runs_client):\n    pass\n"

    done = run_suite(tmp_path, test, f"sys.modules[{missing!r}] = None")

    assert done.returncode == 1
    assert advice in done.stdout
    assert "Traceback" not in done.stdout
