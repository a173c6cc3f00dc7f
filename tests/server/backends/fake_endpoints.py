"""Chat-completions endpoints as real HTTP servers, which judge what they are sent.

A strict one, a lenient one, and one that refuses every optional field: what an endpoint of that
kind would refuse is refused, in the words of the field, and written down as a violation. What
they answer is said by the question, see `fake_turns`.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
from aiohttp import web

from tests.server.backends.fake_refusals import DIALECTS, Dialect, Refusal, Rule
from tests.server.backends.fake_turns import Answer, Given, answer_to

__all__ = ["Endpoint", "Sent", "opened"]

_QUESTION = re.compile(r"(\d+): (\w+)\Z")
_CALL_ID = re.compile(r"c\d{3}t(\d+)a")
Hook = Callable[["Sent", str], Awaitable[None]]


class Sent(NamedTuple):
    """One request, as far as it was understood."""

    body: dict[str, Any]
    number: int
    """Of the question; no two runs share one."""
    kind: str
    """What the question asks for, a key of `fake_turns.TURNS`."""
    turn: int
    """How many turns of this run came before."""


def text_of(message: dict[str, Any]) -> str:
    """Return the text of a message, which may come in parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def understood(body: dict[str, Any]) -> Sent:
    """Return what a request asks for; it need not be one that the endpoint takes."""
    messages = body["messages"]
    last = max(n for n, message in enumerate(messages) if message["role"] == "user")
    found = _QUESTION.search(text_of(messages[last]))
    assert found, f"no question in {messages[last]}"
    turns = sum(message["role"] == "assistant" for message in messages[last:])
    # Turns may have been left out, but not the last one: its number is in the ids of its calls.
    ids = [c["id"] for message in messages[last:] for c in message.get("tool_calls", ())]
    numbers = [int(named[1]) + 1 for named in map(_CALL_ID.match, ids) if named]
    return Sent(body, int(found[1]), found[2], max([turns, *numbers]))


class Endpoint:
    """One of the endpoints: some rules, and a way to say what is wrong.

    Args:
        rules: What it refuses, in this order.
        dialect: How it says so.
        style: How it answers: `strict`, or `loose` with what the field does wrong.
    """

    def __init__(self, rules: list[Rule], dialect: Dialect, style: str) -> None:
        self.rules = rules
        self.dialect = dialect
        self.style = style
        self.url = ""
        self.requests: list[Sent] = []
        self.refusals: list[Refusal] = []
        self.repeated: Counter[tuple[str, str]] = Counter()
        """How often the same messages were refused for the same."""
        self.given: dict[int, list[Given]] = {}
        """What it has said in each run, by number: some of it has to come back."""
        self.hook: Hook | None = None
        """Awaited at each moment of an answer: `before`, `middle`, `after`."""
        self.hung_up = 0
        """Answers that would have gone on, had they been listened to."""
        self._asked: Counter[tuple[int, int]] = Counter()

    @property
    def refused(self) -> Counter[str]:
        """Return how often each rule was broken."""
        return Counter(refusal.rule for refusal in self.refusals)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Judge one request and answer it."""
        sent = understood(await request.json())
        self.requests.append(sent)
        given = self.given.setdefault(sent.number, [])
        for rule in self.rules:
            refusal = rule(sent.body, given)
            if refusal is not None:
                self.refusals.append(refusal)
                self.repeated[refusal.rule, repr(sent.body["messages"])] += 1
                status, content = self.dialect(refusal)
                return web.json_response(content, status=status)
        self._asked[sent.number, sent.turn] += 1
        marker = f"{sent.number}.{sent.turn}.{self._asked[sent.number, sent.turn]}"
        return await self._answer(
            request, sent, answer_to(sent.kind, sent.turn, marker, self.style)
        )

    async def _answer(self, request: web.Request, sent: Sent, answer: Answer) -> web.StreamResponse:
        if answer.given is not None:
            self.given[sent.number].append(answer.given)
        await self._moment(sent, "before")
        response = web.StreamResponse(
            status=answer.status, headers={"content-type": answer.content_type}
        )
        await response.prepare(request)
        for place, piece in enumerate(answer.pieces):
            if place == len(answer.pieces) // 2:
                await self._moment(sent, "middle")
            await response.write(piece)
        if answer.end == "reset":
            assert request.transport is not None
            request.transport.abort()
            return response
        if answer.end == "stall":
            try:
                await anyio.sleep_forever()
            finally:
                self.hung_up += 1
        await self._moment(sent, "after")
        return response

    async def _moment(self, sent: Sent, name: str) -> None:
        if self.hook is not None:
            await self.hook(sent, name)


@asynccontextmanager
async def opened(
    rules: list[Rule], dialect: str = "openai", style: str = "strict"
) -> AsyncIterator[Endpoint]:
    """Open an endpoint on loopback."""
    endpoint = Endpoint(rules, DIALECTS[dialect], style)
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", endpoint.handle)
    # A handler is cancelled when the other side hangs up.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        endpoint.url = f"http://{host}:{port}/v1"
        yield endpoint
    finally:
        with contextlib.suppress(RuntimeError):
            await runner.cleanup()
