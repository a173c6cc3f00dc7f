"""JSON texts that are odd or broken, by chance."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

__all__ = ["ODD_VALUES", "odd_text", "odd_value"]

_HOLE = "\ue000hole\ue000"
"""Stands for a raw text in a value that is encoded."""


def _deep(chance: Random) -> str:
    """Return arrays or objects, nested near a limit of recursion or far beyond it."""
    depth = chance.choice([30, 63, 64, 65, 127, 128, 256, 500, 900, 1000, 2000, 20_000])
    depth += chance.randint(-40, 3)
    opening, closing = chance.choice([("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
    end = chance.choice([closing * depth, closing * depth, "", closing * (depth + 1)])
    return opening * depth + chance.choice(["1", '""', "null", ""]) + end


def _escapes(chance: Random) -> str:
    """Return a text with escapes, lone surrogates and control characters among them."""
    pieces = ["\\ud800", "\\udc00", "\\ud83d\\ude00", "\\u0000", "\\uFEFF", "\\u202e", "\\x41"]
    pieces += ["\\u12", "\\", "\0", "\n", "\x7f", "\u2028", "\\/", '\\"', "é", "\\uffff"]
    return '"' + "".join(chance.choices(pieces, k=chance.randint(1, 6))) + '"'


def _number(chance: Random) -> str:
    fixed = ["1e400", "-1e400", "NaN", "Infinity", "-Infinity", "-0", "0.0", "1e-400", "01", "+1"]
    fixed += [
        "0x10",
        "1.",
        ".5",
        "1e",
        "--1",
        "1_000",
        "1e5",
        "0.1e1",
        "9" * 5000,
        "1." + "3" * 999,
    ]
    bits = chance.choice([15, 16, 31, 32, 52, 53, 62, 63, 64, 65, 127, 128, 1024])
    near = chance.choice([1, -1]) * 2**bits + chance.randint(-2, 2)
    return chance.choice([*fixed, str(near), str(near), str(near)])


def _huge(chance: Random) -> str:
    size = chance.choice([1 << 10, 1 << 16, 300_000])
    return chance.choice(
        [
            json.dumps("x" * size),
            json.dumps({"k" * size: 1}),
            json.dumps({f"k{n}": n for n in range(size >> 6)}),
            json.dumps([0] * (size >> 2)),
            '"' + "\\u0001" * (size >> 3) + '"',
        ]
    )


def _small(chance: Random) -> str:
    values = [None, True, 0, -1, 0.5, "", "x", [], {}, [None], {"": None}, {"type": "text"}, "auto"]
    return json.dumps(chance.choice(values))


def _not_json(chance: Random) -> str:
    return chance.choice(
        ["", "nul", "True", "'x'", "undefined", "{a:1}", "[1,]", "//", "{}{}", ","]
    )


ODD_VALUES: list[Callable[[Random], str]] = [
    _deep,
    _escapes,
    _number,
    _huge,
    _small,
    _small,
    _not_json,
]


def odd_value(chance: Random) -> str:
    """Return the text of one odd value."""
    return chance.choice(ODD_VALUES)(chance)


def odd_text(chance: Random, body: Any) -> bytes:
    """Return the body as JSON with one place replaced, or encoded in another way."""
    raw = odd_value(chance)
    text = json.dumps(_replaced(chance, body), ensure_ascii=chance.random() < 0.5)
    text = text.replace(json.dumps(_HOLE), raw).replace(f'"{_HOLE}"', raw)
    kind = chance.randrange(12)
    if kind == 0:  # a key once more, with another value
        name = next(iter(body), "a") if isinstance(body, dict) else "a"
        text = text[:-1] + f', "{name}": {raw}' + "}"
    elif kind == 1:
        text = raw
    elif kind == 2:
        text += chance.choice([" ", "\n" * 1000, "\0", "}", ",", "{}", "\ufeff"])
    elif kind == 3:
        text = text[: chance.randrange(len(text) + 1)]
    return _encoded(chance, text)


def _encoded(chance: Random, text: str) -> bytes:
    names = ["utf-8"] * 12 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"]
    encoded = text.encode(chance.choice(names), "replace")
    if chance.random() < 0.05:
        at = chance.randrange(len(encoded) + 1)
        bad = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"]
        encoded = encoded[:at] + chance.choice(bad) + encoded[at:]
    return encoded


def _replaced(chance: Random, value: Any) -> Any:
    """Return the value with a hole in place of one of the values inside it, or of a key."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        name = chance.choice(list(value))
        if chance.random() < 0.1:
            return {**value, _HOLE: value[name]} if chance.random() < 0.5 else {**value, "é": _HOLE}
        return {**value, name: _replaced(chance, value[name])}
    if isinstance(value, list) and value and chance.random() < 0.85:
        at = chance.randrange(len(value))
        return [*value[:at], _replaced(chance, value[at]), *value[at + 1 :]]
    return _HOLE
