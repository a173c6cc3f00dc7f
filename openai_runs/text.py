"""A long text cut into messages that a chat platform accepts, and kept up to date there.

Pure functions but for `write_messages`; nothing else of the package is used. `_clusters` says
where a text may be cut at all, `_fences` where its code blocks are, and `_cut` chooses among the
places that are left.

Theory of operation. A piece is a part of the text, between the first and the last line of its
code block where it begins or ends inside one. From the start of a piece all ends that fit are
found, and the best kind of end wins: after a paragraph, a line or a sentence where that leaves
the piece at least half full, else after a word, else anywhere between two characters as a reader
sees them (extended grapheme clusters, UAX #29).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Final, Literal, NamedTuple, TypeVar
from unicodedata import category

import anyio

__all__ = ["split_message", "write_messages"]

_T = TypeVar("_T")
Measure = Literal["utf16", "chars"]

_END: Final = re.compile(
    r"(?P<paragraph>\n(?:[ \t\r]*+\n)++)"
    r"|(?P<line>\n)"
    r"|(?P<sentence>[.!?…][)\]\"'”’»*_]*+[ \t]++|。」*+|！」*+|？」*+)"
    r"|(?P<word>[^\S\n]++)"
)
"""What stands before the end of a piece."""
_KINDS_IN_CODE: Final = {"paragraph": "line", "sentence": "word"}
"""Code has no paragraphs and no sentences."""
_INK: Final = re.compile(r"\S")
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
_OPENING: Final = re.compile(r"(?P<indent>[ \t]*+)(?P<fence>`{3,}+(?=[^`\r]*+\Z)|~{3,}+)[^\r]*+")
_CLOSING: Final = re.compile(r"[ \t]*+(?P<fence>`{3,}+|~{3,}+)[ \t]*+")

_PLAIN: Final = "\u0300"
"""Below it every character is a cluster of its own, but for CR LF."""


def _characters(ranges: str) -> frozenset[str]:
    """Return the characters of some ranges of code points, ends included.

    >>> sorted(_characters("41-43 58"))
    ['A', 'B', 'C', 'X']
    """
    ends = [[int(end, 16) for end in one.split("-")] for one in ranges.split()]
    return frozenset(chr(code) for end in ends for code in range(end[0], end[-1] + 1))


_PREPENDED: Final = _characters(
    "600-605 6DD 70F 890-891 8E2 D4E 110BD 110CD 111C2-111C3 113D1 1193F 11941 11A84-11A89 11D46"
    " 11F02"
)
"""Characters that belong to the next one (UAX #29: Prepend)."""
_EXTENDING: Final = _characters("E33 EB3 200C-200D FF9E-FF9F 1F3FB-1F3FF E0020-E007F")
"""Characters that belong to the one before, besides all marks: joiners, skin tones, tags."""
_JOINER: Final = "\u200d"
_PICTOGRAPHS: Final = _characters(
    "A9 AE 203C 2049 2122 2139 2190-21FF 2300-23FF 24C2 25A0-27BF 2934-2935 2B00-2BFF 3030 303D"
    " 3297 3299 1F000-1FAFF"
)
"""What a joiner makes one emoji with (Extended_Pictographic), in part as whole blocks."""
_FLAG_LETTERS: Final = _characters("1F1E6-1F1FF")
"""Regional indicators: two are one flag."""
_VIRAMAS: Final = _characters(
    "94D 9CD ACD B4D C4D D4D 1039 17D2 1A60 1BAB A9C0 AAF6 10A3F 11133 113D0 1193E 11A47 11A99"
    " 11F42"
)
"""Marks that join the consonants of a conjunct (Indic_Conjunct_Break: Linker)."""
_HANGUL_LEADS: Final = _characters("1100-115F A960-A97C")
_HANGUL_SYLLABLES: Final = _characters("AC00-D7A3")
_HANGUL_VOWELS: Final = _characters("1160-11A7 D7B0-D7C6 16D63 16D67-16D6A")
_HANGUL_TAILS: Final = _characters("11A8-11FF D7CB-D7FB")
_HANGUL: Final = _HANGUL_LEADS | _HANGUL_SYLLABLES | _HANGUL_VOWELS | _HANGUL_TAILS
_CONTROLS: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def split_message(text: str, limit: int, *, measure: Measure = "utf16") -> list[str]:
    """Return the text in pieces that each fit into one message.

    A piece ends after a paragraph, a line, a sentence or a word, and never inside a character as
    a reader sees it: an emoji with its skin tone, a flag, a letter with its accents. Where a
    piece ends inside a fenced code block, the block is closed there and opened again in the next
    piece, with its language; a block that the text leaves open is closed at its end. But for
    these lines the pieces are the text, white space included; only white space that would fill a
    message of its own is left out, since no platform accepts one.

    A character that alone exceeds the limit, such as one letter with a hundred accents, is cut
    between its code points. A code block whose first and last line take more than half of the
    limit is cut as any text. Which characters are marks is what this Python's `unicodedata` says.

    Example:
        >>> split_message("One two. Three four.", 12)
        ['One two. ', 'Three four.']

    Args:
        text: Any text; an empty or blank one gives no piece.
        limit: The most that one message may have: 4096 for Telegram, 2000 for Discord.
        measure: How the platform counts: `utf16` units, as Telegram does, or `chars` for code
            points, as Discord does.

    Raises:
        ValueError: `limit` is below 2, or `measure` is neither of the two.
    """
    if measure not in ("utf16", "chars"):
        msg = f"measure must be 'utf16' or 'chars', got {measure!r}"
        raise ValueError(msg)
    if limit < 2:  # a character may take two units
        msg = f"limit must be 2 or more, got {limit!r}"
        raise ValueError(msg)
    size = _utf16_units if measure == "utf16" else len
    return list(_Splitter(text, limit, size).pieces())


async def write_messages(
    texts: AsyncIterable[str],
    send: Callable[[str], Awaitable[_T]],
    edit: Callable[[_T, str], Awaitable[object]],
    limit: int,
    *,
    measure: Measure = "utf16",
) -> list[_T]:
    """Show a text that grows as messages of a chat, the last of which is edited in place.

    Where the platform refuses a message for now, with an error that has a `retry_after` as those
    of aiogram, discord.py and python-telegram-bot do, it is sent again after that time.

    Args:
        texts: All of the text so far, again and again, as `Conversations.reply` yields it.
        send: Sends a message and returns it.
        edit: Changes the text of a message that `send` returned.
        limit: As of `split_message`.
        measure: As of `split_message`.

    Returns:
        The messages, as `send` returned them.

    Raises:
        ValueError: The limit is below 100, or the measure is unknown.
        Exception: What `texts`, `send` and `edit` raise, but for errors with a `retry_after`.

    Cancellation: what has been sent stays.
    """
    sent: list[_T] = []
    shown: list[str] = []
    async for text in texts:
        for place, piece in enumerate(split_message(text, limit, measure=measure)):
            if place == len(sent):
                sent.append(await _once_accepted(send, piece))
                shown.append(piece)
            elif shown[place].strip() != piece.strip():  # platforms trim what they are sent
                await _once_accepted(edit, sent[place], piece)
                shown[place] = piece
    return sent


async def _once_accepted(call: Callable[..., Awaitable[_T]], *arguments: object) -> _T:
    """Call until the platform does not ask to retry later."""
    while True:
        try:
            return await call(*arguments)
        except Exception as error:
            pause = getattr(error, "retry_after", None)
            if isinstance(pause, timedelta):
                pause = pause.total_seconds()
            if not isinstance(pause, int | float):
                raise
        await anyio.sleep(pause)


def _utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


class _Fence(NamedTuple):
    """A fenced code block: where its lines are, and what stands in for them in a piece."""

    start: int
    """Where its first line begins."""
    inside: int
    """Where its code begins."""
    closing: int
    """Where its last line begins; beyond the text where it has none."""
    end: int
    opener: str
    closer: str

    def contains(self, place: int) -> bool:
        """Return whether a piece that ends or begins there has to close or open the block."""
        return self.inside <= place <= self.closing

    def is_torn(self, place: int) -> bool:
        """Return whether an end there would break a fence, or leave a block without code."""
        return self.start < place <= self.inside or self.closing <= place < self.end


def _fences(text: str) -> Iterator[_Fence]:
    """Yield the fenced code blocks of a text (CommonMark 4.5), indented as they like."""
    start, opening = 0, None
    begun = inside = 0
    for line in _LINE.findall(text) if "```" in text or "~~~" in text else ():
        end, bare = start + len(line), line.rstrip("\r\n")
        if opening is None:
            opening = _OPENING.fullmatch(bare)
            begun, inside = start, end
        elif (closing := _CLOSING.fullmatch(bare)) and closing["fence"].startswith(
            opening["fence"]
        ):
            yield _fence(opening, begun, inside, start, end)
            opening = None
        start = end
    if opening is not None:
        yield _fence(opening, begun, inside, start + 1, start + 1)


def _fence(opening: re.Match[str], start: int, inside: int, closing: int, end: int) -> _Fence:
    closer = opening["indent"] + opening["fence"]
    return _Fence(start, inside, closing, end, opening[0] + "\n", closer)


class _Splitter:
    """Cuts one text."""

    def __init__(self, text: str, limit: int, size: Callable[[str], int]) -> None:
        self._text = text
        self._limit = limit
        self._size = size
        self._fences = [
            one for one in _fences(text) if size(f"{one.opener}\n{one.closer}") <= limit // 2
        ]
        self._starts = [one.start for one in self._fences]

    def pieces(self) -> Iterator[str]:
        start = 0
        while _INK.search(self._text, start):
            end = self._cut(start)
            if _INK.search(self._text, start, end):
                yield self._opener(start) + self._text[start:end] + self._closer(start, end)
            start = end

    def _fence_at(self, place: int) -> _Fence | None:
        """Return the code block whose first line begins before `place`, if it ends after it."""
        number = bisect_right(self._starts, place - 1) - 1
        fence = self._fences[number] if number >= 0 else None
        return fence if fence is not None and place < fence.end else None

    def _opener(self, start: int) -> str:
        fence = self._fence_at(start)
        return fence.opener if fence is not None and fence.contains(start) else ""

    def _closer(self, start: int, end: int) -> str:
        fence = self._fence_at(end)
        if fence is None or not fence.contains(end):
            return ""
        is_whole_line = end > start and self._text[end - 1] == "\n"
        return fence.closer if is_whole_line else f"\n{fence.closer}"

    def _cut(self, start: int) -> int:
        """Return where the piece that begins at `start` ends."""
        ends = self._fitting(start)
        if not ends:
            return self._cut_in_character(start)
        if ends[-1] == len(self._text):
            return ends[-1]
        ink = _INK.search(self._text, start)
        first = ink.end() if ink else start
        useful = {end for end in ends if end >= first and not self._is_torn(end)}
        last = self._last_of_each_kind(start, ends[-1], useful)
        half = start + (ends[-1] - start) // 2
        for kind in ("paragraph", "line", "sentence"):
            if kind in last and last[kind] >= half:
                return last[kind]
        return max(last.values(), default=0) or max(useful, default=ends[-1])

    def _last_of_each_kind(self, start: int, stop: int, useful: set[int]) -> dict[str, int]:
        """Return the last useful end after a paragraph, a line, a sentence and a word."""
        last: dict[str, int] = {}
        for match in _END.finditer(self._text, start, stop):
            kind, end = match.lastgroup or "", match.end()
            if end in useful:
                is_code = bool(self._closer(start, end))
                last[_KINDS_IN_CODE.get(kind, kind) if is_code else kind] = end
        return last

    def _is_torn(self, place: int) -> bool:
        fence = self._fence_at(place)
        return fence is not None and fence.is_torn(place)

    def _fitting(self, start: int) -> list[int]:
        """Return all ends between two characters with which the piece fits."""
        used, ends, before = self._size(self._opener(start)), list[int](), start
        for end in _clusters(self._text, start):
            used += self._size(self._text[before:end])
            if used > self._limit:
                break
            before = end
            if used + self._size(self._closer(start, end)) <= self._limit:
                ends.append(end)
        return ends

    def _cut_in_character(self, start: int) -> int:
        """Return the last end between two code points with which the piece fits."""
        end, used = start, self._size(self._opener(start))
        while end < len(self._text):
            used += self._size(self._text[end])
            if end > start and used + self._size(self._closer(start, end + 1)) > self._limit:
                break
            end += 1
        return end


def _clusters(text: str, start: int) -> Iterator[int]:
    """Yield the end of each extended grapheme cluster; `start` is where one begins.

    Where exactness would need large tables two clusters may count as one, never the reverse.
    """
    begun = start
    for place in range(start + 1, len(text)):
        before, char = text[place - 1], text[place]
        if before < _PLAIN > char:
            is_joined = before == "\r" and char == "\n"
        else:
            is_joined = _is_joined(before, char, text, begun, place)
        if not is_joined:
            yield place
            begun = place
    if start < len(text):
        yield len(text)


def _is_joined(before: str, char: str, text: str, begun: int, place: int) -> bool:
    """Return whether two characters are of one cluster, which began at `begun`."""
    if _is_control(before) or _is_control(char):
        return "\ud800" <= before <= "\udbff" and "\udc00" <= char <= "\udfff"
    if _is_extending(char) or before in _PREPENDED:
        return True
    if char in _FLAG_LETTERS:
        letters = sum(one in _FLAG_LETTERS for one in text[begun:place])
        return letters == 1 and before in _FLAG_LETTERS
    if char in _PICTOGRAPHS:
        return before == _JOINER
    if category(char) == "Lo":
        return _is_of_syllable(before, char) or _is_conjunct(text, begun, place)
    return False


def _is_of_syllable(before: str, char: str) -> bool:
    if char in _HANGUL_VOWELS or char in _HANGUL_TAILS:
        return before in _HANGUL
    return before in _HANGUL_LEADS and (char in _HANGUL_LEADS or char in _HANGUL_SYLLABLES)


def _is_conjunct(text: str, begun: int, place: int) -> bool:
    """Return whether the marks before `place` join the letter there to the one before them."""
    while place > begun and _is_extending(text[place - 1]):
        place -= 1
        if text[place] in _VIRAMAS:
            return True
    return False


def _is_extending(char: str) -> bool:
    return category(char)[0] == "M" or char in _EXTENDING


def _is_control(char: str) -> bool:
    is_kind = category(char) in _CONTROLS
    return is_kind and char not in _EXTENDING and char not in _PREPENDED
