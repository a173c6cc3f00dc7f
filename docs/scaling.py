"""The drawing of several processes on one database, and the figures that were measured of them."""

from pathlib import Path
from typing import NamedTuple

__all__ = ["drawing", "figures"]

RESULT = Path(__file__).resolve().parent / "results" / "scaling.md"
_MISSING = "Not measured on this version yet: `poe long scaling` does, and `poe generate` shows it."
_FIRST = "| database | processes "
"""How the tables begin in the result."""
_BLUE, _GREY, _PAPER, _INK, _LINE = "#c5cae9", "#cfd8dc", "#f5f7f8", "#212121", "#78909c"


class _Box(NamedTuple):
    """What runs somewhere."""

    x: int
    y: int
    width: int
    lines: tuple[str, ...]
    fill: str = _BLUE

    @property
    def height(self) -> int:
        """Return how high it is."""
        return 22 + 18 * len(self.lines)


_SERVE = ("openai-runs serve", "--no-execute")
_BOXES = (
    _Box(15, 140, 85, ("clients",), _GREY),
    _Box(130, 140, 80, ("nginx",), _GREY),
    _Box(250, 60, 165, _SERVE),
    _Box(250, 200, 165, _SERVE),
    _Box(510, 45, 170, ("PostgreSQL", "threads, messages,", "runs, steps, events"), _GREY),
    _Box(510, 170, 170, ("jobs",), _GREY),
    _Box(510, 250, 170, ("notifications",), _GREY),
    _Box(800, 60, 165, ("openai-runs worker",)),
    _Box(800, 200, 165, ("openai-runs worker",)),
    _Box(800, 290, 165, ("models",), _GREY),
)
_ARROWS = (
    ("M100 160H130", 0, 0, ""),
    ("M210 152L250 100", 0, 0, ""),
    ("M210 168L250 220", 0, 0, ""),
    ("M415 82H510", 422, 73, "1 the run"),
    ("M415 100L510 185", 398, 158, "1 its job"),
    ("M510 268L415 238", 440, 280, "4 ids"),
    ("M680 190L800 214", 716, 224, "2 wakes"),
    ("M800 206L680 108", 745, 150, "3 claims"),
    ("M800 80H680", 700, 72, "3 commits"),
    ("M680 270L800 232", 716, 274, "4 ids"),
    ("M882 240V290", 892, 270, "asks"),
)
"""The way of an arrow, and where its words begin."""


def drawing() -> str:
    """Return the processes, the database, and what passes between them as an SVG."""
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 980 350" role="img"',
        '  aria-label="Servers take runs in, a job wakes a worker, which claims and executes them"',
        '  font-family="monospace" font-size="13">',
        f'<rect width="980" height="350" rx="8" fill="{_PAPER}"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7"',
        '  markerHeight="7" orient="auto">',
        f'  <path d="M0 0L8 4L0 8z" fill="{_LINE}"/></marker></defs>',
        f'<g fill="none" stroke="{_LINE}" stroke-width="1.5" marker-end="url(#tip)">',
        *(f'<path d="{way}"/>' for way, _, _, _ in _ARROWS),
        "</g>",
    ]
    for box in _BOXES:
        lines.append(
            f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="8"'
            f' fill="{box.fill}" stroke="{_LINE}"/>'
        )
        for number, text in enumerate(box.lines):
            y = box.y + 24 + 18 * number
            x = box.x + box.width // 2
            words = f'text-anchor="middle" fill="{_INK}">{text}</text>'
            lines.append(f'<text x="{x}" y="{y}" {words}')
    for _, x, y, text in _ARROWS:
        if text:
            lines.append(f'<text x="{x}" y="{y}" fill="{_INK}" font-size="12">{text}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def figures() -> str:
    """Return the tables of the last `poe long scaling`, with where and when it ran."""
    text = RESULT.read_text() if RESULT.exists() else ""
    _, found, tables = text.partition(_FIRST)
    if not found:
        return f"{_MISSING}\n"
    facts = {
        cells[1]: cells[2]
        for line in text.splitlines()
        if len(cells := [cell.strip() for cell in line.split("|")]) == 4
    }
    origin = f"{facts['date']}, commit {facts['commit']}, {facts['machine']}."
    return f"{found}{tables.rstrip()}\n\n{origin}\n"
