"""Mends aioresponses, whose latest version does not know the latest aiohttp."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

__all__ = ["repair_aioresponses"]


def repair_aioresponses() -> bool:
    """Mend aioresponses 0.7.9 for aiohttp 3.14 in this process; True if it needed that.

    aiohttp 3.14 made `stream_writer` a required argument of `ClientResponse`, and its reader now
    pauses a transport that a mocked answer does not have, so bodies over 128 KiB fail as well
    (aioresponses issue 289). Both are probed by building an answer, so each half of the repair
    vanishes on the day upstream is mended. Safe to call more than once.
    """
    from aiohttp import ClientResponse, StreamReader
    from aiohttp.client_proto import ResponseHandler
    from aioresponses import core
    from yarl import URL

    def builds(size: int) -> bool:
        try:
            core.RequestMatch("http://probe")._build_response(URL("http://probe"), body=b"x" * size)
        except (TypeError, AssertionError):
            return False
        return True

    class MockedResponse(ClientResponse):
        """A `ClientResponse` that may be made without the request's stream writer."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.setdefault("stream_writer", SimpleNamespace(output_size=0))
            super().__init__(*args, **kwargs)

    def unpaused_reader(loop: Any = None) -> StreamReader:
        # 1 GiB: no mocked body reaches it, so the missing transport is never paused.
        return StreamReader(ResponseHandler(loop=loop), limit=2**30, loop=loop)

    mended = builds(1)
    if not mended:
        core.ClientResponse = MockedResponse  # type: ignore[attr-defined]  # not exported, but used
    mended_large = builds(1 << 18)
    if not mended_large:
        core.stream_reader_factory = unpaused_reader  # type: ignore[attr-defined]  # as above
    return not (mended and mended_large)
