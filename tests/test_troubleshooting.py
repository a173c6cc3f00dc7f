"""The page on troubleshooting quotes what is really printed, and leaves no common mistake out."""

import re
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.test_mistakes import TEXTS

PAGE: Final = Path(__file__).resolve().parents[1] / "docs/pages/guides/troubleshooting.md"
LEFT_OUT: Final = {
    "$ Ctrl-C in ask": "no mistake: the command was interrupted on purpose",
    "$ Ctrl-C in runs wait": "the same, and nothing is printed",
    "$ Ctrl-C in batch run": "the same; guides/batch.md says how it is stopped",
    "$ Ctrl-C in export": "the same, and nothing is printed",
    "$ Ctrl-C in demo": "the same, and nothing is printed",
    "$ Ctrl-C in serve": "the same; guides/server.md says how it stops",
}
"""Heading in `mistakes.txt` -> why the page has no entry for it."""


def entries() -> dict[str, str]:
    """Return what stands under each heading of the page that is an entry."""
    parts = re.split(r"^### (.+)\n", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def quoted() -> list[str]:
    """Return the texts of the page, one after the other; a blank line divides those of a block."""
    blocks = re.findall(r"^```text\n(.+?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [text.strip() for block in blocks for text in block.split("\n\n")]


def test_quoted_texts_are_printed() -> None:
    """Whoever searches the page for what a terminal shows finds it, letter by letter."""
    assert quoted()
    assert [text for text in quoted() if text not in TEXTS.values()] == []


def test_each_mistake_is_explained_once() -> None:
    """Every mistake has its text on the page once, or a reason why it has none."""
    times = Counter(quoted())

    assert {name for name, text in TEXTS.items() if times[text] != 1} == set(LEFT_OUT)


@pytest.mark.parametrize("heading", entries())
def test_entry_says_what_to_do(heading: str) -> None:
    """No entry is a text alone: behind it stands what it means and what to do."""
    said = re.split(r"^## ", entries()[heading], flags=re.MULTILINE)[0].rpartition("```\n")[2]

    assert len(said.split()) > 8
