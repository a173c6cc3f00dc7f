"""A plain polling server: runs that finish by themselves, some seconds after the first look.

How long a run takes is drawn evenly from its number. A finished run says in its metadata
when it finished, on the monotonic clock of the machine. `GET /v1/seen` tells the requests.
"""

from __future__ import annotations

import asyncio
import sys
import time

from tests.benchmarks import samples
from tests.benchmarks.servers.wire import Connection, Request, answer, serve

_ID, _WHEN = b"run_987654321", b"WHENFINISHED"


class Waits:
    """The handler."""

    def __init__(self, shortest: float, longest: float) -> None:
        """Let runs take from `shortest` to `longest` seconds."""
        self._shortest, self._span = shortest, longest - shortest
        self._finishes: dict[bytes, float] = {}
        self._requests = 0
        self._working = samples.encode(samples.run(987654321, "in_progress"))
        over = samples.run(987654321)
        over["metadata"] = {"finished": _WHEN.decode()}
        self._over = samples.encode(over)

    def __call__(self, request: Request, connection: Connection) -> bytes:
        """Answer a look at a run."""
        if request.path == b"/v1/seen":
            seen, self._requests = self._requests, 0
            self._finishes.clear()
            return answer(samples.encode({"requests": seen}))
        run_id = request.path.rpartition(b"/")[2]
        if run_id.startswith(b"run_warm"):
            return answer(self._working.replace(_ID, run_id))
        self._requests += 1
        now = time.monotonic()
        finishes = self._finishes.get(run_id)
        if finishes is None:
            number = int(run_id[4:])
            share = number * 0.6180339887498949 % 1  # even, and the same for every client
            finishes = self._finishes[run_id] = now + self._shortest + share * self._span
        if now < finishes:
            return answer(self._working.replace(_ID, run_id))
        when = b"%.6f" % finishes
        return answer(self._over.replace(_ID, run_id).replace(_WHEN, when))


if __name__ == "__main__":
    asyncio.run(serve(Waits(float(sys.argv[1]), float(sys.argv[2]))))
