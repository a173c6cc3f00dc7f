"""What an error says is to be installed can be installed, whoever built the package and how."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from openai_runs._extras import is_of_an_extra, needs

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def parts_of(requirement: str) -> tuple[str, frozenset[str]]:
    """Return the package of a requirement and its bounds, in whichever order."""
    name, bounds = re.fullmatch(r"([\w.-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
    return name, frozenset(filter(None, bounds.split(",")))


@pytest.mark.parametrize(
    ("module", "extra"),
    [("sqlalchemy", "server"), ("cyclopts", "cli"), ("rich.console", "cli")],
)
def test_packages_of_the_extra_are_named(module: str, extra: str) -> None:
    """Each package of the extra is named with the bounds of pyproject.toml."""
    error = ModuleNotFoundError(f"No module named {module!r}", name=module)

    sentence = needs("this command", error)

    package = module.partition(".")[0]
    before, _, packages = sentence.partition(": pip install ")
    assert before == f"this command needs the package {package}"
    named = {parts_of(each) for each in re.findall(r"'([^']+)'", packages)}
    assert named == {parts_of(each) for each in EXTRAS[extra]}
    assert is_of_an_extra(error)


@pytest.mark.parametrize("module", ["pytest_asyncio", "hatchling", "somebody_elses"])
def test_package_of_no_extra_for_users_is_named_alone(module: str) -> None:
    """What is in no extra, or only in one for contributors, is installed by its name."""
    error = ModuleNotFoundError(name=module)

    assert needs("it", error).endswith(f": pip install {module.replace('_', '-')}")
    assert not is_of_an_extra(error)


def test_advice_needs_no_installed_metadata(tmp_path: Path) -> None:
    """Used from its folder and not installed, the package still says what is missing."""
    (tmp_path / "openai_runs").symlink_to(ROOT / "openai_runs")
    code = (
        "from openai_runs._extras import needs\n"
        "print(needs('it', ModuleNotFoundError(name='sqlalchemy')))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert done.stdout == "it needs the package sqlalchemy: pip install sqlalchemy\n"


@pytest.mark.parametrize("place", ["openai_runs", "docs/pages", "README.md", ".ci"])
def test_nothing_advises_to_install_what_no_index_has(place: str) -> None:
    """No text says to install `openai-runs` by its name: that is on no index."""
    root = ROOT / place
    files = [root] if root.is_file() else [one for one in root.rglob("*") if one.is_file()]
    texts = {one: one.read_text() for one in files if one.suffix in {".py", ".md", ".toml", ""}}

    found = [str(one) for one, text in texts.items() if re.search(r"install\W+openai.runs", text)]

    assert version("openai-runs")
    assert not found
