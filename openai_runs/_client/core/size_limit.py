"""How much of one run may be received: bytes, and what they take in memory once they are parsed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from openai_runs._protocol.sse import Frame
from openai_runs.config import ELEMENT_COST, MAX_STREAM_BYTES, OBJECT_COST

__all__ = ["SizeLimit"]


class SizeLimit:
    """What was received of one run, over all connections, and the most it may be."""

    def __init__(self, max_bytes: int | None = None) -> None:
        """Begin with nothing; None: the default limit."""
        self.max_bytes = MAX_STREAM_BYTES if max_bytes is None else max_bytes
        self._received = self._before = 0

    @property
    def is_exceeded(self) -> bool:
        """Return whether more was received than may be kept."""
        return self._received > self.max_bytes

    def add(self, data: bytes, objects: int) -> None:
        """Count a piece of JSON, or of a stream of it, that holds this many objects."""
        self._before = self._received
        self._received += _cost(data, objects)

    def within(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Return those events of the last piece that are within the limit."""
        if not self.is_exceeded:
            return frames
        used = accumulate(_cost(frame.data, 1) for frame in frames)
        left = self.max_bytes - self._before
        return [one for one, total in zip(frames, used, strict=True) if total <= left]


def _cost(data: bytes, objects: int) -> int:
    """Return the bytes of this JSON, or what it takes in memory where that is clearly more.

    Tiny objects take more memory than bytes. Each element of an object or an array but the first
    stands behind a comma.

    >>> _cost(b"[{},{},{}]", 1), _cost(b"x" * 1000, 1)
    (400, 1000)
    """
    return max(len(data), objects * OBJECT_COST, data.count(b",") * ELEMENT_COST)
