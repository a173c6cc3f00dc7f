"""A server to be killed: serves the file it is told, prints its URL, and waits for the end.

Arguments: the file, how many runs at once, and how often the clock may be looked at before
it kills the process (0: as often as you like). The clock is looked at before each write.

What the model does is said by the question: "hang" writes half a sentence and never ends,
"tool" calls a tool, "call" takes ten seconds for that, "slow" takes its time, "long" says a
long text in many pieces, anything else is answered.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from openai_runs.server import (
    Call,
    CallTools,
    Hang,
    LocalServer,
    ModelRequest,
    Say,
    ScriptedBackend,
    ScriptedTurn,
    SystemClock,
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
        case "die":
            signal.raise_signal(signal.SIGKILL)
    return Say("Answered.", delay=0.01 if request.question == "slow" else 0)


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


async def main() -> None:
    """Serve until killed, or until SIGTERM: then drain and end."""
    server = LocalServer(
        sys.argv[1],
        ScriptedBackend(script),
        max_concurrent_runs=int(sys.argv[2]),
        clock=FatalClock(int(sys.argv[3])),
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.start()
    print(server.url, flush=True)  # noqa: T201 - how the test learns where it is
    await stop.wait()
    await server.drain(0.2)
    await server.aclose()


if __name__ == "__main__":
    asyncio.run(main())
