"""What is shown of a server that gives no answer, or 429s, while a command waits: since when."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import (
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TimeElapsedColumn,
)
from rich.text import Text

from openai_runs import AsyncClient, Run
from openai_runs._cli.outputs import printable

__all__ = ["held_back", "reconnecting", "waiting_for"]

_MOMENT: Final = 1.0
"""Seconds of a failure that nobody needs to know of."""


def reconnecting(client: AsyncClient, *, why: bool = True) -> str:
    """Return since when the server gives no answer, and why; an empty text where it does."""
    outage = client.outage
    if outage is None or outage.seconds < _MOMENT:
        return ""
    reason = f": {outage.reason}" if why else ""
    return printable(f"reconnecting for {outage.seconds:.0f} s{reason}")


def held_back(client: AsyncClient) -> str:
    """Return since when 429s hold requests back, and until when; an empty text where none do."""
    limits = client.limits
    if limits.refused_for is None:
        return ""
    since = f" for {limits.refused_for:.0f} s" if limits.refused_for >= _MOMENT else ""
    pause = f", next request in {limits.paused:.0f} s" if limits.paused >= _MOMENT else ""
    return f"held back by 429{since}{pause}"


class _Waiting(ProgressColumn):
    """What is waited for: the run's status, or the server."""

    def __init__(self, run_id: str, client: AsyncClient, status: str) -> None:
        super().__init__()
        self.status = status
        self._run_id = run_id
        self._client = client

    def render(self, task: Task) -> Text:
        """Return it as it is now."""
        parts = [f"waiting for {self._run_id}", reconnecting(self._client, why=False)]
        return Text(": ".join(filter(None, [parts[0], parts[1] or printable(self.status)])))


@contextmanager
def waiting_for(
    run_id: str, client: AsyncClient, status: str = ""
) -> Iterator[Callable[[Run], None] | None]:
    """Show on a terminal what is waited for, and since when; yield the `on_status` for it."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        yield None
        return
    waiting = _Waiting(run_id, client, status)
    columns = SpinnerColumn(), waiting, TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task("")

        def note(run: Run) -> None:
            waiting.status = run.status

        yield note
