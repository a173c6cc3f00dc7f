"""What the docs show is what the code does."""

import ast
import inspect
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

# Not left to `AsyncClient.local()`: its first import reads files, which is not for the event loop.
import openai_runs.server  # noqa: F401
from docs import generate, recordings, scaling
from openai_runs import AsyncClient, Run, errors
from openai_runs._protocol.endpoints import ENDPOINTS
from tests.suites import PLUGINS
from tests.test_seed_table import find

ROOT = Path(__file__).resolve().parents[1]
PAGES_FOLDER = ROOT / "docs" / "pages"
PAGES = [ROOT / "README.md", *sorted(PAGES_FOLDER.rglob("*.md"))]

_FENCE = re.compile(
    r"(?:<!-- (?:no-run: (?P<reason>.+?)|typed: (?P<typed>.+?)) -->\n)?"
    r"^```(?P<language>\w+).*\n(?P<source>(?s:.*?))^```$",
    re.MULTILINE,
)
_FILE = re.compile(r"`(\w+\.py)`:\s+\Z")
_SHOWN = re.compile(r"\s*```text\n(?P<text>(?s:.*?))```\n")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_MOVED = re.compile(r"^\| `[^|]+` \| (?:the same|`(?P<ours>[\w.]+)[^`]*`)[^|]* \|", re.MULTILINE)


class Block(NamedTuple):
    """One code block of a page."""

    place: str
    source: str
    reason: str | None
    """Why it is compiled only, from a `<!-- no-run: reason -->` above it."""
    typed: list[str]
    """What a person types, from a `<!-- typed: line | line -->` above it."""
    follows: str
    """What the page says after it."""
    file: str
    """The name that the page gives it, at the end of the words before it."""


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the page's Python blocks, in order."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        if found["language"] == "python":
            line = text.count("\n", 0, found.start("source"))
            place = f"{page.relative_to(ROOT)}:{line + 1}"
            # Blank lines on top, so that a traceback names the line of the page.
            source = "\n" * line + found["source"]
            typed = found["typed"].split(" | ") if found["typed"] else []
            named = _FILE.search(text, 0, found.start())
            file = named[1] if named else "test_block.py"
            yield Block(place, source, found["reason"], typed, text[found.end() :], file)


def pages_with_python() -> list[Path]:
    """Return the pages that hold at least one Python block."""
    return [page for page in PAGES if any(blocks_of(page))]


