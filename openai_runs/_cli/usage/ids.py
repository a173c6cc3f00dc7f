"""Which kind of object an id is of, and the commands that take it."""

import re
from typing import Final

__all__ = ["a", "kind_of", "uses"]

_ID: Final = re.compile(r"(?P<prefix>thread|run|asst|msg|step)_\w+")
_KINDS: Final = {
    "thread": "thread",
    "run": "run",
    "asst": "assistant",
    "msg": "message",
    "step": "run step",
}
"""How ids begin, at the vendor's servers and ours -> what they are of."""
_USES: Final = {
    "thread": (
        "`openai-runs threads show {id}{place}` shows it, "
        "`openai-runs runs list {id}{place}` lists its runs"
    ),
    "run": "`openai-runs runs show {id}{place}` shows it",
    "assistant": "`openai-runs assistants show {id}{place}` shows it",
}


def kind_of(text: str) -> str | None:
    """Return what an id is of; None of one that does not say so, as on some servers.

    >>> kind_of("asst_1"), kind_of("7f3c"), kind_of("run_tests.py")
    ('assistant', None, None)
    """
    found = _ID.fullmatch(text)
    return None if found is None else _KINDS[found["prefix"]]


def uses(object_id: str, place: str = "") -> str:
    """Return the commands for an id, behind a colon; an empty text where there is none.

    `place`: options that lead to the server, each with a space before it.

    >>> uses("run_1", " --db runs.db")
    ': `openai-runs runs show run_1 --db runs.db` shows it'
    """
    known = _USES.get(kind_of(object_id) or "")
    return "" if known is None else ": " + known.format(id=object_id, place=place)


def a(kind: str) -> str:
    """Return the word with its article."""
    return f"an {kind}" if kind == "assistant" else f"a {kind}"
