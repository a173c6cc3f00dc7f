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
from typing import Any

import openai_runs.config
import openai_runs.errors
from openai_runs import AsyncClient
from openai_runs._protocol.endpoints import ENDPOINTS
from openai_runs._protocol.lifecycle import TRANSITIONS
from openai_runs._protocol.spec import Retry
from openai_runs.types import TERMINAL_STATUSES, RunStatus

PAGES = Path(__file__).resolve().parent / "pages"

_PART = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[^>]+?) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)
_ENDPOINT = re.compile(r"^\s*Endpoint: (?P<endpoint>[A-Z]+ \S+)$", re.MULTILINE)
_STATUSES = [value for name, value in vars(RunStatus).items() if name.isupper()]
_RESOURCES = ("assistants", "threads", "messages", "runs", "runs.steps")


def fenced(text: str, language: str = "text") -> str:
    """Return `text` as a code block."""
    return f"```{language}\n{text.rstrip()}\n```\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


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
        [f"`{name}`", f"`{value}`", " ".join(meaning.split())]
        for name, value, meaning in _settings(source.body, "")
    ]
    return table(["name", "default", "what it is"], rows)


def endpoints() -> str:
    """Return the endpoint table with the client's method for each row."""
    methods = _methods()
    rows = [
        [
            f"`{row.method} {row.path}`",
            ", ".join(f"`{name}`" for name in methods.get(f"{row.method} {row.path}", [])),
            "freely" if row.retry == Retry.FREELY else "guarded",
            row.operation,
        ]
        for row in ENDPOINTS
    ]
    return table(["request", "in the client", "sent again", "in OpenAPI"], rows)


def lifecycle_diagram() -> str:
    """Return the life-cycle table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> queued"]
    for status in _STATUSES:
        lines += [f"    {status} --> {name}" for name in _STATUSES if name in TRANSITIONS[status]]
    lines += [f"    {status} --> [*]" for status in _STATUSES if status in TERMINAL_STATUSES]
    return fenced("\n".join(lines), "mermaid")


def lifecycle_table() -> str:
    """Return the life-cycle table as a table."""
    rows = [
        [f"`{status}`", ", ".join(f"`{name}`" for name in _STATUSES if name in TRANSITIONS[status])]
        for status in _STATUSES
        if TRANSITIONS[status]
    ]
    return table(["from", "to"], rows)


PARTS: dict[str, Callable[[], str]] = {
    "cli openai-runs": command_help,
    "cli openai-runs ask": lambda: command_help("ask"),
    "cli openai-runs demo": lambda: command_help("demo"),
    "cli openai-runs runs show": lambda: command_help("runs", "show"),
    "cli openai-runs runs wait": lambda: command_help("runs", "wait"),
    "cli openai-runs serve": lambda: command_help("serve"),
    "defaults": defaults,
    "endpoints": endpoints,
    "errors": error_tree,
    "lifecycle diagram": lifecycle_diagram,
    "lifecycle table": lifecycle_table,
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
        if isinstance(statement, ast.ClassDef) and statement.name.endswith(("Policy", "Limits")):
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


def _methods() -> dict[str, list[str]]:
    """Return, for each endpoint, the client's methods whose docstrings name it alone."""
    client = AsyncClient(base_url="http://127.0.0.1:9/v1")
    found: dict[str, list[str]] = {}
    for resource in _RESOURCES:
        owner: Any = client
        for name in resource.split("."):
            owner = getattr(owner, name)
        for name, method in inspect.getmembers(owner, inspect.ismethod):
            named = _ENDPOINT.search(method.__doc__ or "")
            if named is not None:
                found.setdefault(named["endpoint"], []).append(f"{resource}.{name}")
    return found


if __name__ == "__main__":
    for name in outdated():
        page = PAGES / name
        page.write_text(renewed(page.read_text()))
        print(f"renewed {name}")
