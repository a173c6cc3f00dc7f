"""What is said where a start is not like an earlier one: its lines, its template, its assistant."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from openai_runs.batch.inputs import Line

__all__ = ["assistant_change", "line_change"]

_MAX_SHOWN: Final = 200
"""Characters that are shown of a template or a setting."""
_OTHERWISE: Final = "or begin with another checkpoint and output"


def line_change(line: Line, number: int, template: str | None) -> str:
    """Return what is said of a line that is not what it was.

    Args:
        line: The line.
        number: That of the line which had its id.
        template: The JSON of the last start's template, where that was another.
    """
    changed = f"its {'row' if line.is_row else 'body'} has changed"
    advice = "give it another custom_id"
    if template is not None:
        changed = f"the template (--prompt) is not that of the last start, {_shown(template)}"
        advice = "put that back"
    elif line.is_row and line.custom_id == f"row-{line.number}":
        changed += ", or rows were inserted, removed or sorted"
        advice = "put the file back as it was"
    before = "" if line.number == number else f" (as line {number})"
    said = (
        f"line {line.number} of the input, custom_id {line.custom_id!r:.100}, is not what it "
        f"was{before} when this checkpoint began: {changed}; {advice}, {_OTHERWISE}"
    )
    if "rows" in changed:
        said += ", with id_column (--id-column), by which rows may move"
    return said


def assistant_change(found: str, known: Any, wanted: Any) -> str:
    """Return what is said of an assistant that is not that of the first start.

    Args:
        found: Its id.
        known: Its settings or id, as given at the first start.
        wanted: Those of this start.
    """
    if isinstance(known, dict) and isinstance(wanted, dict):
        names = [name for name in {**known, **wanted} if known.get(name) != wanted.get(name)]
        pairs = ((name, _cut(known.get(name)), _cut(wanted.get(name))) for name in names)
        change = ", ".join(f"{name} was {old}, is {new}" for name, old, new in pairs)
    elif isinstance(known, dict):
        change = f"it was made, of the model {_cut(known.get('model'))}, and is one that is there"
    elif isinstance(wanted, dict):
        change = "it was given by its id (assistant=, --assistant), and is one to make"
    else:
        change = f"it is {wanted}"
    return (
        f"the assistant is not what it was at the first start, {found}: {change}; give what it "
        f"was, {_OTHERWISE}"
    )


def _shown(template: str) -> str:
    """Return the prompt of a template; its JSON where there is more in it."""
    match msgspec.json.decode(template):
        case {"thread": {"messages": [{"content": str(prompt), **message}], **thread}, **body}:
            if not (thread or body) and message.keys() == {"role"}:
                return _cut(prompt)
    return template if len(template) <= _MAX_SHOWN else f"{template[:_MAX_SHOWN]}..."


def _cut(value: object) -> str:
    if value is None:
        return "not given"
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."
