"""The table of the seeds names things that exist: ours, and the tests that go through them."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec
import pytest

import openai_runs
from openai_runs import AsyncClient, types

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "pages" / "explain" / "seeds.md"

_ROW = re.compile(r"^\| (go|kt) \| `([^`]+)` \| `([^`]+)` \| `([^`]+)` \|$", re.MULTILINE)
_OURS = re.compile(r"(?P<path>[\w.]+)(?:\((?P<arguments>[\w*, ]+)\))?")


class Row(NamedTuple):
    """One line of the table."""

    seed: str
    name: str
    ours: str
    test: str


ROWS = [Row(*found) for found in _ROW.findall(TABLE.read_text())]


def parameters(callable_: Any) -> Iterator[str]:
    """Yield the names a callable takes, those of its `Unpack[TypedDict]` included."""
    signature = inspect.signature(callable_, eval_str=True)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            (declared,) = get_args(parameter.annotation)
            yield from declared.__annotations__
        else:
            yield name


def find(path: str) -> Any:
    """Return what `path` names, starting from a client, the root or the types."""
    first, *rest = path.split(".")
    if first == "client":
        found: Any = AsyncClient(base_url="http://127.0.0.1:9/v1")
    else:
        found = getattr(openai_runs, first, None) or getattr(types, first)
    for name in rest:
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("ours", sorted({row.ours for row in ROWS}))
async def test_ours_exists(ours: str) -> None:
    """Each name in the third column is there, and takes the arguments it is shown with."""
    shown = _OURS.fullmatch(ours)
    assert shown, ours

    found = find(shown["path"])
    for argument in (shown["arguments"] or "").split(", "):
        if argument.startswith("**"):
            body = msgspec.structs.fields(getattr(types, argument[2:]))
            wanted = {field.encode_name for field in body} - {"stream"}
            assert wanted <= set(parameters(found))
        elif argument:
            assert argument in set(parameters(found))


def test_every_test_of_the_table_exists() -> None:
    """Each test in the fourth column is a function of the file it names."""
    named = {row.test for row in ROWS}
    files = {test.partition("::")[0] for test in named}
    defined = {
        f"{file}::{node.name}"
        for file in files
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert named - defined == set()


def test_table_is_read_whole() -> None:
    """No line of the table escapes the pattern, and no name stands in it twice."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith(("| go", "| kt"))]

    assert len(ROWS) == len(lines)
    assert len({(row.seed, row.name) for row in ROWS}) == len(ROWS)
