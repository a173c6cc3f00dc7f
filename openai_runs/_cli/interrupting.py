"""Work that a signal may end, and that cleans up behind itself when one does."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from openai_runs._cli.ending import SIGNALLED, Closed
from openai_runs._cli.outputs import say

__all__ = ["carry_out", "show_outages"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)
"""Besides SIGINT, which `asyncio.run` sees to."""


def carry_out(work: Callable[[], Awaitable[int]]) -> int:
    """Return the exit code of `work`, or that of the signal which ended it.

    Raises:
        KeyboardInterrupt: Ctrl-C, once `work` has cleaned up.
    """
    logging.basicConfig(
        level=logging.WARNING, format="openai-runs: %(message)s", handlers=[_Said()]
    )
    return asyncio.run(_until_signalled(work))


def show_outages() -> None:
    """Say at once where a server does not answer and is polled again, and for how long."""
    logger = logging.getLogger("openai_runs.client")
    logger.setLevel(logging.INFO)
    logger.addFilter(_is_warning_or_outage)


def _is_warning_or_outage(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or hasattr(record, "is_outage")


class _Said(logging.Handler):
    """Says what is logged, above what is drawn on a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        with suppress(Closed):  # which the next word that the command says finds out, too
            say(self.format(record), dim=False)


async def _until_signalled(work: Callable[[], Awaitable[int]]) -> int:
    task = asyncio.current_task()
    assert task is not None
    received: list[int] = []

    def end(number: int) -> None:
        received.append(number)
        task.cancel()

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` asks for
            asyncio.get_running_loop().add_signal_handler(number, end, number)
    try:
        return await work()
    except asyncio.CancelledError:
        if received:
            return SIGNALLED + received[0]
        raise
