"""`openai-runs serve` that is stopped for a while, as on a laptop that sleeps."""

import asyncio
import json
import signal
from pathlib import Path

import anyio

from openai_runs import AsyncClient
from tests.cli.processes import serving
from tests.support import SocketServer, receive


class InPieces(SocketServer):
    """A model endpoint that says a word now, and nine when it is let go, each for itself."""

    def __init__(self) -> None:
        """Wait to be let go."""
        super().__init__()
        self.go = anyio.Event()
        self.said = anyio.Event()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; the connection stays open."""
        request = await receive(reader)
        if request.method == "GET":
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        writer.write(head + b"transfer-encoding: chunked\r\n\r\n" + self._piece("word "))
        await self.go.wait()
        for _ in range(9):
            writer.write(self._piece("word "))
            await writer.drain()
            await anyio.sleep(0.01)  # so that they are not read as one
        writer.write(self._piece("", "stop"))
        self.said.set()
        await anyio.sleep_forever()

    def _piece(self, text: str, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
        chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}
        data = b"data: " + json.dumps(chunk).encode() + b"\n\n"
        return b"%x\r\n%s\r\n" % (len(data), data)


async def test_model_is_not_blamed_where_the_server_itself_was_stopped(tmp_path: Path) -> None:
    """What it said meanwhile is read, although its time-out was over when the server went on."""
    async with (
        InPieces() as model,
        serving("--model-url", model.url, "--model-timeout", "0.5", folder=tmp_path) as server,
        AsyncClient(server.url) as client,
    ):
        assistant = await client.assistants.create(model="m")
        thread = await client.threads.create(messages=[{"role": "user", "content": "Hello!"}])
        async with client.runs.stream(thread.id, assistant_id=assistant.id) as stream:
            deltas = stream.text_deltas()
            said = [await anext(deltas)]
            await server.signal(signal.SIGSTOP)
            model.go.set()
            await model.said.wait()
            await anyio.sleep(1)  # longer than the time-out
            await server.signal(signal.SIGCONT)
            said += [text async for text in deltas]
            result = await stream.result()

    assert said == ["word "] * 10
    assert result.run.status == "completed"
