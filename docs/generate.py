"""Write the generated parts of the docs, or compare them with what stands there.

A page marks such a part with `<!-- generated: NAME -->` and `<!-- end -->`; NAME is a key of
`PARTS`. `FILES` are made as a whole. `poe generate` writes all of it anew; `tests/test_docs.py`
calls `outdated(wanted())`.
"""

import ast
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai_runs.config
import openai_runs.errors
from docs import diagrams, recordings, scaling
from openai_runs import AsyncClient
from openai_runs._protocol.endpoints import ENDPOINTS
from openai_runs._protocol.lifecycle import TRANSITIONS
from openai_runs.types import TERMINAL_STATUSES, RunStatus

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "pages"

_PART = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[^>]+?) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)
_ENDPOINT = re.compile(r"^\s*Endpoint: (?P<endpoint>[A-Z]+ \S+)$", re.MULTILINE)
_STATUSES = [value for name, value in vars(RunStatus).items() if name.isupper()]
_LEFT, _RIGHT, _HALF = 220, 640, 85
"""Of the drawing: middles of its two columns, and half of a box."""
_WIDTH, _BOXES = 860, 250
"""Of the drawing of the layers: its width, and where the boxes of modules begin."""
_EXPANDED = ("_client", "server")
"""Whose own layers are drawn."""
_FILLS = ("#c5cae9", "#cfd8dc")
"""Of a layer of the package, and of one within the client or the server."""
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
            row.retry.value,
            row.operation,
        ]
        for row in ENDPOINTS
    ]
    return table(["request", "in the client", "repeating it", "in OpenAPI"], rows)


def layers(container: str) -> str:
    """Return the layers in `container` as import-linter keeps them, from the top, as a table."""
    rows = [
        [f"`{module}`", _first_line(ROOT / container.replace(".", "/") / module)]
        for layer in _layers_of(container)
        for module in layer
    ]
    return table(["module", "what lives there"], rows)


def modules(folder: str) -> str:
    """Return the modules of a folder of the client, with what lives in each, as a table."""
    paths = sorted((ROOT / folder).glob("[a-z]*.py"))
    return table(
        ["module", "what lives there"], [[f"`{path.stem}`", _first_line(path)] for path in paths]
    )


def _layers_of(container: str) -> list[list[str]]:
    """Return the modules of each layer of `container`, from the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (found,) = (
        contract["layers"]
        for contract in contracts["contracts"]
        if contract.get("containers") == [container]
    )
    return [re.findall(r"\w+", layer) for layer in found]


def layers_drawing() -> str:
    """Return the layers of the package as an SVG, those within the client and the server too."""
    bands: list[tuple[int, str, list[str]]] = []
    for layer in _layers_of("openai_runs"):
        (name,) = layer if len(layer) == 1 else ("",)
        if name not in _EXPANDED:
            bands.append((0, " | ".join(layer), _modules_in("openai_runs", layer)))
            continue
        bands.append((0, name, []))
        inner = _layers_of(f"openai_runs.{name}")
        bands += [(1, " | ".join(one), _modules_in(f"openai_runs/{name}", one)) for one in inner]
    lines, y = [], 10
    for depth, name, names in bands:
        band, height = _band(depth, name, names, y)
        lines += band
        y += height + 6
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 4}" role="img"',
        '  aria-label="Layers of the package; a module imports only from layers below its own"',
        '  font-family="monospace" font-size="13">',
    ]
    return "\n".join([*head, *lines, "</svg>"]) + "\n"


def _modules_in(place: str, layer: list[str]) -> list[str]:
    """Return the modules to draw in a layer: those of a folder, none of a single file."""
    folders = [ROOT / place / name for name in layer if (ROOT / place / name).is_dir()]
    if layer == ["_cli"]:
        return []
    found = [path for folder in folders for path in sorted(folder.glob("[a-z]*"))]
    return [path.stem for path in found if path.is_dir() or path.suffix == ".py"]


def _band(depth: int, name: str, names: list[str], y: int) -> tuple[list[str], int]:
    """Return one layer's lines of the drawing, from `y` down, and its height."""
    left, x, row = 10 + 24 * depth, _BOXES, 0
    boxes: list[str] = []
    for one in names:
        width = 14 + 8 * len(one)
        if x + width > _WIDTH - 16:
            x, row = _BOXES, row + 1
        top = y + 6 + 28 * row
        boxes.append(
            f'<rect x="{x}" y="{top}" width="{width}" height="22" rx="5" fill="#fafafa"'
            f' stroke="#78909c"/><text x="{x + 7}" y="{top + 15}" fill="#212121">{one}</text>'
        )
        x += width + 8
    height = 34 + 28 * row
    fill = _FILLS[depth]
    frame = f'<rect x="{left}" y="{y}" width="{_WIDTH - 10 - left}" height="{height}" rx="8"'
    label = f'<text x="{left + 10}" y="{y + 22}" font-weight="bold" fill="#212121">{name}</text>'
    return [f'{frame} fill="{fill}" stroke="#78909c"/>{label}', *boxes], height


