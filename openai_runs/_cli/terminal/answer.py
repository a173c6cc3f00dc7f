"""An answer that grows: Markdown on a terminal, else the text as it comes.

Until the first word, and where the work takes longer, a line says what is done and since when; it
leaves nothing behind. All of it is drawn in the event loop, one thing after the other: what is said
meanwhile would meet a frame of rich's own thread halfway.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import anyio.to_thread
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.spinner import Spinner
from rich.text import Text

from openai_runs._cli.outputs import print_piece, printable, writing

__all__ = ["AnswerDisplay"]

_REFRESH: Final = 0.125
"""Seconds between two drawings."""
_SPLIT_PAUSE: Final = 0.1
"""Seconds between two searches for what is finished."""
_PAUSE: Final = 2.0
"""Seconds without a word after which the line is shown again."""
_MOST_PARSED: Final = 20_000
"""Characters of an unfinished block; more of them are drawn as they are."""
_BELOW: Final = 2
"""Lines that are left below the text: of the spinner and the cursor."""


class AnswerDisplay:
    """Where one answer is shown while it grows, as a context manager.

    Args:
        activity: Returns what is done now, in a word or two.
        shows_text: Whether the text itself is shown; else only the line.
    """

    def __init__(self, activity: Callable[[], str], *, shows_text: bool = True) -> None:
        """Begin with nothing written."""
        self.text = ""
        """What was written so far."""
        self._activity = activity
        self._shows_text = shows_text
        self._pending = ""
        self._has_printed = False
        self._last = self._since = time.monotonic()
        self._doing = ""
        """What was done when it was drawn last, since `_since`."""
        self._split_at = 0.0
        self._spinner = Spinner("dots", style="dim")
        out, err = _console(stderr=False), _console(stderr=True)
        self._is_drawn = shows_text and _can_draw(out)
        self._console = out if self._is_drawn else err
        self._live: Live | None = None
        self._timer: asyncio.TimerHandle | None = None
        if self._is_drawn or _can_draw(err):
            self._live = Live(
                console=self._console,
                get_renderable=self._draw,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=err.is_terminal,  # what is said meanwhile is printed above
                vertical_overflow="crop",
            )

    @property
    def is_amid_line(self) -> bool:
        """Return whether the last line on standard output is not ended."""
        return not self._is_drawn and bool(self.text) and not self.text.endswith("\n")

    def __enter__(self) -> "AnswerDisplay":
        """Show what is done."""
        if self._live is not None:
            self._live.start(refresh=True)
            self._refresh_later()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave what was written, and nothing else."""
        self.stop()

    async def write(self, piece: str) -> None:
        """Add a piece, and let it be seen.

        Raises:
            Closed: Nobody reads standard output any more.
            Stop: It cannot be written, as to a full disk.

        Cancellation: gives up a piece that its reader does not take.
        """
        self.text += piece
        self._last = time.monotonic()
        if self._is_drawn:
            self._pending += printable(piece)
            if "\n" in piece and self._last >= self._split_at:
                from openai_runs._cli.terminal.markdown import split_blocks  # on a terminal alone

                self._split_at = self._last + _SPLIT_PAUSE
                done, self._pending = split_blocks(self._pending)
                self._print(done)
        elif self._shows_text:
            self._stop_live()  # the words may come on the same terminal
            # A reader that is slow, such as a pager, must not hold up the connection.
            await anyio.to_thread.run_sync(print_piece, piece, abandon_on_cancel=True)

    async def end_line(self) -> None:
        """End the last line, if it is not ended."""
        if self.is_amid_line:
            await self.write("\n")

    def stop(self) -> None:
        """Show all that was written, and no longer what is done."""
        self._stop_live()
        pending, self._pending = self._pending, ""
        self._print(pending)

    def _refresh_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_REFRESH, self._refresh)

    def _refresh(self) -> None:
        if self._live is not None:
            with suppress(OSError):  # the terminal is gone, which a signal says, too
                self._live.refresh()
            self._refresh_later()

    def _stop_live(self) -> None:
        live, self._live = self._live, None
        if self._timer is not None:
            self._timer.cancel()
        if live is not None:
            live.stop()

    def _print(self, text: str) -> None:
        """Print blocks for good, above what is drawn."""
        if not text.strip():
            return
        from openai_runs._cli.terminal.markdown import AnswerMarkdown

        with writing():
            if self._has_printed:
                self._console.print()
            self._console.print(AnswerMarkdown(text.strip("\n")), end="")
        self._has_printed = True

    def _draw(self) -> RenderableType:
        """Return what is seen for now."""
        from openai_runs._cli.terminal.markdown import AnswerMarkdown

        pending, now = self._pending, time.monotonic()
        parts: list[RenderableType] = []
        if pending.strip():
            body = AnswerMarkdown(pending) if len(pending) <= _MOST_PARSED else Text(pending)
            parts += [Text(), _Tail(body)] if self._has_printed else [_Tail(body)]
        activity = printable(self._activity())
        if activity != self._doing:
            self._doing, self._since = activity, now
        if activity and (not self.text or now - self._last > _PAUSE):
            words = f"{activity} {now - self._since:.0f} s"
            self._spinner.update(text=Text(words, style="dim", overflow="ellipsis", no_wrap=True))
            parts.append(self._spinner)
        return Group(*parts)


class _Tail:
    """As many of the last lines as fit on the screen."""

    def __init__(self, body: RenderableType) -> None:
        self._body = body

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield them."""
        room = max(console.height - _BELOW, 1)
        lines = console.render_lines(self._body, options.update(height=None), pad=False)
        for line in lines[-room:]:
            yield from line
            yield Segment.line()


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if console.is_terminal:
        from openai_runs._cli.terminal.markdown import THEME

        console.push_theme(THEME)
    return console


def _can_draw(console: Console) -> bool:
    stream = sys.stderr if console.stderr else sys.stdout
    return stream is not None and console.is_terminal and not console.is_dumb_terminal
