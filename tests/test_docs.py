"""What the docs show is what the code does."""

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from docs import generate
from openai_runs import AsyncClient

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "pages").rglob("*.md"))]

_FENCE = re.compile(
    r"(?:<!-- no-run: (?P<reason>.+?) -->\n)?^```(?P<language>\w+).*\n(?P<source>(?s:.*?))^```$",
    re.MULTILINE,
)


class Block(NamedTuple):
    """One code block of a page."""

    place: str
    source: str
    reason: str | None
    """Why it is compiled only, from a `<!-- no-run: reason -->` above it."""


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the page's Python blocks, in order."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        if found["language"] == "python":
            line = text.count("\n", 0, found.start("source"))
            place = f"{page.relative_to(ROOT)}:{line + 1}"
            # Blank lines on top, so that a traceback names the line of the page.
            yield Block(place, "\n" * line + found["source"], found["reason"])


def pages_with_python() -> list[Path]:
    """Return the pages that hold at least one Python block."""
    return [page for page in PAGES if any(blocks_of(page))]


@pytest.mark.parametrize("page", pages_with_python(), ids=lambda page: page.stem)
async def test_python_blocks_run_against_the_local_server(page: Path, tmp_path: Path) -> None:
    """A reader can paste the page's blocks, one after the other, and they work."""
    async with AsyncClient.local() as client:
        names: dict[str, object] = {"client": client, "__name__": page.stem}

        for block in blocks_of(page):
            code = compile(block.source, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if block.reason:
                continue
            if "asyncio.run(" in block.source:
                run_script([], block.source, tmp_path)
            elif "def test_" in block.source:
                run_script(["-m", "pytest", "-q", "-p", "no:cacheprovider"], block.source, tmp_path)
            else:
                result = eval(code, names)
                if inspect.iscoroutine(result):
                    await result


def run_script(launcher: list[str], source: str, folder: Path) -> None:
    """Run `source` as a program, or a test file, of its own."""
    script = folder / "test_block.py"
    script.write_text(source)
    done = subprocess.run(
        [sys.executable, *launcher, str(script)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_generated_parts_are_current() -> None:
    """CLI help, error tree and defaults in the docs are what the code says now."""
    assert generate.outdated() == [], "run `poe generate`"


def test_every_generated_part_is_shown() -> None:
    """No part is made for no page."""
    text = "".join(page.read_text() for page in PAGES)

    assert [name for name in generate.PARTS if f"<!-- generated: {name} -->" not in text] == []


def test_readme_and_ci_use_the_same_test_command() -> None:
    """`.ci/run` calls, letter by letter, what the README tells a newcomer to call."""
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"^python3 -m venv .*$", readme, re.MULTILINE)

    assert len(commands) == 2
    assert commands[0].endswith("openai-runs demo")
    assert commands[1].endswith("poe test")
    assert commands[1] in (ROOT / ".ci" / "run").read_text().splitlines()
