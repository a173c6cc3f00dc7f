"""How a command ends: the exit codes, and the one sentence that goes with a bad one."""

from collections.abc import Sequence
from typing import Final

__all__ = [
    "CLOSED",
    "ERROR",
    "INTERRUPTED",
    "SIGNALLED",
    "TERMINATED",
    "TIMED_OUT",
    "USAGE",
    "Closed",
    "Stop",
    "code_of",
    "stopped",
]

ERROR: Final = 1
USAGE: Final = 2
TIMED_OUT: Final = 6
SIGNALLED: Final = 128
"""Plus the number of the signal that ended the work, as shells have it."""
INTERRUPTED: Final = SIGNALLED + 2
"""Ctrl-C (SIGINT)."""
CLOSED: Final = SIGNALLED + 13
"""Nobody reads the output any more (SIGPIPE)."""
TERMINATED: Final = SIGNALLED + 15
"""SIGTERM before the work was done."""

_OF_STATUS: Final = {
    "completed": 0,
    "requires_action": 3,
    "failed": 4,
    "incomplete": 4,
    "expired": 4,
    "cancelled": 5,
}


class Stop(Exception):  # noqa: N818 - the command ends here, as it should
    """The command cannot go on; its text is the one sentence the user reads."""

    def __init__(self, sentence: str, code: int = ERROR) -> None:
        super().__init__(sentence)
        self.code = code


class Closed(Exception):  # noqa: N818 - as when a pager is quit: nothing is wrong
    """Nobody reads the output any more."""


def code_of(status: str) -> int:
    """Return the exit code for a run that ended so.

    >>> code_of("completed"), code_of("expired"), code_of("of a later version")
    (0, 4, 1)
    """
    return _OF_STATUS.get(status, ERROR)


def stopped(signals: Sequence[int], *, finished: bool = True) -> int:
    """Return the exit code of a server that these signals have stopped.

    Being stopped is what a server is for, unless it was at a terminal or could not finish.

    >>> stopped([15]), stopped([2]), stopped([15, 15], finished=False)
    (0, 130, 143)
    """
    first = signals[0]
    if finished and SIGNALLED + first != INTERRUPTED:
        return 0
    return SIGNALLED + first
