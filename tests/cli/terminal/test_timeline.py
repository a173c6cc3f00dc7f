"""The drawing of `openai-runs runs show`: bars on a terminal, a plain table elsewhere."""

import io
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from openai_runs import RunStep
from openai_runs._cli.terminal.timeline import draw
from openai_runs.types import Timeline
from tests.types.test_timeline import ODD, STEPS, WHOLE, run_of, step_of


def drawn(timeline: Timeline, width: int, *, encoding: str = "utf-8", terminal: bool = True) -> str:
    """Return what is drawn on a terminal of that many columns, without colours."""
    written = io.BytesIO()
    file = io.TextIOWrapper(written, encoding=encoding)
    console = Console(
        file=file, width=width, force_terminal=terminal, no_color=True, _environ={"TERM": "xterm"}
    )
    draw(timeline, console)
    file.flush()
    return re.sub(r"\x1b\[[\d;]*m", "", written.getvalue().decode(encoding))


def test_bars_stand_where_the_time_was() -> None:
    """Each entry begins where the one before it ended, and is as long as it took."""
    heading, *lines = drawn(WHOLE.timeline(STEPS), 80).splitlines()

    assert heading == "Where the time went, in whole seconds:"
    bars = [(line.index("━"), line.rindex("━") + 1) for line in lines]
    assert [begin for begin, _ in bars[1:]] == [end for _, end in bars[:-1]]
    lengths = [end - begin for begin, end in bars]
    assert lengths[2] == max(lengths)  # the tools took 6 s of 16
    assert "1,234 tok" in lines[2]


@pytest.mark.parametrize("width", [10, 24, 40, 64, 80, 200])
@pytest.mark.parametrize("case", ODD)
def test_drawing_fits_the_terminal(case: str, width: int) -> None:
    """Down to ten columns no line is wrapped, whatever the times are."""
    run, steps, _, _ = ODD[case]

    lines = drawn(run.timeline(steps), width).splitlines()

    assert lines
    assert max(map(cell_len, lines)) <= width


def test_terminal_without_unicode_gets_bars_of_ascii() -> None:
    """A C locale is no reason to fail, or to print question marks."""
    text = drawn(WHOLE.timeline(STEPS), 80, encoding="ascii")

    assert "=====" in text
    assert "?" not in text


def test_without_a_terminal_it_is_the_table() -> None:
    """A log, or a pipe, has the table that `print` shows, and not the run once more."""
    timeline = WHOLE.timeline(STEPS)

    heading, table = drawn(timeline, 80, terminal=False).split("\n", 1)
    assert heading == "Where the time went, in whole seconds:"
    assert f"{timeline}\n".endswith(f"tokens (1,000 in, 234 out)\n{table}")


def test_words_of_a_server_steer_no_terminal() -> None:
    """Names of tools and errors are the server's, and may hold control characters."""
    error: dict[str, Any] = {"code": "server_error", "message": "no\x1b[2J\nluck"}
    steps: list[RunStep] = [
        step_of(1, 1, None, status="failed", failed_at=3, last_error=error, tools=["f\x1b[2J\n"])
    ]
    timeline = run_of("failed", started_at=1, failed_at=3).timeline(steps)

    for terminal in (True, False):
        text = drawn(timeline, 80, terminal=terminal)
        assert "\x1b[2J" not in text
        assert "server_error" in text
