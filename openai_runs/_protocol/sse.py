"""Bytes of a stream: server-sent events, written and read.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6.
"""

from __future__ import annotations

__all__ = ["COMMENT", "encode"]

COMMENT = b": keep-alive\n\n"
"""What tells a reader that somebody is still there."""


def encode(event: str, data: bytes, *, id: str = "") -> bytes:
    """Return one event as it is sent; `data` is one line, as JSON always is.

    >>> encode("done", b"[DONE]")
    b'event: done\\ndata: [DONE]\\n\\n'
    """
    place = f"id: {id}\n" if id else ""
    return f"event: {event}\n{place}data: ".encode() + data + b"\n\n"
