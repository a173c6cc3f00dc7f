"""What is sent to one browser, between the task that answers and the one that sends.

The answer never waits for a browser: one that has left, or that reads too slowly, is sent no
more, and the answer goes on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

import anyio

from openai_runs.config import CHAT_BUFFER_BYTES

__all__ = ["FrameBuffer", "frames_of"]

_OPEN: Final = b": open\n\n"
"""Sends the headers on their way, and no event."""
_COMMENT: Final = b": keep-alive\n\n"


class FrameBuffer:
    """Bytes that wait for one browser, up to `CHAT_BUFFER_BYTES`.

    Where more would wait it ends early: the browser, which has seen no `done`, comes back for
    the rest with the id of the last event that it has seen.
    """

    def __init__(self, *, cancels: bool) -> None:
        self.scope = anyio.CancelScope()
        """What the answer is made in."""
        self.is_open = anyio.Event()
        """Set once there is something to send, or an error in its place."""
        self.error: Exception | None = None
        """What went wrong before there was anything to send."""
        self.sent_error: Exception | None = None
        """What `relay.sse` has sent as a frame, and logged."""
        self._cancels = cancels
        self._chunks: list[bytes] = []
        self._waiting_bytes = 0
        self._is_over = False
        self._changed = anyio.Event()

    def put(self, chunk: bytes) -> None:
        """Have bytes sent, or dropped where the browser takes no more."""
        if self._is_over:
            return
        if self._waiting_bytes + len(chunk) > CHAT_BUFFER_BYTES:
            self.end()
            return
        self._waiting_bytes += len(chunk)
        self._chunks.append(chunk)
        self._wake()

    def fail(self, error: Exception, frame: bytes) -> None:
        """End with an error: raised where nothing was sent yet, else as its frame."""
        if not self.is_open.is_set():
            self.error = error
        self.put(frame)
        self.end()

    def end(self) -> None:
        """Have no more sent than what waits."""
        self._is_over = True
        self._wake()

    def leave(self) -> None:
        """Note that the browser has left; the answer is cancelled where it shall be."""
        self._chunks.clear()
        is_cut = not self._is_over
        self.end()
        if self._cancels and is_cut:
            self.scope.cancel()

    async def next(self, within: float) -> bytes | None:
        """Return all that waits, as soon as there is any; None at the end.

        Args:
            within: Seconds after which nothing is returned, where nothing comes.
        """
        if not self._chunks and not self._is_over:
            self._changed = anyio.Event()
            with anyio.move_on_after(within):
                await self._changed.wait()
        chunk = b"".join(self._chunks)
        self._chunks.clear()
        self._waiting_bytes = 0
        return None if self._is_over and not chunk else chunk

    def _wake(self) -> None:
        self.is_open.set()
        self._changed.set()


async def frames_of(buffer: FrameBuffer, heartbeat: float) -> AsyncGenerator[bytes]:
    """Yield what a browser is sent; nothing first, so that a generator nobody reads is begun."""
    try:
        yield b""
        yield _OPEN
        while (chunk := await buffer.next(heartbeat)) is not None:
            yield chunk or _COMMENT
    finally:
        buffer.leave()
