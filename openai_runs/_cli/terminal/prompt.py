"""Where a person types: line editing and history, by prompt-toolkit."""

from collections.abc import Iterable
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.output import create_output
from prompt_toolkit.shortcuts import CompleteStyle

__all__ = ["Prompt"]

_MARK: Final = "> "


class Prompt:
    """Asks for one line after the other; what was typed is kept in memory alone.

    Args:
        commands: What a line may begin with, which Tab completes.
    """

    def __init__(self, commands: Iterable[str]) -> None:
        """Ask nothing yet."""
        self._history = InMemoryHistory()
        completer = WordCompleter(list(commands), sentence=True)
        self._session: PromptSession[str] = PromptSession(
            history=self._history,
            output=create_output(always_prefer_tty=True),  # standard output may be a file
            completer=completer,
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            reserve_space_for_menu=0,  # no empty lines below what is typed
        )

    def remember(self, texts: Iterable[str]) -> None:
        """Let earlier texts, the oldest first, be found with the arrow keys."""
        for text in texts:
            self._history.append_string(text)

    async def read(self) -> str | None:
        """Return what is typed; None at Ctrl-D.

        Cancellation: gives the terminal back.
        """
        while True:
            try:
                return await self._session.prompt_async(_MARK, handle_sigint=False)
            except KeyboardInterrupt:  # Ctrl-C gives up the line, and not the program
                continue
            except EOFError:
                return None
