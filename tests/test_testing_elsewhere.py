"""The pytest plugin in the suites of others: what they need to install, and in which loops."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.suites import PLUGINS

ROOT = Path(__file__).resolve().parents[1]
NAMED = 'pytest_plugins = ["openai_runs.testing"]'
"""What a conftest.py may say, and need not."""


def run_suite(
    folder: Path, test: str, conftest: str = "", *, plugins: str = NAMED, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a test file of a user's, with warnings as errors, in a process of its own."""
    (folder / "test_it.py").write_text(test)
    (folder / "conftest.py").write_text(f"import sys\n{conftest}\n{plugins}\n")
    (folder / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"
    )
    root = str(Path(__file__).resolve().parents[1])
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *PLUGINS, str(folder)],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": f"{root}{os.pathsep}{installed(folder)}",
            "OPENAI_API_KEY": "sk-of-the-developer",
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def installed(folder: Path) -> Path:
    """Return a folder with the entry points of pyproject.toml, as an installed package has them."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"{name} = {target}" for name, target in points["pytest11"].items()]
    info = folder / "site" / "openai_runs_of_now-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: openai-runs-of-now\nVersion: 1\n")
    (info / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines]))
    return folder / "site"


@pytest.mark.parametrize("plugins", [NAMED, ""], ids=["named", "installed"])
def test_pytest_asyncio_is_all_a_user_needs(plugins: str, tmp_path: Path) -> None:
    """Tests in any mode and any loop scope, whether conftest.py names the plugin or not."""
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

    done = run_suite(tmp_path, test, plugins=plugins)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_suite_that_does_not_use_the_plugin_loads_nothing_of_it(tmp_path: Path) -> None:
    """Where the package is only installed, pytest starts without its client, server and aiohttp."""
    test = """
import sys

def test_it():
    assert "openai_runs.testing.fixtures" in sys.modules
    ours = {name for name in sys.modules if name.startswith("openai_runs")}
    assert ours == {"openai_runs", "openai_runs.testing", "openai_runs.testing.fixtures"}
    assert not {"aiohttp", "msgspec", "sqlalchemy", "anyio"} & (set(sys.modules) - BEFORE)
"""
    # The plugins of others in this environment may load such packages themselves: anyio has one.
    test = test.replace("BEFORE", "{'anyio'}")

    done = run_suite(tmp_path, test, plugins="")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.parametrize(
    ("missing", "advice"),
    [
        ("sqlalchemy", "the server needs the package sqlalchemy: pip install 'sqlalchemy"),
        ("pytest_asyncio", "pip install pytest-asyncio"),
    ],
)
def test_missing_package_is_named(missing: str, advice: str, tmp_path: Path) -> None:
    """A suite that lacks something says what to install, not where a traceback ended."""
    test = "def test_it(runs_client):\n    pass\n"

    hidden = f"sys.modules[{missing!r}] = None"  # before the plugin is loaded, by conftest.py

    done = run_suite(
        tmp_path,
        test,
        hidden,
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
        PYTEST_ADDOPTS="-W ignore::pytest.PytestConfigWarning",  # an option of pytest-asyncio's
    )

    assert done.returncode == 1
    assert advice in done.stdout
    assert "Traceback" not in done.stdout
