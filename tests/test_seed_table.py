"""The table of the seeds is whole, and names things that exist: ours, and tests of them."""

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_overloads

import msgspec
import pytest

import openai_runs
from openai_runs import AsyncClient, types

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "pages" / "explain" / "seeds.md"
NAMES = ROOT / "tests" / "e2e" / "seed_names.json"
"""What the seeds say, taken from the two files once: names only."""

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
    """Yield the names a callable takes, those of its `Unpack[TypedDict]` included.

    Of one with overloads they are those of the first, which gives the plain answer.
    """
    function = getattr(callable_, "__func__", callable_)
    shown = next(iter(get_overloads(function)), function)
    signature = inspect.signature(shown, eval_str=True)
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


def names_of(seed: str) -> Iterator[str]:
    """Yield every name of a seed, written as the table writes it."""
    said = json.loads(NAMES.read_text())[seed]
    for operation, taken in said["operations"].items():
        yield operation
        yield from (f"{operation}({parameter})" for parameter in taken)
    for parameter in said["every_operation"]:
        yield f"{parameter} (every operation)"
    for kind, fields in said["types"].items():
        yield f"{kind} (type)" if kind in said["operations"] else kind
        yield from (f"{kind}.{field}" for field in fields)
    yield from said["constants"]
    yield from said["elsewhere"]  # what other files of the seed's package declare


@pytest.mark.parametrize("seed", ["go", "kt"])
def test_table_has_each_name_of_the_seeds_and_no_other(seed: str) -> None:
    """No operation, parameter, type, field or constant is left out, and none is invented."""
    shown = [row.name for row in ROWS if row.seed == seed]

    assert sorted(shown) == sorted(names_of(seed))


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


def sources() -> dict[str, str]:
    """Return the text of each test of the files that the table names, its decorators included."""
    found = {}
    for file in {row.test.partition("::")[0] for row in ROWS}:
        text = (ROOT / file).read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                marks = [ast.unparse(mark) for mark in node.decorator_list]
                found[f"{file}::{node.name}"] = "\n".join([*marks, ast.unparse(node)])
    return found


def test_every_test_of_the_table_exists() -> None:
    """Each test in the fourth column is a function of the file it names."""
    assert {row.test for row in ROWS} - set(sources()) == set()


def test_every_field_and_constant_is_touched_by_its_test() -> None:
    """A row about `Run.failed_at` names a test that says `failed_at`."""
    tests = sources()
    members = [row for row in ROWS if row.ours[0].isupper() and "." in row.ours]

    assert len(members) > 70
    assert [
        row.name
        for row in members
        if not re.search(rf"\b{row.ours.rpartition('.')[2]}\b", tests[row.test])
    ] == []


def test_table_is_read_whole() -> None:
    """No line of the table escapes the pattern, and no name stands in it twice."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith(("| go", "| kt"))]

    assert len(ROWS) == len(lines)
    assert len({(row.seed, row.name) for row in ROWS}) == len(ROWS)
