"""Compressed request bodies: which there may be, and their text, in bounded steps.

Only here are they inflated, once somebody has decided that the request may be read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Final

import anyio.lowlevel

from openai_runs.server.api_errors import Refusal, invalid, too_large

__all__ = ["content_encoding", "inflate"]

_STEP_BYTES: Final = 64 * 1024
"""Bytes that go in, and come out, between two moments for others: less than a millisecond."""
_MAX_MEMBERS: Final = 1000
"""Parts of one gzip body; empty ones would cost 20 bytes each."""
_RAW: Final = -zlib.MAX_WBITS
_WBITS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""What zlib calls the encodings that are read; br and zstd would need packages of their own."""


def content_encoding(headers: Iterable[str]) -> str | None:
    """Return how the body is compressed; None if it is not.

    >>> content_encoding(["identity, X-GZip"])
    'gzip'

    Source: RFC 9110, sections 8.4 (`x-gzip` is `gzip`) and 15.5.16 (415 names what is read).

    Raises:
        Refusal: In a way that is not read here, or more than once.
    """
    named = (name.strip().lower() for header in headers for name in header.split(","))
    encodings = [name for name in named if name not in {"", "identity"}]
    if not encodings:
        return None
    encoding = encodings[0].removeprefix("x-") if encodings == ["x-gzip"] else encodings[0]
    if len(encodings) > 1 or encoding not in _WBITS:
        sent = ascii(", ".join(encodings)[:100])
        message = f"The Content-Encoding {sent} is not supported: send gzip, deflate or none."
        raise Refusal(
            message,
            status_code=415,
            param="Content-Encoding",
            code="unsupported_content_encoding",
            headers={"accept-encoding": ", ".join(_WBITS)},
        )
    return encoding


async def inflate(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Return the text of a compressed body; nothing beyond `max_bytes` is inflated.

    Raises:
        Refusal: The text is too large, or the data are broken.
    """
    wbits = _WBITS[encoding]
    if encoding == "deflate" and body and body[0] & 0x0F != zlib.DEFLATED:
        wbits = _RAW  # without the header that belongs there, as some clients send it
    inflater, text, members = zlib.decompressobj(wbits), bytearray(), 1
    for begin in range(0, len(body), _STEP_BYTES):
        given, more = body[begin : begin + _STEP_BYTES], True
        while more:
            if inflater.eof:  # gzip files may stand one after the other (RFC 1952, section 2.2)
                if encoding != "gzip" or members == _MAX_MEMBERS:
                    raise broken()
                inflater, members = zlib.decompressobj(wbits), members + 1
            most = min(_STEP_BYTES, max_bytes + 1 - len(text))
            try:
                piece = inflater.decompress(given, most)
            except zlib.error as error:
                raise broken() from error
            text += piece
            if len(text) > max_bytes:
                raise too_large(max_bytes)
            given = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            # zlib may have taken everything and still have text to give.
            more = bool(given) or (len(piece) == most and not inflater.eof)
            await anyio.lowlevel.checkpoint()
    if body and not inflater.eof:
        raise broken()
    return bytes(text)


def broken() -> Refusal:
    """400: the body cannot be decompressed, or is badly chunked."""
    return invalid("The request body cannot be read: its encoding is broken.")
