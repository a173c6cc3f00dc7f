"""The layout is as architecture.md says: short files, short functions, no import cycles."""

import ast
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest

from openai_runs import AsyncClient
from openai_runs._client.usage import Resource

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "openai_runs"

MAX_FILE_LINES = 400  # of code: docstrings, imports, overload stubs and `__all__` apart
MAX_FUNCTION_LINES = 40  # the docstring apart

MAX_MODULES = 12  # in a folder

LONG_FILES: dict[str, str] = {
    "openai_runs/_client/core/pipeline.py": "one request's whole way: build, send, retry, decode",
    "openai_runs/_client/streams/session.py": "a table of states, and a step for each of them",
}
"""Path -> why it may be longer."""
LARGE_FOLDERS: dict[str, str] = {
    "openai_runs/_cli/commands": "one for each command",
    "openai_runs/_cli/parsing": "the same",
    "openai_runs/server/http": "one for each part of a request's way in and out, and its pages",
    "openai_runs/server/store": "one for each part of what is stored, and the seam",
}
"""Folder -> why it may hold more modules."""
LONG_FUNCTIONS: dict[str, str] = {
    "openai_runs/_cli/parsing/batch.py::batch_run": "one line for each option",
    "openai_runs/_cli/parsing/serve.py::serve": "the same",
    "openai_runs/_client/client.py::__init__": "one line for each argument, as given and as kept",
    "openai_runs/server/http/app.py::create_app": "the same",
}
"""`path::name` -> why it may be longer."""


def sources(folder: Path) -> list[Path]:
    """Return the folder's Python files."""
    return sorted(folder.rglob("*.py"))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield `path::name` and the length of each function, its docstring apart."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = node.body[0] if ast.get_docstring(node) else None
            apart = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
            length = (node.end_lineno or 0) - node.lineno + 1 - apart
            yield f"{path.relative_to(ROOT)}::{node.name}", length


def code_lines(path: Path) -> int:
    """Return the lines of a file, without docstrings, imports, overload stubs and `__all__`."""
    text = path.read_text()
    apart: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if _is_apart(node):
            assert isinstance(node, ast.stmt)
            apart.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(text.splitlines()) - len(apart)


def _is_apart(node: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return any(ast.unparse(one) == "overload" for one in node.decorator_list)
    return False


@pytest.mark.parametrize("folder", ["_client", "server", "_protocol", "types"])
def test_modules_do_not_import_the_root(folder: str) -> None:
    """The root lists names for users; a module that took them from there would close a cycle."""
    through_root = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(PACKAGE / folder)
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and node.module == "openai_runs")
        or (isinstance(node, ast.Import) and "openai_runs" in [name.name for name in node.names])
    ]

    assert through_root == []


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of ours that a file imports when it is loaded."""
    statements: list[ast.stmt] = list(ast.parse(path.read_text()).body)
    for node in statements:
        match node:
            case ast.ImportFrom(module=str(module)) if module.startswith("openai_runs."):
                yield module
                yield from (f"{module}.{name.name}" for name in node.names)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Loading any module first works; what is named under `TYPE_CHECKING` alone does not count."""
    graph = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): set(imports(path))
        for path in sources(PACKAGE)
        if path.name != "__init__.py"
    }
    left = {name: found & graph.keys() for name, found in graph.items()}
    while free := {name for name, found in left.items() if not found}:
        left = {name: found - free for name, found in left.items() if name not in free}

    assert left == {}


def test_folders_hold_few_modules() -> None:
    """A folder of more than 12 modules is reviewed: it may hold two concepts."""
    folders = [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir())]
    large = {
        str(folder.relative_to(ROOT))
        for folder in folders
        if len([path for path in folder.glob("*.py") if path.name[0] != "_"]) > MAX_MODULES
    }

    assert large == LARGE_FOLDERS.keys()


@pytest.mark.parametrize("name", ["assistants", "messages", "runs", "runs.steps", "threads"])
def test_resource_is_one_class(name: str) -> None:
    """What a resource does stands in one file; only what wrong use is answered with is shared."""
    kind = type(attrgetter(name)(AsyncClient("http://127.0.0.1:9/v1")))

    assert kind.__mro__ == (kind, Resource, object)
    assert [member for member in vars(Resource) if member[0] != "_"] == []


@pytest.mark.parametrize("folder", ["openai_runs", "tests", "docs"])
def test_files_are_short(folder: str) -> None:
    """A file of more than 400 lines of code is reviewed: it may hold two concepts."""
    lengths = {str(path.relative_to(ROOT)): code_lines(path) for path in sources(ROOT / folder)}
    too_long = {name: length for name, length in lengths.items() if length > MAX_FILE_LINES}

    assert {name: n for name, n in too_long.items() if name not in LONG_FILES} == {}


@pytest.mark.parametrize("folder", ["openai_runs", "tests", "docs"])
def test_functions_are_short(folder: str) -> None:
    """A function that passes 40 lines, its docstring apart, is split."""
    too_long = {
        name: length
        for path in sources(ROOT / folder)
        for name, length in functions(path)
        if length > MAX_FUNCTION_LINES
    }

    assert {name: n for name, n in too_long.items() if name not in LONG_FUNCTIONS} == {}


def test_exceptions_are_still_needed() -> None:
    """A file or function that has become short leaves the list of exceptions."""
    files = {name for name in LONG_FILES if is_longer(ROOT / name)}
    names = {
        name
        for path in (ROOT / key.partition("::")[0] for key in LONG_FUNCTIONS)
        for name, length in functions(path)
        if length > MAX_FUNCTION_LINES
    }

    assert set(LONG_FILES) == files
    assert set(LONG_FUNCTIONS) <= names


def is_longer(path: Path) -> bool:
    """Tell whether the file passes the limit."""
    return code_lines(path) > MAX_FILE_LINES
