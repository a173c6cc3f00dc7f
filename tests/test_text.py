"""`openai_runs.text`: pieces fit, cut no character in two, and keep code blocks whole."""

import doctest
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Literal
from unicodedata import category

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from openai_runs import text as module
from openai_runs.text import split_message, write_messages

Measure = Literal["utf16", "chars"]

TRICKY = [
    "👩🏽‍🚀",  # joined, with a skin tone
    "🇩🇪",
    "🇳🇴🇸🇪",
    "🏴󠁧󠁢󠁳󠁣󠁴󠁿",  # a flag of tags
    "1️⃣",
    "ne\u0301e",
    "각\u1112\u1161\u11ab",
    "क्षत्रिय",
    "กำ",
    "\r\n",
    "\u0600١",
    "e" + "\u0301" * 4,
]
FENCED = ["```py\n", "```\n", "~~~~ sh\n", "~~~~\n", "  ```\n", "````md\n", "````\n", "code()\n"]


def utf16_units(text: str) -> int:
    """Count as Telegram does."""
    return len(text.encode("utf-16-le")) // 2


SIZES = {"utf16": utf16_units, "chars": len}
measures = st.sampled_from(["utf16", "chars"])
characters = st.characters(codec="utf-8").filter(lambda c: category(c) != "Cn")
"""All that this Python knows; what newer versions of Unicode assign is not promised."""
words = st.lists(
    st.one_of(st.sampled_from(TRICKY), st.text(characters, max_size=12), st.sampled_from(" \n.?")),
    max_size=40,
).map("".join)
prose = words.filter(lambda text: "```" not in text and "~~~" not in text)
markdown = st.lists(st.one_of(st.sampled_from(FENCED), words), max_size=30).map("".join)


def inked(text: str) -> str:
    """Return the text without white space."""
    return "".join(text.split())


@given(markdown, st.integers(2, 80), measures)
def test_every_piece_fits_as_the_platform_counts(text: str, limit: int, measure: Measure) -> None:
    """Fences that were closed and reopened included, and no piece is blank."""
    pieces = split_message(text, limit, measure=measure)

    assert all(0 < SIZES[measure](piece) <= limit and piece.strip() for piece in pieces)


@given(prose, st.integers(2, 80), measures)
def test_pieces_of_prose_join_to_the_text(text: str, limit: int, measure: Measure) -> None:
    """But for white space that would be a message of its own."""
    pieces = split_message(text, limit, measure=measure)

    assert inked("".join(pieces)) == inked(text)
    blank = max((SIZES[measure](run) for run in regex.findall(r"\s+", text)), default=0)
    largest = max((SIZES[measure](one) for one in regex.findall(r"\X", text)), default=0)
    if blank + largest <= limit and text == text.rstrip():
        assert "".join(pieces) == text


@given(prose, st.integers(20, 80), measures)
def test_no_character_is_cut_that_fits(text: str, limit: int, measure: Measure) -> None:
    """Each end of a piece is an end of an extended grapheme cluster, as `regex` finds them."""
    pieces = split_message(text, limit, measure=measure)
    graphemes = [one for one in regex.findall(r"\X", text) if SIZES[measure](one) <= limit]

    assert inked("".join(pieces)) == inked(text)
    kept = [one for piece in pieces for one in regex.findall(r"\X", piece)]
    missing = [one for one in set(graphemes) if one.strip() and one not in kept]
    assert missing == []


@given(st.lists(st.sampled_from(["word ", "A sentence. ", "\n", "\n\n", "é😀"])).map("".join))
def test_pieces_of_a_text_that_grows_stay_as_they_are(text: str) -> None:
    """But for the last one: a bot edits one message, and sends the next."""
    pieces = split_message(text, 20)

    for length in range(len(text)):
        earlier = split_message(text[:length], 20)[:-1]
        assert earlier == pieces[: len(earlier)]


def blocks(text: str) -> list[tuple[str, str]]:
    """Return language and code of the fenced blocks, neighbours of one language joined."""
    found: list[tuple[str, str]] = []
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "fence" and token.content.strip():
            if found and found[-1][0] == token.info:
                found[-1] = (token.info, found[-1][1] + inked(token.content))
            else:
                found.append((token.info, inked(token.content)))
    return found


