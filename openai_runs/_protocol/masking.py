"""Masks the request's own secrets in texts of others, and whatever has the form of a key.

A secret is found as it is, and escaped: as JSON, as HTML, percent-encoded, one within the other,
or broken over several lines. Not detected: changed case, base64, fragments.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

__all__ = ["mask", "mask_value", "quotes", "secrets_of", "widest"]

_MASK: Final = "***"
_MIN_CHARS: Final = 6
"""Characters a secret must have to be masked: shorter ones are parts of common words."""
_MAX_DEPTH: Final = 4
"""Escapes within escapes that are read, such as JSON in a string of JSON."""
_MAX_MAPPED: Final = 100_000
"""Characters of a text in which an escaped secret is replaced by position."""
_WIDEST_ESCAPE: Final = 12
"""Characters of the longest common way to write one, such as a pair of surrogates."""
_SECRET_NAME: Final = re.compile(
    r"auth|key|token|secret|cookie|passw|credential|signature|\Asig\Z|\Acode\Z", re.I
)
"""Names of headers and query parameters whose values are credentials."""
_PUBLIC: Final = frozenset({"idempotency-key"})
_TOKEN: Final = re.compile(r"\bsk-[A-Za-z0-9_\-]{16,}+")
"""Any key, not only the request's; `sk-...abcd`, as servers shorten keys, is none."""
_ESCAPE: Final = re.compile(
    r"""\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\["'\\/]|\\[bfnrt]|(?:%[0-9A-Fa-f]{2})++"""
    r"|&#[0-9]{1,7}+;|&#[xX][0-9A-Fa-f]{1,6}+;|&[A-Za-z]{2,8}+;"
)
_SHORT: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ASTRAL: Final = re.compile("[\U00010000-\U0010ffff]")
_GAP: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\xad\u200b-\u200f\u2060-\u206f\ufeff]++")
"""Line breaks and invisible characters, which may be within a secret."""


def secrets_of(headers: Mapping[str, str], url: str = "") -> tuple[str, ...]:
    """Return the credentials of a request: those in its headers, and in its URL's query.

    >>> secrets_of({"Authorization": "Bearer abcdefgh", "Accept": "text/html"})
    ('abcdefgh',)
    """
    query = parse_qsl(url.partition("?")[2])
    named = [*headers.items(), *query]
    values = [
        value for name, value in named if _SECRET_NAME.search(name) and name.lower() not in _PUBLIC
    ]
    return tuple(str.__str__(value.partition(" ")[2] or value) for value in values)


def mask(text: str, secrets: Collection[str] = ()) -> str:
    r"""Return the text with `***` for each secret in it, and for what is shaped like a key.

    Args:
        text: A text of the server or of a library.
        secrets: Those of fewer than six characters are not masked: they are common words.

    >>> mask('{"key": "abc\\/d\\u0065f"}', ["abc/def"])
    '{"key": "***"}'
    """
    for secret in sorted(filter(_is_long, secrets), key=len, reverse=True):
        text = _without(text.replace(secret, _MASK), secret)
    return _TOKEN.sub(_MASK, text)


def mask_value(value: Any, secrets: Collection[str] = ()) -> Any:
    """Return a JSON value with every text in it masked, the names of its fields too.

    Raises:
        RecursionError: It is nested too deeply.
    """
    if isinstance(value, str):
        return mask(value, secrets)
    if isinstance(value, list):
        return [mask_value(item, secrets) for item in value]
    if isinstance(value, dict):
        return {mask_value(k, secrets): mask_value(v, secrets) for k, v in value.items()}
    return value


def quotes(error: BaseException, secrets: Collection[str]) -> bool:
    """Return whether an exception, or what caused it, holds one of the secrets."""
    one: BaseException | None = error
    while one is not None:
        text = f"{one!r} {one} {vars(one)!r}"
        if mask(text, secrets) != text:
            return True
        one = one.__cause__ or one.__context__
    return False


def widest(secrets: Collection[str]) -> int:
    """Return how many characters a secret may take up, escaped."""
    return max((len(secret) for secret in secrets), default=0) * _WIDEST_ESCAPE


def _is_long(secret: str) -> bool:
    return len(secret) >= _MIN_CHARS


def _without(text: str, secret: str) -> str:
    """Return the text without the escaped forms of a secret."""
    forms = {form for form in map(_plain, _levels(secret)) if _is_long(form)}
    while (found := _find(text, forms)) is not None:  # each pass makes the text shorter
        if len(text) > _MAX_MAPPED:
            return _MASK
        text = _without_at(text, *found)
    return text


def _find(text: str, forms: Collection[str]) -> tuple[str, int] | None:
    """Return the form of a secret in the text, and how often its escapes were resolved."""
    for depth, level in enumerate(_levels(text)):
        plain = _plain(level)
        for form in forms:
            if form in plain:
                return form, depth
    return None


def _without_at(text: str, form: str, depth: int) -> str:
    """Return the text with `***` wherever it is `form` once its escapes are resolved."""
    level = [(half, at, at + 1) for at, one in enumerate(text) for half in _halves(one)]
    for _ in range(depth):
        level = list(_resolved_places(level))
    kept = [place for place in level if not _GAP.match(place[0])]
    plain = "".join(one for one, _, _ in kept)
    pieces, done, at = [], 0, plain.find(form)
    while at >= 0:
        begin, end = kept[at][1], kept[at + len(form) - 1][2]
        pieces += [text[done:begin], _MASK]
        done = max(done, end)
        at = plain.find(form, at + len(form))
    return "".join([*pieces, text[done:]])


def _resolved_places(level: list[tuple[str, int, int]]) -> Iterator[tuple[str, int, int]]:
    """Yield each character with where it begins and ends in the text; an escape is one place."""
    text, done = "".join(one for one, _, _ in level), 0
    for found in _ESCAPE.finditer(text):
        yield from level[done : found.start()]
        begin, done = level[found.start()][1], found.end()
        for one in _resolved(found):
            yield one, begin, level[done - 1][2]
    yield from level[done:]


def _levels(text: str) -> Iterator[str]:
    """Yield the text as it is, and with its escapes resolved as often as there are some."""
    text = _halves(text)
    yield text
    for _ in range(_MAX_DEPTH):
        resolved = _ESCAPE.sub(_resolved, text)
        if resolved == text:
            return
        text = resolved
        yield text


def _resolved(found: re.Match[str]) -> str:
    """Return what an escape stands for."""
    escape = found[0]
    if escape[0] == "&":
        return _halves(html.unescape(escape))
    if escape[0] == "%":
        return _halves(bytes.fromhex(escape.replace("%", "")).decode("utf-8", "replace"))
    if len(escape) > 2:
        return chr(int(escape[2:], 16))
    return _SHORT.get(escape[1], escape[1])


def _plain(text: str) -> str:
    return _GAP.sub("", text)


def _halves(text: str) -> str:
    """Return the text in characters of 16 bits, as JSON escapes them."""
    if text.isascii():
        return text
    return _ASTRAL.sub(_pair, text)


def _pair(found: re.Match[str]) -> str:
    code = ord(found[0]) - 0x10000
    return chr(0xD800 + (code >> 10)) + chr(0xDC00 + (code & 0x3FF))
