"""No pattern of the package backtracks over a text: twice the text costs twice the steps.

The patterns are found in the source, so that none can be forgotten: one that is written in a
way that this file cannot read fails it too.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.matching import growth, worst_text

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "openai_runs"
WAYS = {
    "match": "match",
    "fullmatch": "fullmatch",
    "search": "search",
    "findall": "findall",
    "finditer": "findall",
    "split": "findall",
    "sub": "findall",
    "subn": "findall",
}
"""Methods of patterns, and which of them tries the same places."""
LINEAR = 2.5
"""Growth of the steps that still counts as linear; exact would be 2, and 4 is square."""

_MENTIONS = re.compile(r"\b(?:re|regex|fnmatch|glob|pattern)\b")
"""What a source file that matches anything has in it; most need no parser."""


class Use(NamedTuple):
    """A constant of a module, and how it is matched."""

    module: str
    name: str
    way: str


def module_of(path: Path) -> str:
    """Return the dotted name of a source file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def uses(tree: ast.Module, module: str) -> Iterator[Use]:
    """Yield how the patterns of one module are used.

    Raises:
        AssertionError: One is written so that it cannot be told what it is, or how it is used.
    """
    compiled = dict(constants(tree, module))
    seen, known = set(), {id(node) for node in compiled.values()}
    for node in ast.walk(tree):
        check_import(node, module)
        if isinstance(node, ast.keyword) and node.arg == "pattern":  # msgspec searches for it
            yield Use(module, name_of(node.value, module), "search")
        elif is_call_of_re(node) and id(node) not in known:
            yield from call_of_re(node, module)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in compiled:
                known.add(id(node.value))
                seen.add(node.value.id)
                if node.attr in WAYS:
                    yield Use(module, node.value.id, node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            # The tree is walked from above, so its attribute was there before.
            assert node.id not in compiled or id(node) in known, f"{module}: {node.id} is passed on"
    assert seen == compiled.keys(), f"{module}: {compiled.keys() - seen} is used elsewhere"


def constants(tree: ast.Module, module: str) -> Iterator[tuple[str, ast.AST]]:
    """Yield the name of each compiled pattern, and the call that compiles it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.Assign) and is_call_of_re(node.value, "compile"):
            assert node.value is not None
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            yield name_of(target, module), node.value


def check_import(node: ast.AST, module: str) -> None:
    """See that `re` is imported by its name alone, and nothing that makes patterns of its own."""
    if isinstance(node, ast.ImportFrom):
        assert node.module not in {"re", "fnmatch", "glob"}, module
    if isinstance(node, ast.Import):
        names = {alias.name: alias.asname for alias in node.names}
        assert not {"fnmatch", "glob", "regex"} & names.keys(), module
        assert names.get("re") is None, module


def call_of_re(node: Any, module: str) -> Iterator[Use]:
    """Yield how a function of `re` uses its pattern."""
    way = node.func.attr
    if way != "escape":
        assert way in WAYS, f"{module}: re.{way} stands elsewhere than in a constant"
        first, *others = node.args
        assert len(others) == (2 if way in {"sub", "subn"} else 1), module
        assert not node.keywords, f"{module}: flags stand in the pattern"
        yield Use(module, name_of(first, module), way)


def name_of(node: ast.AST, module: str) -> str:
    """Return the name that stands there."""
    assert isinstance(node, ast.Name), f"{module}: a pattern is a constant of its module"
    return node.id


def is_call_of_re(node: Any, name: str | None = None) -> bool:
    """Return whether the node is a call of a function of `re`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
        and name in {None, node.func.attr}
    )


def all_uses() -> list[Use]:
    """Return how every pattern of the package is used: each way that tries other places once."""
    found = {
        use._replace(way=WAYS[use.way])
        for path in PACKAGE.rglob("*.py")
        if _MENTIONS.search(source := path.read_text())
        for use in uses(ast.parse(source), module_of(path))
    }
    return sorted(found)


@pytest.mark.parametrize("use", all_uses(), ids=lambda use: f"{use.module}.{use.name}-{use.way}")
def test_pattern_of_the_package_is_linear(use: Use) -> None:
    """On the texts that its own parts suggest, matched as it is matched."""
    pattern = getattr(importlib.import_module(use.module), use.name)
    text, flags = pattern, 0
    if isinstance(pattern, re.Pattern):
        text, flags = pattern.pattern, pattern.flags

    worst, on = worst_text(text, flags, use.way)

    assert worst <= LINEAR, f"{use.way} of {text!r} on {on!r}"