def _first_line(room: Path) -> str:
    """Return the first sentence of a module's or package's docstring."""
    source = room / "__init__.py" if room.is_dir() else room.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def lifecycle_drawing() -> str:
    """Return the life-cycle table as an SVG: active statuses on the left, ends on the right."""
    active = [status for status in _STATUSES if status not in TERMINAL_STATUSES]
    ends = [status for status in _STATUSES if status in TERMINAL_STATUSES]
    places = {status: (_LEFT, 30 + 110 * n) for n, status in enumerate(active)}
    places |= {status: (_RIGHT, 30 + 82 * n) for n, status in enumerate(ends)}
    height = 110 * len(active) - 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" role="img"',
        '  aria-label="Statuses of a run and the moves between them"',
        '  font-family="monospace" font-size="15" text-anchor="middle">',
        f'<rect width="760" height="{height}" rx="8" fill="#f5f7f8"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7"',
        '  markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#78909c"/></marker></defs>',
        '<g fill="none" stroke="#78909c" stroke-width="1.5" marker-end="url(#tip)">',
    ]
    for status in active:
        targets = [name for name in _STATUSES if name in TRANSITIONS[status]]
        lines += [f'<path d="{_arrow(places[status], places[name])}"/>' for name in targets]
    lines.append("</g>")
    for status, (x, y) in places.items():
        fill = "#c5cae9" if status in active else "#cfd8dc"
        box = f'x="{x - _HALF}" y="{y - 18}" width="{2 * _HALF}" height="36" rx="8"'
        text = f'<text x="{x}" y="{y + 5}" fill="#212121">{status}</text>'
        lines.append(f'<rect {box} fill="{fill}" stroke="#78909c"/>{text}')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the path from one status to another: across, down, or back around on the left."""
    (x, y), (to_x, to_y) = start, end
    if to_x != x:
        x, to_x = x + _HALF, to_x - _HALF
        return f"M{x} {y}C{x + 120} {y} {to_x - 120} {to_y} {to_x} {to_y}"
    if 0 < to_y - y <= 110:
        return f"M{x} {y + 18}L{x} {to_y - 18}"
    edge = x - _HALF
    bulge = edge - 30 - abs(to_y - y) // 4
    leave, arrive = (y + 9, to_y - 9) if to_y > y else (y - 9, to_y + 9)
    return f"M{edge} {leave}C{bulge} {leave} {bulge} {arrive} {edge} {arrive}"


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
    "cli openai-runs assistants create": lambda: command_help("assistants", "create"),
    "cli openai-runs assistants delete": lambda: command_help("assistants", "delete"),
    "cli openai-runs assistants list": lambda: command_help("assistants", "list"),
    "cli openai-runs assistants show": lambda: command_help("assistants", "show"),
    "cli openai-runs assistants update": lambda: command_help("assistants", "update"),
    "cli openai-runs batch run": lambda: command_help("batch", "run"),
    "cli openai-runs batch status": lambda: command_help("batch", "status"),
    "cli openai-runs batch table": lambda: command_help("batch", "table"),
    "cli openai-runs chat": lambda: command_help("chat"),
    "cli openai-runs completion": lambda: command_help("completion"),
    "cli openai-runs demo": lambda: command_help("demo"),
    "cli openai-runs doctor": lambda: command_help("doctor"),
    "cli openai-runs runs cancel": lambda: command_help("runs", "cancel"),
    "cli openai-runs runs list": lambda: command_help("runs", "list"),
    "cli openai-runs runs show": lambda: command_help("runs", "show"),
    "cli openai-runs runs wait": lambda: command_help("runs", "wait"),
    "cli openai-runs serve": lambda: command_help("serve"),
    "cli openai-runs threads list": lambda: command_help("threads", "list"),
    "cli openai-runs threads show": lambda: command_help("threads", "show"),
    "cli openai-runs worker": lambda: command_help("worker"),
    "cli openai-runs export": lambda: command_help("export"),
    "cli openai-runs import": lambda: command_help("import"),
    "defaults": defaults,
    "endpoints": endpoints,
    "errors": error_tree,
    "layers openai_runs": lambda: layers("openai_runs"),
    "layers openai_runs._client": lambda: layers("openai_runs._client"),
    "layers openai_runs.server": lambda: layers("openai_runs.server"),
    "layers openai_runs.testing": lambda: layers("openai_runs.testing"),
    **{
        f"modules {name}": lambda name=name: modules(f"openai_runs/_client/{name}")  # type: ignore[misc]  # bound now
        for name in ("resources", "streams", "flows", "polling", "core", "tools")
    },
    "lifecycle table": lifecycle_table,
    "scaling": scaling.figures,
}
"""Name in a page's marker -> what makes the text."""
FILES: dict[str, Callable[[], str]] = {
    "explain/layers.svg": layers_drawing,
    "explain/lifecycle.svg": lifecycle_drawing,
    "explain/scaling.svg": scaling.drawing,
    "guides/pauses.svg": diagrams.pauses_drawing,
    "guides/reconnect.svg": diagrams.reconnect_drawing,
    "guides/relay.svg": diagrams.relay_drawing,
    "guides/wait.svg": diagrams.wait_drawing,
}
"""Name of a file that is made as a whole -> what makes it."""


