"""The drawing of `runs show`: a run's time as bars, one below the other.

What may not live here: what the times are, which is `openai_runs.types.timeline`'s.
"""

from collections.abc import Iterator
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from openai_runs._cli.outputs import printable
from openai_runs.types import Timeline, TimelineEntry
from openai_runs.types.timeline import format_rows, format_seconds

__all__ = ["draw"]

_HEADING: Final = "Where the time went, in whole seconds:"
_MAX_WIDTH: Final = 100
"""Columns of the widest drawing."""
_TIME: Final = 13
"""Columns for a duration, such as `12 min 05 s+`."""
_TOKENS: Final = 9
_NARROW: Final = 64
"""Columns below which tokens are left out."""
_TITLE_SHARE: Final = 2
"""Titles have at most half of what is left."""
_MIN_BAR: Final = 6
"""Columns below which there is no bar."""
_STYLES: Final = {"message": "green", "tools": "magenta", "hosted_tools": "cyan"}
_FAILED: Final = frozenset({"failed", "expired", "cancelled"})


def draw(timeline: Timeline, console: Console) -> None:
    """Print the timeline as bars, or as a plain table where there is no terminal.

    A heading says what it is; the run itself was shown above.
    """
    if not console.is_terminal:
        console.print(f"{_HEADING}\n{printable(format_rows(timeline))}", soft_wrap=True)
        return
    for line in _lines(timeline, min(console.width, _MAX_WIDTH), console.options.ascii_only):
        console.print(line, no_wrap=True, overflow="crop", crop=True)


def _lines(timeline: Timeline, width: int, is_ascii: bool) -> Iterator[Text]:
    """Yield the heading, one line for each entry, and one for what is odd about it."""
    yield Text(_HEADING, style="dim")
    tokens = _TOKENS if width >= _NARROW else 0
    left = max(width - _TIME - tokens - 2, 1)
    longest = max((cell_len(printable(one.title)) for one in timeline.entries), default=0)
    title = min(longest, left // _TITLE_SHARE)
    bar = left - title
    if bar < _MIN_BAR:
        title, bar = left, 0
    span = timeline.duration or max((_end(timeline, one) for one in timeline.entries), default=0)
    for entry in timeline.entries:
        style = "red" if entry.status in _FAILED else _STYLES.get(entry.kind, "dim")
        name = set_cell_size(_short(printable(entry.title), title), title)
        is_open = entry.end is None and entry.duration is not None
        time = format_seconds(entry.duration) + "+" * is_open
        used = f"{entry.usage.total_tokens:,} tok" if entry.usage and tokens else ""
        yield Text.assemble(
            (name, "dim" if style == "dim" else ""),
            " ",
            (_bar(timeline, entry, span, bar, is_ascii), style),
            (f" {time:>{_TIME - 1}}", ""),
            (f" {used:>{tokens}}" if tokens else "", "dim"),
        )
        for text in _remarks(entry):
            yield Text(
                f"  {printable(text)}".replace("\n", " "), style="red" if entry.error else "dim"
            )


def _bar(timeline: Timeline, entry: TimelineEntry, span: int, width: int, is_ascii: bool) -> str:
    """Return the entry's place in the run's time; at least one column for what took any."""
    if entry.start is None or timeline.start is None or not width:
        return " " * width
    full, point = ("=", "|") if is_ascii else ("━", "╵")
    offset = entry.start - timeline.start
    begin = min(offset * width // span, width - 1) if span else 0
    if not entry.duration:
        return f"{' ' * begin}{point}".ljust(width)
    end = max((offset + entry.duration) * width // span, begin + 1) if span else width
    return f"{' ' * begin}{full * (min(end, width) - begin)}".ljust(width)


def _end(timeline: Timeline, entry: TimelineEntry) -> int:
    known = entry.end if entry.end is not None else entry.start
    return 0 if known is None or timeline.start is None else known - timeline.start


def _remarks(entry: TimelineEntry) -> Iterator[str]:
    if entry.error is not None:
        yield f"{entry.error.code}: {entry.error.message}"
    elif entry.status in _FAILED:
        yield entry.status
    if entry.note:
        yield entry.note


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(width - 3, 0)]}..."
