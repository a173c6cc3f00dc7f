"""A server to be killed: serves the file it is told, prints its URL, and waits for the end.

Arguments: the file, or URL, of the database; how many runs at once; how often the clock may be
looked at before it kills the process (0: as often as you like); the port, if not any; a file that
holds up runs. The clock is looked at before each write.

What the model does is said by the question: "hang" writes half a sentence and never ends,
"tool" calls a tool, "call" takes ten seconds for that, "slow" takes its time, "long" says a
long text in many pieces, "pause" answers after half a second, "held" once that file is not there
(any more), "seconds" says its text for three, anything else is answered. "die", "exit" and "fault"
end the process as soon as the model is asked, "die late" after the first words.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial

import anyio

from openai_runs.server import (
    Call,
    CallTools,
    Hang,
    LocalServer,
    ModelEvent,
    ModelRequest,
    Say,
    ScriptedBackend,
    ScriptedTurn,
    SystemClock,
    TextDelta,
)


def script(request: ModelRequest) -> ScriptedTurn:
    """Return the turn that the question asks for."""
    match request.question:
        case "hang":
            return Hang("Half a")
        case "tool" if not request.turns:
            return CallTools([Call("weather", {"city": "Oslo"})])
        case "call":
            calls = [Call("weather", {"city": "O" * 2000})]
            return CallTools(calls, "Let me see.", chunk=11, pause=0.05)
        case "long":
            return Say([f"word {number} " for number in range(300)], pause=0.01)
        case "pause":
            return Say("Answered.", delay=0.5)
        case "seconds":
            return Say([f"word {number} " for number in range(30)], pause=0.1)
        case "die":
            signal.raise_signal(signal.SIGKILL)
        case "exit":
            os._exit(1)
        case "fault":
            signal.raise_signal(signal.SIGSEGV)
    return Say("Answered.", delay=0.01 if request.question == "slow" else 0)


class FatalBackend(ScriptedBackend):
    """Follows the script, or kills the process after the first words."""

    def __init__(self, held: str) -> None:
        super().__init__(script)
        self._held = anyio.Path(held) if held else None

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Answer one model call, or do not return."""
        if request.question == "die late":
            yield TextDelta("Half a")
            await anyio.sleep(0.3)  # so that it is stored
            signal.raise_signal(signal.SIGKILL)
        if request.question == "held" and self._held is not None:
            while await self._held.exists():  # noqa: ASYNC110 - nobody announces that
                await anyio.sleep(0.02)
        async for event in super().respond(request):
            yield event


class FatalClock(SystemClock):
    """A clock that kills who looks at it too often."""

    def __init__(self, looks: int) -> None:
        self._looks = looks

    def now(self) -> float:
        """Return Unix seconds, or do not return."""
        self._looks -= 1
        if self._looks == 0:
            signal.raise_signal(signal.SIGKILL)
        return super().now()


async def main(arguments: list[str], ready: Callable[[str], object]) -> None:
    """Serve until killed, or until SIGTERM: then drain and end. `ready` is called with the URL."""
    server = LocalServer(
        arguments[0],
        FatalBackend(arguments[4] if len(arguments) > 4 else ""),
        max_concurrent_runs=int(arguments[1]),
        clock=FatalClock(int(arguments[2])),
        port=int(arguments[3]) if len(arguments) > 3 else 0,
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.start()
    ready(server.url)
    await stop.wait()
    await server.drain(0.2)
    await server.aclose()


if __name__ == "__main__":
    # How the test learns where it is.
    asyncio.run(main(sys.argv[1:], partial(print, flush=True)))