def renewed(page: str) -> str:
    """Return the page's text with every generated part made anew."""

    def renew(found: re.Match[str]) -> str:
        return f"{found['begin']}\n{PARTS[found['name']]()}\n{found['end']}"

    return _PART.sub(renew, page)


def wanted() -> dict[Path, str]:
    """Return what each page, and each generated file, should hold."""
    pages = {page: renewed(page.read_text()) for page in sorted(PAGES.rglob("*.md"))}
    shown = {PAGES / name: each.draw() for name, each in recordings.RECORDINGS.items()}
    return pages | {PAGES / name: make() for name, make in FILES.items()} | shown


def outdated(texts: dict[Path, str]) -> list[str]:
    """Return the names of the pages and files that differ from what the code says."""
    return [
        str(path.relative_to(PAGES))
        for path, text in texts.items()
        if not path.exists() or not _is_current(path, text)
    ]


def _is_current(path: Path, text: str) -> bool:
    """Tell whether a file holds a text; a recording shows other times in each run."""
    held = path.read_text()
    is_recording = str(path.relative_to(PAGES)) in recordings.RECORDINGS
    return recordings.is_same(held, text) if is_recording else held == text


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
    texts = wanted()
    for name in outdated(texts):
        (PAGES / name).write_text(texts[PAGES / name])
        print(f"renewed {name}")
