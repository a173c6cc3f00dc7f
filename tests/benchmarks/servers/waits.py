"""A plain polling server: runs that finish by themselves, some seconds after the first look.

How long a run takes is drawn evenly from its number. Runs whose id begins with `run_done` are
finished and not counted. `GET /v1/seen` tells the requests since it was last asked, and when
each run finished, on the monotonic clock of the machine.
"""

from __future__ import annotations

import asyncio
import sys
import time

from tests.benchmarks import samples
from tests.benchmarks.servers.wire import Connection, Request, answer, serve

_ID = b"run_987654321"


class Waits:
    """The handler."""

    def __init__(self, shortest: float, longest: float) -> None:
        """Let runs take from `shortest` to `longest` seconds."""
        self._shortest, self._span = shortest, longest - shortest
        self._finishes: dict[bytes, float] = {}
        self._requests = 0
        self.headers = ""
        """Whole lines that every answer has."""
        self.told: dict[str, int] = {}
        """What else is told to who asks what was seen."""
        self._working = samples.encode(samples.run(987654321, "in_progress"))
        self._over = samples.encode(samples.run(987654321))

    def __call__(self, request: Request, connection: Connection) -> bytes:
        """Answer a look at a run."""
        if request.path == b"/v1/seen":
            finished = {run_id.decode(): at for run_id, at in self._finishes.items()}
            seen = {"requests": self._requests, "finished": finished, **self.told}
            self._requests, self._finishes = 0, {}
            return answer(samples.encode(seen))
        run_id = request.path.rpartition(b"/")[2]
        if run_id.startswith(b"run_done"):
            return answer(self._over.replace(_ID, run_id), headers=self.headers)
        self._requests += 1
        now = time.monotonic()
        finishes = self._finishes.get(run_id)
        if finishes is None:
            number = int(run_id[4:])
            share = number * 0.6180339887498949 % 1  # even, and the same for every client
            finishes = self._finishes[run_id] = now + self._shortest + share * self._span
        told = self._working if now < finishes else self._over
        return answer(told.replace(_ID, run_id), headers=self.headers)


if __name__ == "__main__":
    asyncio.run(serve(Waits(float(sys.argv[1]), float(sys.argv[2]))))
