"""Signals that end `openai-runs serve`, from its first line to its last.

Imports nothing that takes long: the handlers are set before anything else is loaded. A signal ends
what is being loaded, is kept while an event loop starts, and then cancels what it is to end.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import anyio

__all__ = ["SIGNALS", "Ended", "Signals"]

_HANGUP: Final = getattr(signal, "SIGHUP", None)
"""Not there on Windows, where the commands that need no server run all the same."""
_NUMBERS: Final = tuple(
    number for number in (signal.SIGTERM, signal.SIGINT, _HANGUP) if number is not None
)


class Ended(BaseException):
    """A signal came before there was anything to stop; not for `except Exception`."""


class Signals:
    """Those that this process has received."""

    def __init__(self) -> None:
        """Receive none; `install` begins."""
        self.received: list[int] = []
        self._before: dict[int, object] = {}
        self._wake: Callable[[], None] | None = None

    def install(self) -> None:
        """Receive signals from now on: one ends what this process is loading.

        SIGHUP stays ignored where it is, as `nohup` asks for.
        """
        for number in _NUMBERS:
            handler = signal.getsignal(number)
            ignored = number == _HANGUP and handler is signal.SIG_IGN
            if number not in self._before and not ignored:
                self._before[number] = handler
                signal.signal(number, self._receive)

    def keep(self) -> None:
        """Only keep those that come, for `cancelling` to find."""
        self._wake = _nothing

    @contextmanager
    def cancelling(self, count: int = 1) -> Iterator[anyio.CancelScope]:
        """Cancel what is done inside once `count` signals were received, before or meanwhile."""
        import asyncio

        import anyio

        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:

            def look() -> None:
                if len(self.received) >= count:
                    scope.cancel()

            def wake() -> None:
                loop.call_soon_threadsafe(look)

            self._wake = wake
            look()
            try:
                yield scope
            finally:
                self._wake = _nothing

    def ignore(self) -> None:
        """Ignore those that still come: the process ends, and its exit code is known."""
        # Blocked meanwhile: Python complains of one that comes while its handler is replaced.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, self._before)
        try:
            for number in self._before:
                signal.signal(number, signal.SIG_IGN)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._before.clear()

    def restore(self) -> None:
        """Let the handlers from before receive signals again, unless they are ignored by now."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()
        self._wake = None
        self.received.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        if self._wake is not None:
            self._wake()
        elif len(self.received) == 1:  # else this process is ending already
            raise Ended


def _nothing() -> None:
    """Do nothing: the signal is kept."""


SIGNALS: Final = Signals()
"""Those of this process."""
