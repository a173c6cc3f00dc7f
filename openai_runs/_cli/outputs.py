"""The two outputs: results on the one, everything else on the other.

What may not live here: a decision about what is said.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Final, TextIO

import msgspec

from openai_runs._cli.ending import Closed, Stop
from openai_runs._cli.terminal.wrapping import wrapped

__all__ = [
    "print_json",
    "print_piece",
    "print_text",
    "printable",
    "say",
    "silence",
    "writing",
]

_COLUMNS: Final = 80
"""Of a terminal that does not say how wide it is."""
_CONTROLS: Final = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (9, 10)
} | {13: None}
"""All but tab and line feed; a carriage return before one is dropped."""


def printable(text: str) -> str:
    r"""Return `text` without what could steer a terminal, as words of others may.

    >>> printable("a\x1b[2Jb\r\n")
    'a\\x1b[2Jb\n'
    """
    return text.translate(_CONTROLS)


def say(text: str, *, dim: bool = True) -> None:
    """Tell the person at the terminal something, apart from the result.

    On a terminal, lines that are too long for it are broken between words.

    Raises:
        Closed: Nobody reads standard error any more.
    """
    if sys.stderr is None:  # closed by whoever started the command
        return
    shown = printable(text)
    columns = _columns(sys.stderr)
    if columns is not None:
        shown = wrapped(shown, columns)
    if dim and columns is not None and "NO_COLOR" not in os.environ:
        shown = f"\x1b[2m{shown}\x1b[0m"
    try:
        print(shown, file=sys.stderr, flush=True)
    except BrokenPipeError as error:
        raise Closed from error


def print_text(text: str) -> None:
    """Print a whole result for people; what in it is not ours must be `printable` already.

    Raises:
        Closed: Nobody reads standard output any more.
        Stop: It cannot be written, as to a full disk.
    """
    _write(f"{text}\n")


def print_piece(text: str) -> None:
    """Print a piece of a result as it is; on a terminal, as what cannot steer it.

    Raises:
        Closed: Nobody reads standard output any more.
        Stop: It cannot be written, as to a full disk.
    """
    _write(printable(text) if sys.stdout.isatty() else text)


def print_json(value: object) -> None:
    """Print a whole result for programs: one line of JSON, in UTF-8 wherever we are.

    Raises:
        Closed: Nobody reads standard output any more.
        Stop: It cannot be written, as to a full disk.
    """
    with writing():
        sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
        sys.stdout.flush()


def silence(*streams: TextIO | None) -> None:
    """Let what is still to be written go nowhere, so that Python does not complain at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        with contextlib.suppress(io.UnsupportedOperation, AttributeError):  # not a file, or none
            os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]  # None has none, see above


def _columns(stream: TextIO) -> int | None:
    """Return how wide the terminal of a stream is; None if it is none."""
    if not stream.isatty():
        return None
    wanted = os.environ.get("COLUMNS", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    with contextlib.suppress(OSError):  # as of a terminal that is gone
        if columns := os.get_terminal_size(stream.fileno()).columns:
            return columns
    return _COLUMNS


def _write(text: str) -> None:
    encoding = sys.stdout.encoding
    with writing():
        # What the encoding lacks is written as an escape, and does not end the answer.
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Translate what goes wrong with standard output inside.

    Raises:
        Closed: Nobody reads it any more.
        Stop: It cannot be written, as to a full disk.
    """
    try:
        yield
    except BrokenPipeError as error:
        raise Closed from error
    except OSError as error:
        silence(
            sys.stdout
        )  # what is left in the buffer would be tried, and fail, once more at the end
        sentence = f"standard output cannot be written: {error.strerror}"
        raise Stop(sentence) from error
