"""Write the generated parts of the docs, or compare them with what stands there.

A page marks such a part with `<!-- generated: NAME -->` and `<!-- end -->`; NAME is a key of
`PARTS`. `poe generate` writes all parts anew; `tests/test_docs.py` calls `outdated`.
"""

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import openai_runs.config
import openai_runs.errors

PAGES = Path(__file__).resolve().parent / "pages"

_PART = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[^>]+?) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)


def fenced(text: str, language: str = "text") -> str:
    """Return `text` as a code block."""
    return f"```{language}\n{text.rstrip()}\n```\n"


def command_help(*arguments: str) -> str:
    """Return what `openai-runs ARGUMENTS --help` prints on a plain terminal of 80 columns."""
    plain = {**os.environ, "COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "openai_runs", *arguments, "--help"]
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=True)
    lines = (line.rstrip() for line in done.stdout.strip("\n").splitlines())
    return fenced("\n".join(lines))


def error_tree() -> str:
    """Return the tree as `errors.py` draws it."""
    drawing = (openai_runs.errors.__doc__ or "").split("\n\n")[1]
    return fenced(drawing)


def defaults() -> str:
    """Return every default of `config.py` with its unit and origin, as one table."""
    source = ast.parse(inspect.getsource(openai_runs.config))
    rows = [
        f"| `{name}` | `{value}` | {' '.join(meaning.split())} |"
        for name, value, meaning in _settings(source.body, "")
    ]
    return "\n".join(["| name | default | what it is |", "|---|---|---|", *rows]) + "\n"


PARTS: dict[str, Callable[[], str]] = {
    "cli openai-runs": command_help,
    "cli openai-runs demo": lambda: command_help("demo"),
    "cli openai-runs serve": lambda: command_help("serve"),
    "defaults": defaults,
    "errors": error_tree,
}
"""Name in a page's marker -> what makes the text."""


def renewed(page: str) -> str:
    """Return the page's text with every generated part made anew."""

    def renew(found: re.Match[str]) -> str:
        return f"{found['begin']}\n{PARTS[found['name']]()}\n{found['end']}"

    return _PART.sub(renew, page)


def outdated() -> list[str]:
    """Return the names of the pages whose generated parts differ from the code."""
    texts = {page: page.read_text() for page in sorted(PAGES.rglob("*.md"))}
    return [str(page.relative_to(PAGES)) for page, text in texts.items() if renewed(text) != text]


def _settings(statements: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and docstring of each public constant and policy field."""
    for statement, following in zip(statements, [*statements[1:], None], strict=True):
        if isinstance(statement, ast.ClassDef) and statement.name.endswith("Policy"):
            yield from _settings(statement.body, f"{statement.name}.")
        is_setting = isinstance(statement, ast.AnnAssign) and statement.value is not None
        if is_setting and isinstance(following, ast.Expr):
            yield f"{prefix}{_name(statement)}", _value(statement), _text(following)


def _name(statement: ast.stmt) -> str:
    return ast.unparse(statement.target) if isinstance(statement, ast.AnnAssign) else ""


def _value(statement: ast.stmt) -> str:
    value = statement.value if isinstance(statement, ast.AnnAssign) else None
    if isinstance(value, ast.Name):  # a policy's field that takes a constant
        return repr(getattr(openai_runs.config, value.id))
    return ast.unparse(value) if value is not None else ""


def _text(statement: ast.Expr) -> str:
    return str(ast.literal_eval(statement.value))


if __name__ == "__main__":
    for name in outdated():
        page = PAGES / name
        page.write_text(renewed(page.read_text()))
        print(f"renewed {name}")
