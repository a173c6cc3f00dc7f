"""Bearer tokens that a command prints, such as `az account get-access-token`."""

import shlex
import time
from typing import Final

import anyio

from openai_runs import ConfigError
from openai_runs._cli.ending import USAGE, Stop

__all__ = ["TokenCommand"]

_KEPT: Final = 60.0
"""Seconds for which a token is used before the command is asked again; tokens live an hour."""
_SHOWN: Final = 200
"""Characters of what a failed command said."""


class TokenCommand:
    """Returns the token that a command prints, asked anew from time to time."""

    def __init__(self, command: str) -> None:
        """Take the command; it is run without a shell.

        Raises:
            Stop: It is no command.
        """
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            sentence = f"--token-command cannot be parsed: {error}"
            raise Stop(sentence, USAGE) from error
        if not self._words:
            sentence = "--token-command is empty"
            raise Stop(sentence, USAGE)
        self._lock = anyio.Lock()
        self._token = ""
        self._asked_at = 0.0

    async def __call__(self) -> str:
        """Return a token.

        Raises:
            ConfigError: The command failed, or printed none.
        """
        async with self._lock:
            if not self._token or time.monotonic() - self._asked_at > _KEPT:
                self._token = await self._ask()
                self._asked_at = time.monotonic()
            return self._token

    async def _ask(self) -> str:
        name = self._words[0]
        try:
            done = await anyio.run_process(self._words, check=False)
        except OSError as error:
            message = f"--token-command: {name} cannot be started ({error.strerror})"
            raise ConfigError(message) from error
        token = done.stdout.decode("utf-8", "replace").strip()
        if done.returncode or not token or not (token.isascii() and token.isprintable()):
            said = done.stderr.decode("utf-8", "replace").strip()[:_SHOWN]
            message = f"--token-command: {name} gave no token (exit code {done.returncode}): {said}"
            raise ConfigError(message)
        return token
