"""A server whose answers are made beforehand: runs, pages and streams.

The thread's id says how a stream is sent: `thread_body` in one body, `thread_chunks` one
HTTP chunk an event, `thread_timed` one event each millisecond.
"""

from __future__ import annotations

import asyncio
import sys

from tests.benchmarks import samples
from tests.benchmarks.servers.wire import Connection, Request, answer, serve

_RUNS = b"/v1/threads/thread_1/runs"
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
_CHUNKED = _STREAM + b"Transfer-Encoding: chunked\r\n\r\n"


class Canned:
    """The handler."""

    def __init__(self, deltas: int) -> None:
        """Make all answers; streams have so many deltas."""
        hundred = range(100)
        self._got = {
            _RUNS + b"/run_1": answer(samples.encode(samples.run(1))),
            _RUNS: answer(samples.encode(samples.page([samples.run(n) for n in hundred]))),
            _RUNS + b"/run_1/steps": answer(
                samples.encode(samples.page([samples.step(n) for n in hundred]))
            ),
        }
        self._created = answer(samples.encode(samples.run(1, "queued")))
        told = samples.events(deltas)
        whole = b"".join(told)
        self._chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in told] + [b"0\r\n\r\n"]
        self._streams = {
            b"/v1/threads/thread_body/runs": (
                _STREAM + b"Content-Length: %d\r\n\r\n" % len(whole) + whole
            ),
            b"/v1/threads/thread_chunks/runs": _CHUNKED + b"".join(self._chunks),
        }

    def __call__(self, request: Request, connection: Connection) -> bytes | None:
        """Answer by the path alone."""
        if request.method == b"GET":
            return self._got.get(request.path) or answer(b'{"error":{"message":"no route"}}', 404)
        if request.path == _RUNS:
            return self._created
        if request.path in self._streams:
            return self._streams[request.path]
        connection.transport.write(_CHUNKED)
        self._send(connection, 0, asyncio.get_running_loop().time())
        return None

    def _send(self, connection: Connection, number: int, began: float) -> None:
        """Send the events that are due, and come back for the next."""
        loop = asyncio.get_running_loop()
        while number < len(self._chunks) and began + number / 1000 <= loop.time():
            connection.transport.write(self._chunks[number])
            number += 1
        if number < len(self._chunks):
            loop.call_at(began + number / 1000, self._send, connection, number, began)


if __name__ == "__main__":
    asyncio.run(serve(Canned(int(sys.argv[1]))))
