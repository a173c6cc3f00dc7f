"""What a `FaultProxy` can do to an answer; plain values."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

__all__ = [
    "Cut",
    "Delay",
    "End",
    "Fault",
    "Pass",
    "Refuse",
    "Reset",
    "Stall",
    "Trickle",
]


class _Partial(msgspec.Struct, frozen=True):
    """Strikes behind exactly `after` bytes of the decoded body; a shorter body passes whole.

    Chunk sizes do not count, so it is an offset into the text of an event stream.
    """

    after: int = 0

    def __post_init__(self) -> None:
        """Check the offset.

        Raises:
            ValueError: It is negative.
        """
        if self.after < 0:
            message = f"after={self.after!r} must not be negative"
            raise ValueError(message)


class Pass(msgspec.Struct, frozen=True):
    """This answer passes untouched."""


class Delay(msgspec.Struct, frozen=True):
    """This answer comes later."""

    seconds: float


class Refuse(msgspec.Struct, frozen=True):
    """The request is not forwarded: its connection is reset, and the server never sees it.

    Without `on` it strikes the next request, whatever it is.
    """


class Cut(_Partial, frozen=True):
    """The connection closes (FIN) in mid-body; the client sees an incomplete answer."""

    after: int = 0
    """Bytes of the decoded body that come before; 0: only the headers."""


class End(_Partial, frozen=True):
    """The answer ends early as if it were complete, then the connection closes.

    The client sees no fault in HTTP, only too few events. An answer with `Content-Length` cannot
    end so; it is cut. The headers get `Connection: close`.
    """

    after: int = 0
    """Bytes of the decoded body that come before; 0: only the headers."""


class Reset(_Partial, frozen=True):
    """The connection is reset (RST) in mid-body.

    A client that has not read what came before may lose it, as with any reset.
    """

    after: int = 0
    """Bytes of the decoded body that come before; 0: only the headers."""


class Stall(_Partial, frozen=True):
    """Nothing more comes in mid-body, while the connection stays open."""

    after: int = 0
    """Bytes of the decoded body that come before; 0: only the headers."""
    seconds: float | None = None
    """Then the rest follows. None: nothing follows until the client or the proxy closes."""


class Trickle(msgspec.Struct, frozen=True):
    """The body comes one byte at a time, its chunk sizes as well."""

    pause: float = 0.0
    """Seconds before each byte."""


Fault: TypeAlias = Pass | Delay | Refuse | Cut | End | Reset | Stall | Trickle
"""What `FaultProxy.plan` takes."""
