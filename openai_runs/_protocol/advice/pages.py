"""What a web page says that came in place of an answer. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["is_page", "page_text"]

_NO_TEXT: Final = frozenset({"script", "style"})
"""Elements of a page that hold nothing for people."""


def is_page(content: bytes) -> bool:
    """Return whether a body is a web page.

    >>> is_page(b" <!DOCTYPE html>"), is_page(b'{"error": "<b>"}')
    (True, False)
    """
    return content[:64].lstrip()[:1] == b"<"


def page_text(page: str) -> str:
    """Return the title of a page, or all of its text where it has none.

    >>> page_text("<style>p {}</style><p class='a'>Bad <b>gateway</b>").split()
    ['Bad', 'gateway']
    """
    texts = []
    within = ""
    for piece in page.split("<"):
        tag, closed, text = piece.partition(">")
        name = tag.partition(" ")[0].lower()
        if name == "title" and text.strip():
            return text
        if name in _NO_TEXT:
            within = name
        elif name == f"/{within}":
            within = ""
        if closed and not within:
            texts.append(text)
    return " ".join(texts)