BAD = {
    "the echo backend's": (r"use the tool\s+(\S{1,64})\s+for\s+(.+?)\s*\Z", re.I | re.S, "search"),
    "a Prefer header's": (r"\s*wait\s*=\s*\"?\s*(\d{1,9})\s*\"?\s*(?:;.*)?\Z", re.I, "match"),
    "a repeat in a repeat": (r"(a+)+$", 0, "match"),
    "a choice of the same": (r"(a|a)*b", 0, "match"),
    "a choice that overlaps": (r"(a|aa)+$", 0, "fullmatch"),
    "blanks at the end": (r"\s*$", 0, "search"),
    "up to the last comma": (r"(.*?),\s*\Z", 0, "search"),
    "neighbours": (r"\d+\d+x", 0, "match"),
    "neighbours around nothing": (r"\s*\"?\s*x", 0, "match"),
    "restarts": (r"[0-9]+s", 0, "findall"),
    "restarts behind anything": (r"(?<=\s)\s*+,", 0, "search"),
    "restarts after an opening": (r"<[^>]*>", 0, "search"),
    "bytes": (rb"(.+?\n\n)", re.S, "findall"),
}


@pytest.mark.parametrize(("pattern", "flags", "way"), BAD.values(), ids=BAD)
def test_pattern_that_backtracks_is_found(pattern: str | bytes, flags: int, way: str) -> None:
    """What the test above would say of the classical mistakes, and of our own old ones."""
    worst, _ = worst_text(pattern, flags, way)

    assert worst > 3


GOOD = {
    "a possessive repeat": (r"(?:a++)++$", 0, "match"),
    "an atomic group": (r"(?>a+)b", 0, "match"),
    "neighbours with nothing in common": (r"\s+\S+", 0, "match"),
    "bounded restarts": (r"[0-9]{1,9}s", 0, "search"),
    "looking ahead": (r"x\s++(?=\S)(?!y)", 0, "search"),
    "looking back": (r"(?<=[^\s,])(?<!xy)\s*+,", 0, "search"),
    "lazily, anchored": (r"(.*?),", 0, "match"),
    "lazily, a group": (r"(?:ab)*?c", 0, "match"),
    "a choice": (r"(?:a|b)+c", 0, "match"),
    "bytes": (rb"[^\n]*\n|.+", re.S, "findall"),
}


@pytest.mark.parametrize(("pattern", "flags", "way"), GOOD.values(), ids=GOOD)
def test_pattern_that_does_not_backtrack_is_let_pass(
    pattern: str | bytes, flags: int, way: str
) -> None:
    """Linear ones are recognised as such, with every node that the matcher knows."""
    worst, on = worst_text(pattern, flags, way)

    assert worst <= LINEAR, on


def test_growth_is_that_of_the_text() -> None:
    """Two for what is linear, four for what is square."""
    assert growth(r"\s*", 0, "match", ("", " ", "x")) == pytest.approx(2, abs=0.1)
    assert growth(r"\s*x", 0, "search", ("", " ", "y")) == pytest.approx(4, abs=0.3)


HIDDEN = {
    "by another name": "import re as r\nr.match('a', 'b')",
    "from the module": "from re import match\nmatch('a', 'b')",
    "in the call": "import re\nre.match('a+', text)",
    "in a loop": "import re\nfor p in (A, B):\n    re.match(*p)",
    "compiled in the call": "import re\nre.compile(A).match(text)",
    "passed on": "import re\nA = re.compile('a')\nA.match(text)\ncall(A)",
    "used nowhere": "import re\nA = re.compile('a')",
    "flags": "import re\nre.match(A, text, re.I)",
    "of a schema": "x = Meta(pattern='a+')",
    "of a file": "import fnmatch\nfnmatch.fnmatch(text, A)",
}


@pytest.mark.parametrize("source", HIDDEN.values(), ids=HIDDEN)
def test_pattern_cannot_hide(source: str) -> None:
    """What is written in a way that this file cannot read fails it."""
    with pytest.raises((AssertionError, ValueError)):
        list(uses(ast.parse(source), "m"))


def test_patterns_are_found() -> None:
    """Those of the echo backend, of the stream reader and of the errors, for instance."""
    assert {use.module.rpartition(".")[2] for use in all_uses()} >= {"echo", "sse", "masking"}
