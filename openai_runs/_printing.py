"""How objects are printed: ids and status first, nothing empty, in two lines of a terminal.

`Printed` is the base of all that is printed so. A class says by `_printed` what it shows, in
which order; `repr` and rich shorten it. No value is changed by this: `to_dict` has all of it.

In a notebook answers are Markdown, in which a text of the server starts no markup.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Final

import msgspec

from openai_runs.config import REPR_CHARS, REPR_VALUE_CHARS

__all__ = ["Pairs", "Printed", "Shortened", "facts", "inline", "shown", "table"]

_FIRST: Final = (
    *("event", "id", "status", "role", "name", "kind", "code", "message"),
    *("last_error", "incomplete_details", "tool_calls", "text"),
    *("thread_id", "run_id", "model", "assistant_id", "usage"),
)
"""Fields that say most, in the order in which they are shown."""
_WIDE: Final = frozenset({"data", "function", "last_error", "text", "tool_calls"})
"""Fields that may take all that is left of the line."""
_DOTS: Final = "..."
_MIN_CHARS: Final = 24
"""Characters below which a shortened value says nothing."""
_MAX_ITEMS: Final = 5
"""Items of a list, and pairs of a mapping, that rich is given."""
_MARKUP: Final = re.compile(r"[\\`*_\[\]<>&|~#$]")
"""Characters that may begin markup: of Markdown, of HTML, or of a formula."""
_COLUMNS: Final = ("id", "status", "role", "name", "text", "model", "type")
"""Fields of an item that a table shows, where one of its items has them."""

Pairs = list[tuple[str, Any]]


class Printed:
    """Prints itself by `_printed`: shortened for `repr`, piece by piece for rich."""

    __slots__ = ()
    __struct_fields__: ClassVar[tuple[str, ...]]

    def _printed(self) -> Pairs:
        """Return what is shown, as pairs of a name and a value: nothing null, empty or default."""
        kind: Any = type(self)
        defaults = _defaults(kind)
        given = {name: getattr(self, name) for name in _order(kind)}
        return [
            (name, value)
            for name, value in given.items()
            if value not in (None, msgspec.UNSET, [], {})
            and (name == "status" or value != defaults.get(name, msgspec.UNSET))
        ]

    def __repr__(self) -> str:
        return _object(self, REPR_CHARS)

    def __rich_repr__(self) -> Pairs:
        return [(name, _for_rich(value)) for name, value in self._printed()]


class Shortened:
    """A value of which rich is given the beginning and the length."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def shown(value: Any, room: int) -> str:
    """Return `repr(value)`, shortened to some `room` characters, with what is left out counted.

    >>> shown("a text of many words, which goes on", 30)
    "'a text of many...' (35 chars)"
    >>> shown([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 24)
    '[1, 2, 3, ... 7 more]'
    """
    if isinstance(value, str):
        return _text(value, room)
    if isinstance(value, Printed):
        return _object(value, room)
    if isinstance(value, Mapping):
        pairs = ((f"{_text(str(key), room)}: ", item) for key, item in value.items())
        return _items(pairs, len(value), room, "{}")
    if isinstance(value, list | tuple):
        brackets = "[]" if isinstance(value, list) else "()"
        return _items((("", item) for item in value), len(value), room, brackets)
    text = repr(value)
    return text if len(text) <= room else f"{text[: max(room - 3, 0)]}..."


def _object(value: Printed, room: int) -> str:
    """Return the fields that fit, those that say most first."""
    name = type(value).__name__
    left = room - len(name) - len("(, ...)")
    parts: list[str] = []
    pairs = value._printed()
    for field, given in pairs:
        each = left - len(field) - len(", =")
        text = shown(given, each if field in _WIDE else min(each, REPR_VALUE_CHARS))
        says_little = each < _MIN_CHARS or field.endswith("id") or text.endswith("(...)")
        if len(text) > each or (says_little and _DOTS in text):  # half an id is none
            break
        parts.append(f"{field}={text}")
        left -= len(parts[-1]) + len(", ")
    if len(parts) < len(pairs):
        parts.append(_DOTS)
    return f"{name}({', '.join(parts)})"


