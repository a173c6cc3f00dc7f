"""The backend that follows a script: for tests, of this package and of its users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import anyio
import msgspec

from openai_runs.server.backends.base import (
    Finish,
    FinishReason,
    ModelEvent,
    ModelFailure,
    ModelRequest,
    TextDelta,
    ToolCallDelta,
)
from openai_runs.types.runs import Usage

__all__ = ["Call", "CallTools", "Cut", "Fail", "Hang", "Say", "ScriptedBackend", "ScriptedTurn"]

_USAGE = Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15)
"""What a scripted model call is said to have used."""


class Say(msgspec.Struct, frozen=True):
    """The model says this text."""

    text: str | list[str]
    """A list: piece by piece, each of which a stream sends by itself."""
    delay: float = 0.0
    """Seconds before the first word."""
    usage: Usage = _USAGE
    chunk: int = 0
    """Characters of a piece; 0: not cut."""
    pause: float = 0.0
    """Seconds between two pieces."""


class Call(msgspec.Struct, frozen=True):
    """One tool call."""

    name: str
    arguments: Mapping[str, Any] | str = {}
    """A mapping, or the JSON text itself, which may be broken."""
    id: str = ""
    """Empty: the server makes one."""


class CallTools(msgspec.Struct, frozen=True):
    """The model asks for these tool calls, all at once."""

    calls: list[Call]
    text: str | list[str] = ""
    """What it says along with them; a list: piece by piece."""
    delay: float = 0.0
    """Seconds before it asks."""
    usage: Usage = _USAGE
    chunk: int = 0
    """Characters of a piece of the text and of the arguments; 0: not cut."""
    pause: float = 0.0
    """Seconds between two pieces."""


class Fail(msgspec.Struct, frozen=True):
    """The model call fails; the run ends `failed`."""

    message: str = "The scripted model failed."
    code: str = "server_error"
    """`server_error`, `rate_limit_exceeded` or `invalid_prompt`."""
    text: str | list[str] = ""
    """What it said before; a list: piece by piece."""
    delay: float = 0.0
    """Seconds before it fails."""


class Cut(msgspec.Struct, frozen=True):
    """The model meets a limit; the run ends `incomplete`, or `failed` for a filter."""

    text: str | list[str] = ""
    """What it said before; a list: piece by piece."""
    reason: str = FinishReason.LENGTH
    """One of `FinishReason`."""
    delay: float = 0.0
    """Seconds before the first word."""
    usage: Usage = _USAGE


class Hang(msgspec.Struct, frozen=True):
    """The model never ends; the run is cancelled, expires, or waits for the server to stop."""

    text: str | list[str] = ""
    """What it said before; a list: piece by piece."""


ScriptedTurn: TypeAlias = Say | CallTools | Fail | Cut | Hang | str


class ScriptedBackend:
    """Answers each model call with the next turn of a script.

    Args:
        script: Turns, used in order over all runs, or a function from the request to a turn,
            which is asked each time. A plain text is `Say(text)`. A list that is used up
            fails the runs that come after.
    """

    def __init__(
        self, script: Iterable[ScriptedTurn] | Callable[[ModelRequest], ScriptedTurn] = ()
    ) -> None:
        """Keep the script."""
        self._choose = script if callable(script) else None
        self._turns = [] if callable(script) else list(script)
        self.requests: list[ModelRequest] = []
        """The model calls made so far."""

    def __repr__(self) -> str:
        left = "a function" if self._choose is not None else f"{len(self._turns)} turns left"
        return f"<ScriptedBackend: {left}, {len(self.requests)} calls made>"

    def add(self, *turns: ScriptedTurn) -> None:
        """Put more turns at the end of the script.

        Args:
            *turns: What the model does at the calls to come; a text is said.

        Raises:
            TypeError: The script is a function.
        """
        if self._choose is not None:
            message = "a script that is a function takes no more turns"
            raise TypeError(message)
        self._turns.extend(turns)

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Answer one model call.

        Args:
            request: The run, its messages and functions.

        Raises:
            ModelFailure: The script says so, or has no turn left.

        Cancellation: ends the turn.
        """
        self.requests.append(request)
        turn = self._next(request)
        if not isinstance(turn, Hang):
            await anyio.sleep(turn.delay)
        chunk, pause = (0, 0.0)
        if isinstance(turn, Say | CallTools):
            chunk, pause = turn.chunk, turn.pause
        for number, delta in enumerate(_deltas(turn, chunk)):
            if number:
                await anyio.sleep(pause)
            yield delta
        match turn:
            case Say() | CallTools():
                yield Finish(usage=turn.usage)
            case Cut():
                yield Finish(reason=turn.reason, usage=turn.usage)
            case Fail():
                raise ModelFailure(turn.message, code=turn.code)
            case Hang():
                await anyio.sleep_forever()

    def _next(self, request: ModelRequest) -> Say | CallTools | Fail | Cut | Hang:
        if self._choose is not None:
            turn = self._choose(request)
        elif self._turns:
            turn = self._turns.pop(0)
        else:
            turn = Fail("The script has no more turns.")
        return Say(turn) if isinstance(turn, str) else turn


def _deltas(turn: Say | CallTools | Fail | Cut | Hang, chunk: int) -> Iterator[ModelEvent]:
    pieces = [turn.text] if isinstance(turn.text, str) else turn.text
    for piece in pieces:
        yield from (TextDelta(cut) for cut in _cut(piece, chunk))
    if isinstance(turn, CallTools):
        for index, call in enumerate(turn.calls):
            arguments = call.arguments
            if not isinstance(arguments, str):
                arguments = msgspec.json.encode(arguments).decode()
            first, *more = _cut(arguments, chunk) or [""]
            yield ToolCallDelta(index=index, id=call.id, name=call.name, arguments=first)
            yield from (ToolCallDelta(index=index, arguments=cut) for cut in more)


def _cut(text: str, chunk: int) -> list[str]:
    """Return the text in pieces of this many characters; 0: whole, and nothing of nothing."""
    size = chunk or len(text) or 1
    return [text[at : at + size] for at in range(0, len(text), size)]
