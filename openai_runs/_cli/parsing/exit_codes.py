"""The exit codes that a command can have, as its help lists them."""

from typing import Final

__all__ = ["EXIT_CODES", "exit_codes"]

EXIT_CODES: Final = {
    0: "completed",
    1: "error",
    2: "wrong usage",
    3: "the run requires action",
    4: "the run failed, is incomplete or expired",
    5: "the run was cancelled",
    6: "the wait timed out",
    130: "Ctrl-C",
    141: "nobody reads the output any more",
    143: "SIGTERM, before the work was done",
}
"""All of them; what a command means by one may be said more closely."""


def exit_codes(*codes: int, done: str = EXIT_CODES[0], error: str = EXIT_CODES[1]) -> str:
    """Return the end of a command's help.

    >>> print(exit_codes(0, 130))
    Exit codes:
          0  completed
        130  Ctrl-C
    <BLANKLINE>
    """
    words = {**EXIT_CODES, 0: done, 1: error}
    lines = [f"    {code:>3}  {words[code]}\n" for code in codes]
    return "Exit codes:\n" + "".join(lines)