def _items(pairs: Iterable[tuple[str, Any]], count: int, room: int, brackets: str) -> str:
    """Return the items that fit, and how many more there are."""
    begin, end = brackets[0], brackets[1]
    more = len(f", ... {count} more")
    left = room - len(brackets) - (more if count > 1 else 0)
    parts: list[str] = []
    for before, item in pairs if left > 0 else ():
        text = before + shown(item, max(left - len(before), 0))
        if len(text) > left or (left < _MIN_CHARS and _DOTS in text):
            break
        parts.append(text)
        left -= len(text) + len(", ")
    if not parts and count:
        return f"{begin}{count} {'item' if count == 1 else 'items'}{end}"
    if len(parts) < count:
        parts.append(f"... {count - len(parts)} more")
    return f"{begin}{', '.join(parts)}{end}"


def _text(text: str, room: int) -> str:
    """Return the text in quotes; one that is too long ends in dots, and its length follows."""
    if len(text) <= room and len(whole := repr(text)) <= room:
        return whole
    length = f" ({len(text):,} chars)"
    kept = max(room - len(length) - len("'...'"), 0)
    while True:
        cut = f"{text[:kept]}..."
        excess = len(repr(cut)) + len(length) - room  # an escape takes more than one character
        if excess <= 0 or kept == 0:
            return repr(cut) + length
        kept = max(kept - excess, 0)


def _for_rich(value: Any) -> Any:
    """Return the value with long texts and long lists in it shortened."""
    if isinstance(value, str) and len(value) > REPR_VALUE_CHARS:
        return Shortened(_text(value, REPR_VALUE_CHARS))
    if isinstance(value, Mapping):
        kept = {key: _for_rich(value[key]) for key in [*value][:_MAX_ITEMS]}
        return kept if len(value) <= _MAX_ITEMS else Shortened(shown(value, REPR_CHARS))
    if isinstance(value, list):
        items = [_for_rich(item) for item in value[:_MAX_ITEMS]]
        more = len(value) - len(items)
        return [*items, Shortened(f"... {more} more")] if more else items
    return value


@cache
def _order(kind: type[Printed]) -> tuple[str, ...]:
    """Return the fields of a class: what says most, the others, and at last times and metadata."""
    names = kind.__struct_fields__
    last = [one for one in names if one.endswith("_at") or one in {"object", "metadata"}]
    first = [one for one in _FIRST if one in names]
    rest = [one for one in names if one not in first and one not in last]
    return (*first, *rest, *last)


@cache
def _defaults(kind: type[Any]) -> dict[str, Any]:
    """Return the default of each field that has one."""
    found = {}
    for field in msgspec.structs.fields(kind):
        if field.default is not msgspec.NODEFAULT:
            found[field.name] = field.default
        elif field.default_factory is not msgspec.NODEFAULT:
            found[field.name] = field.default_factory()
    return found


def inline(value: object) -> str:
    r"""Return the value on one line, shortened, and as it reads: nothing in it is markup.

    >>> print(inline("a|b\n<b>"))
    a\|b \<b\>
    """
    text = " ".join(str(value).split())
    if len(text) > REPR_VALUE_CHARS:
        text = f"{text[: REPR_VALUE_CHARS - 3]}..."
    return _MARKUP.sub(r"\\\g<0>", text)


def facts(kind: str, pairs: Iterable[tuple[str, object]]) -> str:
    """Return a line that says what something is, then a list of what is known of it."""
    lines = [f"- {name}: {inline(value)}" for name, value in pairs if value not in (None, "")]
    return "\n".join([f"**{kind}**", "", *lines])


def table(items: Sequence[Any]) -> str:
    """Return a table of the items of a list, with the columns that at least one of them has."""
    found = [(name, [getattr(item, name, None) for item in items]) for name in _COLUMNS]
    columns = [(name, values) for name, values in found if any(values)]
    names = [name for name, _ in columns]
    rows = zip(*(values for _, values in columns), strict=True)
    lines = [[*map(_cell, row)] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *lines))


def _cell(value: object) -> str:
    return "" if value is None else inline(value)
