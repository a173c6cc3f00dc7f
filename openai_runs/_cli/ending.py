"""How a command ends: the exit codes, and the one sentence that goes with a bad one."""

from typing import Final

__all__ = ["ERROR", "INTERRUPTED", "TERMINATED", "TIMED_OUT", "USAGE", "Stop", "code_of"]

ERROR: Final = 1
USAGE: Final = 2
TIMED_OUT: Final = 6
INTERRUPTED: Final = 130
"""Ctrl-C; 128 + SIGINT, as shells have it."""
TERMINATED: Final = 143
"""SIGTERM before the work was done; 128 + SIGTERM."""

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


def code_of(status: str) -> int:
    """Return the exit code for a run that ended so.

    >>> code_of("completed"), code_of("expired"), code_of("of a later version")
    (0, 4, 1)
    """
    return _OF_STATUS.get(status, ERROR)
