"""Steps that a pattern takes: a small backtracking matcher that counts what `re` does not show.

It walks the tree that `re` parses, in the order in which `re` tries things, without its
shortcuts, so its steps are an upper bound but for a constant factor. A pattern is sound if
twice the text costs about twice the steps, on every text that its own parts suggest.
"""

from __future__ import annotations

import re
import re._compiler as sre_compiler  # type: ignore[import-not-found]
import re._constants as op  # type: ignore[import-not-found]
import re._parser as sre_parser  # type: ignore[import-not-found]
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import islice
from typing import Any, Final

__all__ = ["growth", "worst_text"]

LIMIT: Final = 60_000
"""Steps after which a search is given up: a sound pattern takes a few thousand."""
REPEATS: Final = (12, 24, 48)
"""How often a text repeats its core."""
FIRST_REPEATS: Final = (3, 6, 12)
"""How often it does at first: most texts show by then that the steps grow with them."""
SUSPECT: Final = 2.05
"""Growth of the steps over the first repeats from which a text is tried with more."""
BAD: Final = 3.0
"""Growth of the steps at which the search for a worse text ends."""
PROBES: Final = [chr(code) for code in range(256)] + [
    "\u2003",
    "\u0660",
    "\u017f",
    "\ud800",
    "\U0001f511",
]
_CLASSES: Final = {op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN, op.CATEGORY}
_REPEATS: Final = {op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT}
_NOBODY: Final = "\ud800"


class _Spent(Exception):  # noqa: N818 - the answer, and no fault
    """More steps than any sound pattern takes."""


