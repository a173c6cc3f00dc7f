"""A model endpoint that answers at once: a streamed chat completion, made beforehand."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from tests.benchmarks import samples
from tests.benchmarks.servers.wire import Connection, Request, serve

__all__ = ["TEXT"]

TEXT: Final = "Your order is on its way and arrives on Thursday."


def _chunk(delta: dict[str, Any], **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": more.pop("finish_reason", None)}
    told = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "instant",
        "choices": [choice],
        **more,
    }
    return b"data: %s\n\n" % samples.encode(told)


def _answer() -> bytes:
    words = [f"{word} " for word in TEXT.split(" ")]
    words[-1] = words[-1].rstrip()
    usage = {"prompt_tokens": 20, "completion_tokens": len(words), "total_tokens": 20 + len(words)}
    body = b"".join(
        [
            _chunk({"role": "assistant", "content": ""}),
            *(_chunk({"content": word}) for word in words),
            _chunk({}, finish_reason="stop", usage=usage),
            b"data: [DONE]\n\n",
        ]
    )
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def main() -> None:
    """Serve."""
    reply = _answer()

    def handler(request: Request, connection: Connection) -> bytes:
        return reply

    asyncio.run(serve(handler))


if __name__ == "__main__":
    main()
