"""The backend that follows a script: for tests, of this package and of its users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
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

    text: str
    delay: float = 0.0
    """Seconds before the first word."""
    usage: Usage = _USAGE


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
    text: str = ""
    """What it says along with them."""
    delay: float = 0.0
    """Seconds before it asks."""
    usage: Usage = _USAGE


class Fail(msgspec.Struct, frozen=True):
    """The model call fails; the run ends `failed`."""

    message: str = "The scripted model failed."
    code: str = "server_error"
    """`server_error`, `rate_limit_exceeded` or `invalid_prompt`."""
    text: str = ""
    """What it said before."""
    delay: float = 0.0
    """Seconds before it fails."""


class Cut(msgspec.Struct, frozen=True):
    """The model meets a limit; the run ends `incomplete`, or `failed` for a filter."""

    text: str = ""
    """What it said before."""
    reason: str = FinishReason.LENGTH
    """One of `FinishReason`."""
    delay: float = 0.0
    """Seconds before the first word."""
    usage: Usage = _USAGE


class Hang(msgspec.Struct, frozen=True):
    """The model never ends; the run is cancelled, expires, or waits for the server to stop."""

    text: str = ""
    """What it said before."""


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

    def add(self, *turns: ScriptedTurn) -> None:
        """Put more turns at the end of the script.

        Raises:
            TypeError: The script is a function.
        """
        if self._choose is not None:
            message = "a script that is a function takes no more turns"
            raise TypeError(message)
        self._turns.extend(turns)

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Answer one model call."""
        self.requests.append(request)
        turn = self._next(request)
        if not isinstance(turn, Hang):
            await anyio.sleep(turn.delay)
        if turn.text:
            yield TextDelta(turn.text)
        match turn:
            case Say() | CallTools():
                for delta in _calls(turn):
                    yield delta
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


def _calls(turn: Say | CallTools) -> list[ToolCallDelta]:
    if isinstance(turn, Say):
        return []
    return [
        ToolCallDelta(
            index=index,
            id=call.id,
            name=call.name,
            arguments=(
                call.arguments
                if isinstance(call.arguments, str)
                else msgspec.json.encode(call.arguments).decode()
            ),
        )
        for index, call in enumerate(turn.calls)
    ]