class Machine:
    """One pattern, ready to be run on many texts."""

    def __init__(self, pattern: str | bytes, flags: int = 0) -> None:
        """Parse the pattern; one over bytes is run over the text that latin-1 makes of them."""
        self.is_bytes = isinstance(pattern, bytes)
        tree = sre_parser.parse(pattern, flags)
        self.state = tree.state
        self.flags = self.state.flags
        self.tree = _plain(tree)
        self.steps = 0
        self._classes: dict[int, Callable[[str], bool]] = {}

    def run(self, how: str, text: str) -> int:
        """Return the steps of `match`, `fullmatch`, `search` or `findall` on the text."""
        self.steps = 0
        at, anchored = 0, how in {"match", "fullmatch"}
        try:
            while at <= len(text):
                ends = self._match(self.tree, at, text)
                whole = (end for end in ends if how != "fullmatch" or end == len(text))
                end = next(whole, None)
                if anchored or (end is not None and how == "search"):
                    break
                at = at + 1 if end is None or end == at else end
        except _Spent:
            return LIMIT
        return self.steps

    def one_of(self, node: Any) -> Callable[[str], bool]:
        """Return whether a character fits a node that takes one; `re` itself says so."""
        known = self._classes.get(id(node))
        if known is None:
            part = sre_parser.SubPattern(self.state, [node])
            compiled = re.compile(b"") if self.is_bytes else re.compile("")
            compiled = sre_compiler.compile(part, self.flags)
            known = self._classes[id(node)] = cache(partial(self._fits, compiled))
        return known

    def _fits(self, compiled: re.Pattern[Any], one: str) -> bool:
        if not self.is_bytes:
            return compiled.fullmatch(one) is not None
        return ord(one) < 256 and compiled.fullmatch(one.encode("latin-1")) is not None

    def _match(self, nodes: list[Any], at: int, text: str, first: int = 0) -> Iterator[int]:
        """Yield where a match of the nodes from `first` on may end, in the order of `re`."""
        for index in range(first, len(nodes)):
            self._step()
            node, last = nodes[index], index + 1 == len(nodes)
            if node[0] not in _CLASSES:
                for end in self._one(node, at, text):
                    yield from (end,) if last else self._match(nodes, end, text, index + 1)
                return
            if at == len(text) or not self.one_of(node)(text[at]):
                return
            at += 1
        yield at

    def _step(self) -> None:
        self.steps += 1
        if self.steps > LIMIT:
            raise _Spent

    def _one(self, node: Any, at: int, text: str) -> Iterator[int]:
        kind, value = node
        if kind in _REPEATS:
            yield from self._repeat(kind, value, at, text)
        elif kind in {op.SUBPATTERN, op.BRANCH}:
            for part in _children(node):
                yield from self._match(part, at, text)
        elif kind == op.ATOMIC_GROUP:
            yield from islice(self._match(value, at, text), 1)
        elif kind in {op.ASSERT, op.ASSERT_NOT}:
            yield from self._look(kind, value, at, text)
        elif kind == op.AT:
            if self._is_at(value, at, text):
                yield at
        else:
            message = f"{kind} is not counted: leave it out, or teach this matcher"
            raise NotImplementedError(message)

    def _look(self, kind: Any, value: Any, at: int, text: str) -> Iterator[int]:
        behind, body = value
        begin = at - behind
        found = next(self._match(body, begin, text), None) if begin >= 0 else None
        if (found is not None) == (kind == op.ASSERT):
            yield at

    def _is_at(self, where: Any, at: int, text: str) -> bool:
        if where in {op.AT_BEGINNING, op.AT_BEGINNING_STRING}:
            return at == 0
        if where == op.AT_END_STRING:
            return at == len(text)
        if where == op.AT_END:
            return at == len(text) or text[at:] == "\n"
        if where == op.AT_BOUNDARY:
            return _is_word(text, at - 1) != _is_word(text, at)
        message = f"{where} is not counted"
        raise NotImplementedError(message)

    def _repeat(self, kind: Any, value: Any, at: int, text: str) -> Iterator[int]:
        body = value[2]
        if len(body) == 1 and body[0][0] in _CLASSES:
            ends = self._repeat_one(kind, value, at, text)
        else:
            ends = self._repeat_any(kind, value, at, text)
        yield from islice(ends, 1) if kind == op.POSSESSIVE_REPEAT else ends

    def _repeat_one(self, kind: Any, value: Any, at: int, text: str) -> Iterator[int]:
        """Yield the ends of one character repeated, which needs no stack of its own."""
        least, most, body = value
        fits, later = self.one_of(body[0]), []
        count = 0
        while True:
            self.steps += 1
            if count >= least:
                if kind == op.MIN_REPEAT:
                    yield at + count
                else:
                    later.append(at + count)
            if count == most or at + count >= len(text) or not fits(text[at + count]):
                break
            count += 1
        yield from reversed(later)

    def _repeat_any(self, kind: Any, value: Any, at: int, text: str) -> Iterator[int]:
        least, most, body = value
        if kind == op.MIN_REPEAT and least <= 0:
            yield at
        if most:
            rest = (least - 1, most if most == op.MAXREPEAT else most - 1, body)
            for end in self._match(body, at, text):
                if end > at or least > 0:
                    yield from self._repeat_any(kind, rest, end, text)
        if kind != op.MIN_REPEAT and least <= 0:
            yield at


def _plain(part: Any) -> Any:
    """Return what `re` parsed, in lists, which are faster to read than its own.

    An assertion says how far behind it begins in place of its direction.
    """
    if isinstance(part, sre_parser.SubPattern | list):
        return [_plain(each) for each in part]
    if not isinstance(part, tuple):
        return part
    if part[0] is op.ASSERT or part[0] is op.ASSERT_NOT:  # a group may have the same number
        kind, (direction, body) = part
        behind = body.getwidth()[0] if direction < 0 else 0  # `re` takes only one width there
        return kind, (behind, _plain(body))
    return tuple(map(_plain, part))


def _is_word(text: str, at: int) -> bool:
    return 0 <= at < len(text) and (text[at].isalnum() or text[at] == "_")