def promised(block: Block) -> list[str]:
    """Return the comment behind each `print`, which says what it prints."""
    tokens = tokenize.generate_tokens(StringIO(block.source).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    prints = [
        (node.lineno, node.end_lineno)
        for node in ast.walk(ast.parse(block.source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    silent = [line for line, end in prints if end not in comments]
    assert silent == [], f"{block.place}: what is printed on lines {silent}?"
    return [comments[end] for _, end in sorted(prints) if end is not None]


def compare(block: Block, printed: list[str]) -> None:
    """Fail unless what was printed is what the comments say; `...` stands for anything."""
    wanted = promised(block)
    same = len(wanted) == len(printed) and all(
        re.fullmatch(".*".join(map(re.escape, text.split("..."))), got)
        for text, got in zip(wanted, printed, strict=True)
    )

    assert same, f"{block.place} says {wanted} and prints {printed}"


def compare_dialogue(block: Block, printed: str) -> None:
    """Fail unless the next block of text is what a terminal shows: the echo of typing, answers."""
    shown = _SHOWN.match(block.follows)
    assert shown, f"{block.place}: what does the terminal show?"
    wanted = shown["text"]
    for line in block.typed:
        wanted = wanted.replace(f"> {line}\n", "> ", 1)

    assert printed.strip() == wanted.strip()


async def execute(page: Path, client: AsyncClient, folder: Path) -> dict[str, object]:
    """Run the page's blocks, one after the other, and return the names they leave."""
    printed: list[str] = []

    unended: list[str] = []

    def record(*values: object, end: str = "\n", flush: bool = False) -> None:
        unended.append(" ".join(map(str, values)))
        if end:
            printed.append("".join(unended))
            unended.clear()

    names: dict[str, object] = {"client": client, "__name__": page.stem, "print": record}
    for block in blocks_of(page):
        code = compile(block.source, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if block.reason:
            continue
        (folder / block.file).write_text(block.source)
        if "def test_" in block.source:
            options = [*PLUGINS, "-p", "openai_runs.testing"]  # as if installed
            run_script(["-m", "pytest", "-q", *options], block, folder)
        elif block.typed:
            compare_dialogue(block, run_script([], block, folder))
        elif "asyncio.run(" in block.source:
            compare(block, run_script([], block, folder).splitlines())
        else:
            printed.clear()
            result = eval(code, names)
            if inspect.iscoroutine(result):
                await result
            if unended:
                record(end="\n")
            compare(block, printed)
    return names


@pytest.mark.parametrize("page", pages_with_python(), ids=lambda page: page.stem)
async def test_python_blocks_run_against_the_local_server(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader can paste the page's blocks, one after the other, and sees what they say."""
    monkeypatch.chdir(tmp_path)
    async with AsyncClient.local() as client:
        await execute(page, client, tmp_path)


def run_script(launcher: list[str], block: Block, folder: Path) -> str:
    """Run a block as a program, or a test file, of its own; return what it prints."""
    script = folder / block.file
    done = subprocess.run(
        [sys.executable, *launcher, str(script)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input="\n".join(block.typed),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_generated_parts_are_current() -> None:
    """CLI help, error tree, defaults, endpoints and life cycle are what the code says now."""
    assert generate.outdated(generate.wanted()) == [], "run `poe generate`"


def test_figures_of_scaling_are_those_of_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tables, as they stand, with where and when they were measured; or that nobody has."""
    monkeypatch.setattr(scaling, "RESULT", tmp_path / "scaling.md")
    missing = scaling.figures()
    tables = "| database | processes | runs/s |\n| --- | ---: | ---: |\n| SQLite | 1 | 9 |\n"
    facts = "| date | 2026-11-29 |\n| commit | `abc` |\n| machine | 2 cores, Linux |\n"
    scaling.RESULT.write_text(f"# scaling\n\n| | |\n| --- | --- |\n{facts}\n{tables}")

    assert "poe long scaling" in missing
    assert scaling.figures() == f"{tables}\n2026-11-29, commit `abc`, 2 cores, Linux.\n"


def test_every_generated_part_is_shown() -> None:
    """No part and no picture is made for no page."""
    text = "".join(page.read_text() for page in PAGES)
    pictures = [*generate.FILES, *recordings.RECORDINGS]

    assert [name for name in pictures if not re.search(rf"[(/]{Path(name).name}\)", text)] == []
    assert [name for name in generate.PARTS if f"<!-- generated: {name} -->" not in text] == []


def test_every_operation_names_its_method() -> None:
    """The endpoint table of the docs shows a method of the client in each row."""
    rows = generate.endpoints().splitlines()[2:]

    assert len(rows) == len(ENDPOINTS)
    assert [row for row in rows if "|  |" in row] == []


def test_every_public_type_is_in_the_reference() -> None:
    """The reference renders each room of `openai_runs.types`, so no type is left out."""
    page = (PAGES_FOLDER / "reference" / "types.md").read_text()
    rendered = set(re.findall(r"^::: openai_runs\.types\.(\w+)$", page, re.MULTILINE))
    rooms = {path.stem for path in (ROOT / "openai_runs" / "types").glob("[!_]*.py")}

    assert rendered == rooms


def test_every_error_is_in_the_reference() -> None:
    """The reference renders each name of `openai_runs.errors`."""
    page = (PAGES_FOLDER / "reference" / "errors.md").read_text()
    rendered = re.findall(r"^::: openai_runs\.errors\.(\w+)$", page, re.MULTILINE)

    assert sorted(rendered) == sorted(errors.__all__)


def test_every_named_test_exists() -> None:
    """A test that a page names as proof of a promise is a function of the file it names."""
    named = {found for page in PAGES for found in _TEST.findall(page.read_text())}
    defined = {
        (file, node.name)
        for file in {file for file, _ in named}
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert named
    assert named - defined == set()


def test_every_promise_names_a_test() -> None:
    """What nothing keeps is a wish, and stands nowhere among the promises."""
    page = (PAGES_FOLDER / "explain" / "promises.md").read_text()
    promises = re.split(r"^- ", page, flags=re.MULTILINE)[1:]

    assert len(promises) > 50
    assert [text.splitlines()[0] for text in promises if not _TEST.search(text)] == []


def test_names_to_move_to_exist() -> None:
    """Each name in the second column of the moving tables is a name of ours."""
    page = (PAGES_FOLDER / "guides" / "moving.md").read_text()
    ours = [found["ours"] for found in _MOVED.finditer(page) if found["ours"]]

    assert len(ours) > 20
    for name in ours:
        find(name)


def test_only_papers_that_a_clone_holds_are_cited() -> None:
    """No comment, docstring or page sends its reader to a paper outside the repository."""
    papers = re.compile(
        rf"\b(?:{'|'.join(['design', 'protocol', 'engineering', 'style']).upper()})\b"
    )
    places = [
        "README.md",
        "pyproject.toml",
        ".ci",
        "openai_runs",
        "tests",
        "docs/pages",
        "docs/*.py",
        "docs/*.toml",
    ]
    found = [path for place in places for path in ROOT.glob(place)]
    files = [
        file
        for path in found
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.is_file() and file.suffix != ".pyc"
    ]

    assert len(files) > 150
    assert [
        f"{file.relative_to(ROOT)}: {line}"
        for file in files
        for line in file.read_text(errors="replace").splitlines()
        if papers.search(line)
    ] == []


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", PAGES_FOLDER / "index.md"], ids=["README", "index"]
)
def test_first_program_has_eight_lines_at_most(page: Path) -> None:
    """What a newcomer reads first is read in a glance."""
    first = next(blocks_of(page))

    assert len([line for line in first.source.splitlines() if line.strip()]) <= 8


def test_links_of_the_readme_lead_somewhere() -> None:
    """Each relative link of the README is a file of the repository."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text())

    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


async def test_web_handlers_answer_with_the_wire(tmp_path: Path) -> None:
    """The FastAPI and aiohttp handlers of the web guide answer with exactly the wire's JSON."""
    async with AsyncClient.local() as client:
        names = await execute(PAGES_FOLDER / "guides" / "web.md", client, tmp_path)
        run, application = names["run"], names["application"]
        assert isinstance(run, Run)
        assert isinstance(application, web.Application)
        wire = await client.request("GET", f"/threads/{run.thread_id}/runs/{run.id}")
        page = await client.request("GET", f"/threads/{run.thread_id}/runs")
        path = f"/threads/{run.thread_id}/runs"

        async with TestClient(TestServer(application)) as browser:
            for ending, expected in (
                (f"/{run.id}", wire),
                (f"/{run.id}/wrapped", {"run": wire}),
                ("", page),
            ):
                answer = await browser.get(path + ending)
                assert await answer.json() == expected
                assert await call_asgi(names["app"], path + ending) == expected


async def call_asgi(app: object, path: str) -> object:
    """Return the JSON an ASGI application answers a GET with."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    assert callable(app)
    await app(scope, receive, send)
    assert sent[0]["status"] == 200
    parts = (message.get("body", b"") for message in sent[1:])
    return msgspec.json.decode(b"".join(part for part in parts if isinstance(part, bytes)))


def test_readme_and_ci_use_the_same_test_command() -> None:
    """`.ci/run` calls, letter by letter, what the README tells a newcomer to call."""
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"^python3 -m venv .*$", readme, re.MULTILINE)

    assert len(commands) == 2
    assert commands[0].endswith("openai-runs demo")
    assert commands[1].endswith("poe test")
    assert commands[1] in (ROOT / ".ci" / "run").read_text().splitlines()
