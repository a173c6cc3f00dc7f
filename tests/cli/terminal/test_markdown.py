"""Markdown as models write it, on a terminal: all of it, and block by block."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from openai_runs._cli.terminal.markdown import THEME, AnswerMarkdown, split_blocks

TEXTS = {
    "plain": "One line.\nAnother line.",
    "headings": "# One\n\nText.\n\n## Two\n\nMore\n====\n\nEnd.",
    "list": "1. one\n2. two\n   - nested\n\n3. three\n\nThen.",
    "code": "Before:\n\n```python\ndef f(x):\n\n    return x * 2\n```\n\nAfter.",
    "open code": "Before:\n\n```\nfirst\n\nsecond",
    "table": "| a | b |\n| --- | --- |\n| one | two |\n\nAfter.",
    "quote": "> said\n> twice\n\nAfter.",
    "html": "List<int> and <b>bold</b>.\n\n<details>\nhidden\n</details>\n\n<think>why</think>",
    "links": "See [the page](https://example.test/a) and ![a picture](https://example.test/b).",
    "references": "[1]: https://example.test/c\n\nAs in [1].",
    "escapes": "\\x1b]0;title\\x07 and \\*stars\\*",
    "wide": "世界 🌍 " * 60,
    "no end": "- a\n\n-",
    "separators": "a\u2028b\x0bc\n\nd",
}


def shown(text: str, width: int = 80) -> str:
    """Return what is printed, without styles."""
    console = Console(theme=THEME, width=width, emoji=False, markup=False)
    with console.capture() as captured:
        console.print(AnswerMarkdown(text), end="")
    return re.sub(r"\x1b\[[0-9;]*m", "", captured.get())


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_word_is_left_out(text: str) -> None:
    """HTML, pictures and the addresses of links are shown too."""
    words = re.findall(r"\w+", re.sub(r"```\w*", "", text).replace("\\x", "\\\\x"))
    printed = shown(text)

    assert [word for word in words if word not in printed] == []


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_lines_fit_and_have_no_spaces_behind(text: str) -> None:
    """What is copied from the screen is the text alone."""
    console = Console(width=40)
    lines = shown(text, width=40).split("\n")

    assert [line for line in lines if line != line.rstrip(" ")] == []
    assert [line for line in lines if console.measure(line).maximum > 40] == []


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_blocks_are_the_text_however_it_comes(text: str) -> None:
    """Nothing is lost where it is split, and what was split off is never split otherwise later."""
    printed, pending = "", ""
    for piece in text:
        pending += piece
        done, rest = split_blocks(pending)
        assert done + rest == pending
        printed, pending = printed + done, rest

    assert printed + pending == text
    blocks = [block for block in (printed, pending) if block.strip()]
    assert "".join("".join(map(shown, blocks)).split()) == "".join(shown(text).split())


def test_lines_end_where_the_model_ended_them() -> None:
    """A poem is no paragraph."""
    assert shown("Roses are red,\nViolets are blue.") == "Roses are red,\nViolets are blue.\n"


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_empty_lines_are_around_a_block(text: str) -> None:
    """Blocks that are printed one by one have one line between them, whatever they are."""
    assert shown(text).strip("\n") + "\n" == shown(text)