lines = st.text("abc d.é👍", min_size=1, max_size=60).map(lambda line: f"x{line}\n")
block = st.tuples(
    st.sampled_from(["```", "~~~", "`````", "  ```"]),
    st.sampled_from(["", "py", "c++ {1}"]),
    st.lists(st.one_of(lines, st.just("\n")), max_size=12),
).map(lambda made: f"{made[0]}{made[1]}\n{''.join(made[2])}{made[0]}\n")


@given(st.lists(st.one_of(lines, block, st.just("\n")), max_size=12).map("".join), measures)
def test_code_blocks_are_closed_and_reopened(text: str, measure: Measure) -> None:
    """A Markdown parser finds in the pieces the blocks of the text: same languages, same code."""
    pieces = split_message(text, 60, measure=measure)

    assert merged([pair for piece in pieces for pair in blocks(piece)]) == merged(blocks(text))


def merged(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join neighbours of one language."""
    joined: list[tuple[str, str]] = []
    for info, code in pairs:
        if joined and joined[-1][0] == info:
            joined[-1] = (info, joined[-1][1] + code)
        else:
            joined.append((info, code))
    return joined


def test_emoji_are_counted_as_telegram_counts_them() -> None:
    """Case C14: 3,000 emoji are 6,000 units, and two messages; none is cut in two."""
    text = "😀" * 3000

    pieces = split_message(text, 4096)

    assert [len(piece) for piece in pieces] == [2048, 952]
    assert "".join(pieces) == text
    assert [len(piece) for piece in split_message(text, 2000, measure="chars")] == [2000, 1000]


ENDS = {
    "a paragraph": ("One two.\n\nThree. Four five", 20, "One two.\n\n"),
    "a paragraph with blanks": ("One two.\n  \n\nThree. Four", 20, "One two.\n  \n\n"),
    "an early line": ("One.\nTwo three. Four five", 20, "One.\nTwo three. "),
    "a late line": ("One two three.\nFour. Five six", 20, "One two three.\n"),
    "a sentence": ('He said "no." Then he went', 20, 'He said "no." '),
    "a sentence without blanks": ("我们走吧。他说好的，然后我们就走了", 8, "我们走吧。"),
    "a word": ("one two three four", 12, "one two "),
    "a word that is short": ("a bcdefghijklmnop", 10, "a "),
    "anywhere": ("abcdefghijklmnop", 10, "abcdefghij"),
    "early paragraph": ("a\n\nbcdef ghijk lmnop", 16, "a\n\nbcdef ghijk "),
    "a line that ends with CR LF": ("one two\r\nthree four", 11, "one two\r\n"),
}


@pytest.mark.parametrize(("text", "limit", "first"), ENDS.values(), ids=ENDS)
def test_piece_ends_at_the_best_place(text: str, limit: int, first: str) -> None:
    """After a paragraph, line or sentence where it is half full by then, else after a word."""
    assert split_message(text, limit)[0] == first


FENCES = {
    "with its language": (
        "```py\nfirst = 1\nsecond = 2\n```\n",
        26,
        ["```py\nfirst = 1\n```", "```py\nsecond = 2\n```\n"],
    ),
    "of tildes": (
        "~~~\nfirst = 1\nsecond = 2\n~~~",
        22,
        ["~~~\nfirst = 1\n~~~", "~~~\nsecond = 2\n~~~"],
    ),
    "longer than a fence within": (
        "````\n```\nfirst = 1\n```\nsecond = 2\n````",
        28,
        ["````\n```\nfirst = 1\n```\n````", "````\nsecond = 2\n````"],
    ),
    "indented": (
        "- a\n  ```\n  first\n  second\n  ```",
        26,
        ["- a\n  ```\n  first\n  ```", "  ```\n  second\n  ```"],
    ),
    "moved whole": (
        "Some words here.\n\n```\nfirst = 1\n```",
        30,
        ["Some words here.\n\n", "```\nfirst = 1\n```"],
    ),
    "of one long line": (
        "```\nabcdefghijklmnopqrstuvwxyz\n```",
        24,
        ["```\nabcdefghijklmnop\n```", "```\nqrstuvwxyz\n```"],
    ),
    "left open": ("```\nfirst = 1\n", 40, ["```\nfirst = 1\n```"]),
    "left open, in mid-line": ("```\nfirst = 1", 40, ["```\nfirst = 1\n```"]),
    "too long for the limit": ("```averylonglanguage\nabcdef", 16, None),
    "no fence": ("a ```b``` c\n``` `x\nabc", 40, ["a ```b``` c\n``` `x\nabc"]),
}


@pytest.mark.parametrize(("text", "limit", "pieces"), FENCES.values(), ids=FENCES)
def test_fence_is_closed_and_reopened(text: str, limit: int, pieces: list[str] | None) -> None:
    """Each piece can be shown by itself; fences that leave no space are cut as any text."""
    found = split_message(text, limit)

    assert found == pieces or (pieces is None and "".join(found) == text)


def test_character_that_exceeds_the_limit_is_cut_between_code_points() -> None:
    """A letter under a hundred accents is nobody's character; a surrogate pair is never cut."""
    text = "e" + "\u0301" * 100 + "😀\U0001f3fd"

    pieces = split_message(text, 11)

    assert "".join(pieces) == text
    assert all(utf16_units(piece) <= 11 for piece in pieces)
    assert split_message("😀\U0001f3fd", 2) == ["😀", "\U0001f3fd"]


def test_blank_text_gives_no_message() -> None:
    """No platform accepts a message without a visible character."""
    assert split_message("", 10) == split_message(" \n\t" * 30, 10) == []
    assert split_message("a" + " " * 30 + "b", 10) == ["a" + " " * 9, " b"]


@pytest.mark.parametrize(("limit", "measure"), [(1, "utf16"), (0, "chars"), (10, "bytes")])
def test_limit_that_cannot_be_kept_is_an_error(limit: int, measure: Measure) -> None:
    """Before anything is cut."""
    with pytest.raises(ValueError, match="must be"):
        split_message("text", limit, measure=measure)


def test_long_text_is_cut_in_linear_time() -> None:
    """Half a million characters of code without a line end are no denial of service."""
    pieces = split_message("```\n" + "ab " * 170_000, 2000, measure="chars")

    assert len(pieces) > 250


def test_example_of_the_docstring_is_true() -> None:
    """`>>>` yields the line beneath it."""
    assert doctest.testmod(module).attempted == 2
    assert doctest.testmod(module).failed == 0


# --- messages that are edited in place


class FloodError(Exception):
    """The platform asks to retry later."""

    def __init__(self, retry_after: object) -> None:
        self.retry_after = retry_after


class Messages:
    """A chat: messages by their places, and errors that its next calls raise."""

    def __init__(self, *errors: Exception) -> None:
        self.texts: list[str] = []
        self.edits = 0
        self._errors = list(errors)

    async def send(self, text: str) -> int:
        """Send a message, and return its place."""
        self._fail()
        self.texts.append(text)
        return len(self.texts) - 1

    async def edit(self, place: int, text: str) -> None:
        """Edit a message."""
        self._fail()
        assert self.texts[place].strip() != text.strip()
        self.edits += 1
        self.texts[place] = text

    def _fail(self) -> None:
        if self._errors:
            raise self._errors.pop(0)


async def growing(text: str, *steps: int) -> AsyncIterator[str]:
    """Yield the text so far."""
    for step in steps:
        yield text[:step]
    yield text


async def test_messages_grow_in_place() -> None:
    """Nothing is edited that would look the same, and the whole text is there at the end."""
    chat = Messages()
    text = "A sentence to read.\n\n" * 20

    sent = await write_messages(growing(text, 10, 19, 20, 150), chat.send, chat.edit, 100)

    assert sent == list(range(len(chat.texts)))
    assert "".join(chat.texts) == text
    assert chat.edits == 3


@pytest.mark.parametrize(
    "errors",
    [
        pytest.param([FloodError(0)], id="first"),
        pytest.param([FloodError(0.0), FloodError(0)], id="twice"),
        pytest.param([FloodError(timedelta())], id="timedelta"),
    ],
)
async def test_message_is_sent_again_when_the_platform_asks_to_retry_later(
    errors: list[Exception],
) -> None:
    """Neither the first words nor the last are lost."""
    chat = Messages(*errors)

    await write_messages(growing("one two", 3), chat.send, chat.edit, 100)

    assert chat.texts == ["one two"]


@pytest.mark.parametrize("error", [LookupError(), FloodError(None)], ids=["other", "no-time"])
async def test_error_of_the_platform_is_raised(error: Exception) -> None:
    """One that names no time to retry is the caller's."""
    with pytest.raises(type(error)):
        await write_messages(growing("text"), *_calls(Messages(error)), 100)


def _calls(chat: Messages) -> tuple[Any, Any]:
    return chat.send, chat.edit
