"""The plain polling server behind a rate limit: so many requests a minute, as OpenAI counts.

The allowance refills steadily and can be used all at once after a rest. Each answer says
what remains, and a refusal how long to wait; refusals cost nothing.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time

from tests.benchmarks import samples
from tests.benchmarks.servers.waits import Waits
from tests.benchmarks.servers.wire import Connection, Request, answer, serve


class Limited(Waits):
    """The handler."""

    def __init__(self, per_minute: int, shortest: float, longest: float) -> None:
        """Allow so many requests a minute."""
        super().__init__(shortest, longest)
        self._limit = per_minute
        self._left, self._at = float(per_minute), time.monotonic()
        self._refused = 0

    def __call__(self, request: Request, connection: Connection) -> bytes:
        """Answer, or refuse."""
        now, rate = time.monotonic(), self._limit / 60
        self._left = min(self._limit, self._left + (now - self._at) * rate)
        self._at = now
        if request.path == b"/v1/seen":
            self._left = self._limit
            self.told, self._refused = {"refused": self._refused}, 0
            return super().__call__(request, connection)
        is_refused = self._left < 1
        if is_refused:
            self._refused += 1
        elif b"run_done" not in request.path:
            self._left -= 1
        self.headers = (
            f"x-ratelimit-limit-requests: {self._limit}\r\n"
            f"x-ratelimit-remaining-requests: {int(self._left)}\r\n"
            f"x-ratelimit-reset-requests: {(self._limit - self._left) / rate:.3f}s\r\n"
        )
        if not is_refused:
            return super().__call__(request, connection)
        after = math.ceil((1 - self._left) / rate)
        body = samples.encode({"error": {"message": "Rate limit reached", "code": "rate_limit"}})
        return answer(body, 429, f"{self.headers}Retry-After: {after}\r\n")


if __name__ == "__main__":
    asyncio.run(serve(Limited(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))))
