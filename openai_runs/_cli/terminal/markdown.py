"""Markdown on a terminal, as models write it.

The terminal's own colours, bold and underlines only, so that it can be read on light and on dark.
Nothing that was written is left out: HTML is shown as it is, and a line break stays one.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement
from rich.padding import Padding
from rich.segment import Segment
from rich.text import Text
from rich.theme import Theme

__all__ = ["THEME", "AnswerMarkdown", "split_blocks"]

_PARSER: Final = (
    MarkdownIt()
    .enable(["strikethrough", "table"])
    .disable(["html_block", "html_inline", "image", "reference"])
)
"""What is switched off would leave something out of what is shown."""
THEME: Final = Theme(
    {
        "markdown.block_quote": "italic",
        "markdown.code": "bold",
        "markdown.h1": "bold underline",
        "markdown.h2": "bold underline",
        "markdown.h3": "bold",
        "markdown.h4": "bold",
        "markdown.item.number": "bold",
        "markdown.link": "underline",
        "markdown.link_url": "none",
        "markdown.list": "none",
        "markdown.table.border": "none",
        "markdown.table.header": "bold",
    }
)
"""In place of rich's colours, some of which cannot be read on a light background."""
_CODE_INDENT: Final = 2
"""Columns before a line of code."""


class _Heading(Heading):
    """A heading at the left, where the text begins."""

    LEVEL_ALIGN: ClassVar = {**Heading.LEVEL_ALIGN, "h1": "left"}


class _Code(CodeBlock):
    """Code as it is: no colours, and no spaces behind a line that is copied."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines, indented; a long one is broken anywhere."""
        text = Text(str(self.text).rstrip(), overflow="fold")
        yield Padding(text, (0, 0, 0, _CODE_INDENT), expand=False)


class AnswerMarkdown(Markdown):
    """A text to be printed."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _Code,
        "code_block": _Code,
    }

    def __init__(self, text: str) -> None:
        """Parse `text`, which holds no control characters."""
        super().__init__("", hyperlinks=False)  # an address is shown, and can be copied
        self.markup = text
        self.parsed = _PARSER.parse(text)
        _keep_line_breaks(self.parsed)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines; the spaces that fill them up, and empty ones around, are left out."""
        rendered: Any = super().__rich_console__(console, options)  # segments alone
        lines = [_without_filling(line) for line in Segment.split_lines(rendered)]
        filled = [number for number, line in enumerate(lines) if line]
        for line in lines[filled[0] : filled[-1] + 1] if filled else []:
            yield from line
            yield Segment.line()


def split_blocks(text: str) -> tuple[str, str]:
    r"""Return the blocks of `text` that no further text changes, and the rest.

    >>> split_blocks("# Title\n\nFirst.\n\n- one\n- two")
    ('# Title\n\nFirst.\n', '\n- one\n- two')
    """
    *whole, _ = text.split("\n")  # a line that is not ended may become anything
    tops = [token.map for token in _PARSER.parse("\n".join(whole)) if not token.level]
    begin = max((lines[0] for lines in tops if lines), default=0)
    end = max((lines[1] for lines in tops if lines and lines[1] <= begin), default=0)
    done = "".join(f"{line}\n" for line in whole[:end])
    return done, text[len(done) :]


def _without_filling(line: Sequence[Segment]) -> Sequence[Segment]:
    """Return the line without the spaces at its end."""
    kept = list(line)
    while kept and not kept[-1].text.rstrip(" "):
        kept.pop()
    if kept:
        kept[-1] = Segment(kept[-1].text.rstrip(" "), kept[-1].style)
    return kept


def _keep_line_breaks(tokens: Sequence[Token]) -> None:
    """Let a line that ends in the source end on the screen."""
    for token in tokens:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"
