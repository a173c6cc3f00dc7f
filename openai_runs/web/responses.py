"""The responses of a chat that are open, and how an application that ends has them end.

What may not live here: what becomes of the answers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import anyio

from openai_runs import relay
from openai_runs.web.frame_buffer import FrameBuffer

__all__ = ["Responses"]


class Responses:
    """The responses of one chat; they end without `done`, so that browsers come back."""

    def __init__(self) -> None:
        self.is_over = False
        """Whether they have to end."""
        self._buffers: set[FrameBuffer] = set()
        self._reads: set[anyio.CancelScope] = set()

    def add(self, buffer: FrameBuffer) -> None:
        """Have the response that sends this buffer end with the others."""
        self._buffers.add(buffer)

    def discard(self, buffer: FrameBuffer) -> None:
        """Forget a buffer whose answer has ended."""
        self._buffers.discard(buffer)

    def end(self) -> None:
        """End all responses, and those to come."""
        self.is_over = True
        for buffer in self._buffers:
            buffer.end()
        for scope in self._reads:
            scope.cancel()

    async def cut(self, frames: relay.Frames) -> AsyncGenerator[bytes]:
        """Yield the frames of a response, up to the end of all."""
        async with frames:
            while not self.is_over:
                frame = None
                with anyio.CancelScope() as scope:
                    self._reads.add(scope)
                    try:
                        frame = await anext(frames, None)
                    finally:
                        self._reads.discard(scope)
                if frame is None:
                    return
                yield frame