def growth(pattern: str | bytes, flags: int, how: str, text: tuple[str, str, str]) -> float:
    """Return how the steps grow where the core of the text is repeated: 2 is linear, 4 square."""
    return _growth(Machine(pattern, flags), how, text)


def _growth(
    machine: Machine,
    how: str,
    text: tuple[str, str, str],
    repeats: tuple[int, int, int] = REPEATS,
) -> float:
    before, core, after = text
    steps = [machine.run(how, before + core * count + after) for count in repeats]
    if steps[-1] >= LIMIT:
        return float("inf")
    added = len(core) * (repeats[1] - repeats[0])
    return (steps[2] - steps[1]) / max(added, steps[1] - steps[0])


def worst_text(pattern: str | bytes, flags: int, how: str) -> tuple[float, tuple[str, str, str]]:
    """Return how the steps grow at most, and the text before, core and end on which they do.

    Where they grow like a square, the first such text is as good as any.
    """
    machine = Machine(pattern, flags)
    letters = _letters(machine)
    samples = dict.fromkeys(text for text in _samples(machine, machine.tree) if text)
    cores = dict.fromkeys([*letters, *samples, *_pairs(letters)])
    befores = dict.fromkeys(["", *samples])
    nobody = [] if machine.is_bytes else [_NOBODY]  # which is no byte
    ends = dict.fromkeys(["", *nobody, "\0", *letters[:3]])
    texts = ((before, core, end) for core in cores for before in befores for end in ends)
    worst = (0.0, ("", "", ""))
    for text in texts:
        grown = _growth(machine, how, text, FIRST_REPEATS)
        if grown > SUSPECT:
            grown = _growth(machine, how, text)
        worst = max(worst, (grown, text))
        if worst[0] > BAD:
            break
    return worst


def _pairs(letters: list[str]) -> list[str]:
    return [one + other for one in letters for other in letters if one != other][:30]


def _letters(machine: Machine) -> list[str]:
    """Return one character for each way of fitting the parts of the pattern."""
    nodes = list(_classes(machine.tree))
    found: dict[tuple[bool, ...], str] = {}
    probes = [one for one in PROBES if not machine.is_bytes or ord(one) < 256]
    for one in sorted(probes, key=lambda one: not one.isprintable() or not one.isascii()):
        found.setdefault(tuple(machine.one_of(node)(one) for node in nodes), one)
    return [one for fits, one in found.items() if any(fits)]


def _children(node: Any) -> list[list[Any]]:
    kind, value = node
    if kind in _REPEATS:
        return [value[2]]
    if kind == op.SUBPATTERN:
        return [value[3]]
    if kind == op.BRANCH:
        return value[1]  # type: ignore[no-any-return]
    if kind == op.ATOMIC_GROUP:
        return [value]
    if kind in {op.ASSERT, op.ASSERT_NOT}:
        return [value[1]]
    return []


def _classes(nodes: list[Any]) -> Iterator[Any]:
    for node in nodes:
        if node[0] in _CLASSES:
            yield node
        for child in _children(node):
            yield from _classes(child)


def _samples(machine: Machine, nodes: list[Any]) -> Iterator[str]:
    """Yield a text for each beginning of the pattern, and of each of its parts."""
    text = ""
    for node in nodes:
        for child in _children(node):
            yield from _samples(machine, child)
        text += _sample(machine, node)
        if node[0] != op.LITERAL:
            yield text
    yield text


def _sample(machine: Machine, node: Any) -> str:
    """Return a short text that fits one node."""
    if node[0] == op.LITERAL:
        return chr(node[1])
    if node[0] in _CLASSES:
        fits = machine.one_of(node)
        letters: list[str] = [*"x 0_=;\n", *PROBES]
        return next(one for one in letters if fits(one))
    if node[0] == op.ASSERT_NOT or not _children(node):
        return ""
    return "".join(_sample(machine, one) for one in _children(node)[0])
