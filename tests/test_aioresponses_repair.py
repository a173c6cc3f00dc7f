"""aioresponses works on aiohttp 3.14 again, once it was repaired."""

import aiohttp
import pytest
from aioresponses import CallbackResult, aioresponses

from openai_runs.testing import repair_aioresponses


async def test_repaired_aioresponses_answers_as_it_used_to() -> None:
    """Small and large bodies, headers, callbacks and exceptions, through a session."""
    with aioresponses() as mocked:
        mocked.get("http://a/small", payload={"a": 1}, headers={"x-request-id": "r"})
        mocked.get("http://a/big", body=b"y" * 5_000_000)
        mocked.get("http://a/pieces", body=b"y" * 5_000_000)
        mocked.post("http://a/call", callback=lambda url, **kwargs: CallbackResult(status=429))
        mocked.get("http://a/lost", exception=aiohttp.ClientConnectionError("lost"))
        async with aiohttp.ClientSession() as session:
            async with session.get("http://a/small") as answer:
                assert await answer.json() == {"a": 1}
                assert answer.headers["x-request-id"] == "r"
            async with session.get("http://a/big") as answer:
                assert len(await answer.read()) == 5_000_000
            async with session.get("http://a/pieces") as answer:
                sizes = [len(piece) async for piece in answer.content.iter_any()]
                assert sum(sizes) == 5_000_000
            async with session.post("http://a/call", json={}) as answer:
                assert (answer.status, await answer.read()) == (429, b"")
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.get("http://a/lost")


async def test_repair_is_done_once() -> None:
    """A second repair has nothing to do."""
    repair_aioresponses()

    assert repair_aioresponses() is False
