"""Examples beside the pages' Python: those in docstrings run, shell commands are understood."""

import ast
import inspect
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import generate
from openai_runs import AsyncClient, RunResult
from openai_runs.testing import Cut, FaultProxy, Reset, RunsServer

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_EXAMPLE = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
GROUPS = {"assistants", "batch", "runs", "threads"}
"""Commands whose options are those of the command below."""
_SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples() -> Iterator[tuple[str, str]]:
    """Yield the fenced examples of all docstrings, each with its place."""
    for path in sorted((ROOT / "openai_runs").rglob("*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text if "```python" in text else "")):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                for _, source in _EXAMPLE.findall(ast.get_docstring(node) or ""):
                    yield f"{path.relative_to(ROOT)}::{node.name}", textwrap.dedent(source)


EXAMPLES = dict(examples())


@pytest.mark.parametrize("place", EXAMPLES)
async def test_example_of_a_docstring_runs(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be pasted where there is a client; one that is a test passes."""
    monkeypatch.chdir(tmp_path)  # where its files go
    source = compile(EXAMPLES[place], place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with RunsServer() as server, AsyncClient(server.url) as client:
        names: dict[str, object] = {
            "AsyncClient": AsyncClient,
            "Cut": Cut,
            "FaultProxy": FaultProxy,
            "Reset": Reset,
            "RunResult": RunResult,
            "assistant": await client.assistants.create(model="any"),
            "client": client,
            "items": [("first", {"thread": {}}), ("second", {"thread": {}})],
            "print": lambda *values, end="": None,
            "runs_server": server,
            "thread": await client.threads.create(),
        }
        result = eval(source, names)
        if inspect.iscoroutine(result):
            await result
        for name, value in list(names.items()):
            if name.startswith("test_") and callable(value):
                await value(server, client)


def shell_commands() -> Iterator[tuple[str, list[str]]]:
    """Yield each command of the pages' shell blocks in words, with its page."""
    for page in PAGES:
        for block in _SHELL.findall(page.read_text()):
            for line in block.splitlines():
                for command in line.split("&&"):
                    yield page.name, shlex.split(command, comments=True)


def test_commands_of_the_pages_are_understood() -> None:
    """Subcommands and options of ours are those that the help tells of; tasks and extras exist."""
    extras = set(PROJECT["project"]["optional-dependencies"])
    seen = set()
    for page, words in shell_commands():
        program = words[0].rpartition("/")[2] if words else ""
        seen.add(program)
        if program == "openai-runs":
            told = generate.command_help(*words[1 : 3 if words[1] in GROUPS else 2])
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert [option for option in options if option not in told] == [], page
        elif program == "poe":
            assert words[1] in PROJECT["tool"]["poe"]["tasks"], page
        elif program == "pip":
            named = re.findall(r"\[([\w,]+)\]", " ".join(words))
            assert {extra for names in named for extra in names.split(",")} <= extras, page

    assert {"openai-runs", "poe", "pip"} <= seen


def test_every_page_is_in_the_navigation() -> None:
    """A page that is written can be found, and none is promised that is not there."""
    listed = re.findall(r'"([\w/-]+\.md)"', (ROOT / "docs" / "zensical.toml").read_text())
    pages = ROOT / "docs" / "pages"

    assert sorted(listed) == sorted(str(page.relative_to(pages)) for page in pages.rglob("*.md"))


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_links_of_the_hosting_sites_pages_lead_somewhere(name: str) -> None:
    """Each relative link is a file of the repository."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "docs" / name).read_text())

    assert targets
    assert [target for target in targets if not (ROOT / "docs" / target).exists()] == []
