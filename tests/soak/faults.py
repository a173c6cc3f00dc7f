"""Both peers that misbehave: a model endpoint, and a proxy between client and server.

    python -m tests.soak.faults SEED

Prints the model's URL. A line with the server's port on standard input opens the proxy, whose
port is printed. The process ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from contextlib import suppress
from typing import Any, Final

import msgspec
from aiohttp import web

__all__ = ["FaultyModel", "FaultyProxy"]

_MODEL_FAULTS: Final = {
    "none": 60, "words": 12, "busy": 3, "broken": 3, "reset": 3, "half": 4, "empty": 2,
    "slow": 6, "garbage": 2, "hang": 1, "overlong": 1,
}  # fmt: skip
_CONNECTION_FAULTS: Final = {"none": 60, "cut": 20, "half": 8, "refuse": 2, "stall": 3, "delay": 7}
_TOOL_SHARE: Final = 0.8
"""Of the answers to a question that comes with tools."""


def _drawn(chance: random.Random, weights: dict[str, int]) -> str:
    (name,) = chance.choices(list(weights), list(weights.values()))
    return name


def _chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    told = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "soak",
        "choices": [choice],
        **more,
    }
    return b"data: " + msgspec.json.encode(told) + b"\n\n"


class FaultyModel:
    """A chat-completions endpoint that answers properly three times out of four."""

    def __init__(self, seed: int) -> None:
        """Draw the faults from this seed."""
        self._chance = random.Random(seed)
        self.faults: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer, or do not."""
        asked = msgspec.json.decode(await request.read())
        fault = _drawn(self._chance, _MODEL_FAULTS)
        self.faults[fault] += 1
        match fault:
            case "busy":
                headers = {"retry-after": "1"}
                return web.json_response(
                    {"error": {"message": "busy"}}, status=429, headers=headers
                )
            case "broken":
                return web.json_response({"error": {"message": "broken"}}, status=500)
            case "reset":
                if request.transport is not None:
                    request.transport.abort()
            case "slow":
                await asyncio.sleep(self._chance.uniform(0.5, 3))
            case "hang":
                await asyncio.sleep(12)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        with suppress(ConnectionError):
            await self._say(response, request, asked, fault)
        return response

    async def _say(
        self, response: web.StreamResponse, request: web.Request, asked: dict[str, Any], fault: str
    ) -> None:
        pieces = self._pieces(asked, fault)
        for number, piece in enumerate(pieces):
            if fault == "half" and number > len(pieces) // 2 and request.transport is not None:
                request.transport.abort()
                return
            await response.write(piece)
            if fault == "words":
                await asyncio.sleep(0.02)
        await response.write_eof()

    def _pieces(self, asked: dict[str, Any], fault: str) -> list[bytes]:
        usage = {"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29}
        end = [_chunk({}, "stop", usage=usage), b"data: [DONE]\n\n"]
        if fault == "empty":
            return end
        if fault == "garbage":
            return [b"data: {not json\n\n", b"event: \xff\xfe\n\n", *end]
        tools, last = asked.get("tools"), asked["messages"][-1]["role"]
        if tools and last != "tool" and self._chance.random() < _TOOL_SHARE:
            calls = [self._call(place, tools) for place in range(self._chance.randint(1, 3))]
            return [_chunk({"tool_calls": calls}), _chunk({}, "tool_calls", usage=usage), end[1]]
        long = 4000 if fault == "overlong" else 60
        words = [f"word{number} " for number in range(self._chance.randint(1, long))]
        return [_chunk({"role": "assistant", "content": word}) for word in words] + end

    def _call(self, place: int, tools: list[dict[str, Any]]) -> dict[str, Any]:
        name = self._chance.choice(tools)["function"]["name"]
        arguments = '{"city": "Oslo"}' if self._chance.random() < 0.9 else '{"city": '
        call = {"name": name, "arguments": arguments}
        return {
            "index": place,
            "id": f"call_{self._chance.getrandbits(64):x}",
            "type": "function",
            "function": call,
        }


class FaultyProxy:
    """A proxy that cuts, delays or refuses two connections out of five, wherever they are."""

    def __init__(self, seed: int, port: int) -> None:
        """Stand before this port of the loopback."""
        self._chance = random.Random(seed)
        self._port = port
        self.faults: Counter[str] = Counter()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        fault = _drawn(self._chance, _CONNECTION_FAULTS)
        self.faults[fault] += 1
        if fault == "refuse":
            writer.transport.abort()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        limit = self._chance.expovariate(1 / 30_000) if fault in {"cut", "half", "stall"} else None
        pause = 0.3 if fault == "delay" else 0.0
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, up_writer, None, 0))
                await self._pass(up_reader, writer, limit, pause)
                if fault == "stall" and not up_reader.at_eof():
                    await asyncio.sleep(12)
                (writer.close if fault == "half" else writer.transport.abort)()
                up_writer.transport.abort()
        except* OSError:
            pass
        finally:
            writer.transport.abort()
            up_writer.transport.abort()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        limit: float | None,
        pause: float,
    ) -> None:
        passed = 0
        while data := await reader.read(1 << 16):
            if pause and self._chance.random() < 0.3:
                await asyncio.sleep(pause)
            passed += len(data)
            if limit is not None and passed > limit:
                writer.write(data[: len(data) // 2])
                return
            writer.write(data)
            await writer.drain()
        if not writer.is_closing() and writer.can_write_eof():
            writer.write_eof()


async def serve(seed: int) -> None:
    """Serve both, until standard input is closed."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    model = FaultyModel(seed)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/chat/completions", model.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    proxy = FaultyProxy(seed + 1, int(await reader.readline()))
    listening = await asyncio.start_server(proxy.carry, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    while await reader.readline():
        print(
            msgspec.json.encode({"model": model.faults, "proxy": proxy.faults}).decode(), flush=True
        )
    listening.close()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
