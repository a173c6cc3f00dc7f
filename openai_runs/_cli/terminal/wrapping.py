"""Lines broken between words at the width of a terminal, or joined so that they can be."""

import inspect
import re
from typing import Final
from unicodedata import east_asian_width

__all__ = ["flowing", "wrapped"]

_WHOLE: Final = re.compile(
    r"(?<=: )(?:openai-runs|pip install) .*"  # a command, up to the end of its line
    r"|\S*?`[^`]*`\S*"  # one between other words
    r"|\S+"
)
"""What stays on one line: it is copied, or it is a word."""
_MARGIN: Final = re.compile(r"\s*(?:\S+ {2,})?")
"""The beginning of a line that those after it stand below: blanks, or a name and blanks."""

_IN_PARAGRAPH: Final = re.compile(r"(?<=\S)\n(?=\S)")
_IN_ARGUMENT: Final = re.compile(r"\n {8,}")
"""Where lines of a docstring are joined."""


def wrapped(text: str, columns: int) -> str:
    r"""Return `text` with the lines broken that are longer than `columns`.

    Nothing is hyphenated, and a command is never broken: where it is too long for a line, it
    begins one, so that what the terminal makes of it can be copied.

    >>> wrapped("key       no, and only from here", 24)
    'key       no, and only\n          from here'
    >>> wrapped("continue: openai-runs ask TEXT", 24)
    'continue:\nopenai-runs ask TEXT'
    """
    return "\n".join(_wrapped(line, columns) for line in text.split("\n"))


def flowing(docstring: str) -> str:
    r"""Return a docstring with each paragraph, and each argument's text, on a line of its own.

    What is indented, such as an example, keeps its lines.

    >>> flowing("One\ntwo.\n\n    $ a\n    $ b\n\nArgs:\n    c: Three\n        four.")
    'One two.\n\n    $ a\n    $ b\n\nArgs:\n    c: Three four.'
    """
    text, heading, arguments = inspect.cleandoc(docstring).partition("\nArgs:\n")
    return _IN_PARAGRAPH.sub(" ", text) + heading + _IN_ARGUMENT.sub(" ", arguments)


def _wrapped(line: str, columns: int) -> str:
    if _cells(line) <= columns:
        return line
    margin = _MARGIN.match(line)
    assert margin is not None  # it matches nothing, too
    end = margin.end()
    blanks = " " * end if end < columns // 2 else ""
    rows, row, is_begun = [], line[:end], False
    for unit in _WHOLE.finditer(line, end):
        longer = row + line[end : unit.end()]
        if is_begun and _cells(longer) > columns:
            rows.append(row)
            row = blanks + unit[0]
        else:
            row = longer
        is_begun, end = True, unit.end()
    return "\n".join([*rows, row])


def _cells(text: str) -> int:
    """Return how many columns of a terminal the text takes."""
    return sum(2 if east_asian_width(one) in "WF" else 1 for one in text)
