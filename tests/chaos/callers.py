"""Those who call: programs that go to any of the servers, and to another one when that is gone."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, Final, NamedTuple, TypeVar

import aiohttp

from openai_runs import (
    ActiveRunError,
    APIConnectionError,
    AsyncClient,
    BadRequestError,
    InternalServerError,
    PollPolicy,
    RateLimitError,
    RetryPolicy,
    Run,
    StreamError,
)
from openai_runs.types.events import MessageDeltaEvent
from tests.chaos.model import TOOL, question, text_of, tool_output
from tests.chaos.reading import RawStream

__all__ = ["Acknowledged", "Caller", "Journal"]

T = TypeVar("T")


class Busy(Exception):  # noqa: N818 - an outcome
    """The thread has an active run, of another caller."""


_PASSING: Final = (
    Busy,
    APIConnectionError,
    InternalServerError,
    RateLimitError,
    StreamError,
    aiohttp.ClientError,
    TimeoutError,
)
"""What somebody meets whose server, or whose server's database, is gone for a while."""
_KINDS: Final = {"plain": 25, "twice": 10, "stream": 20, "raw": 20, "tool": 15, "cancel": 10}
"""How many in a hundred."""
STUCK: Final = 120.0
"""Seconds after which a run that is still active is given up by its caller."""


class Acknowledged(NamedTuple):
    """A run whose creation was answered."""

    kind: str
    thread_id: str
    run_id: str
    asked: str


class Journal:
    """What all callers have seen."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.runs: dict[str, Acknowledged] = {}
        """By their keys."""
        self.wrong: list[str] = []
        """What should not have been."""
        self.tries: Counter[str] = Counter()
        """How often something had to be done again, by the error."""
        self.keys = count(1)
        self.enough = False


class Caller:
    """One program, which makes one run after the other."""

    def __init__(
        self, urls: list[str], journal: Journal, assistant_id: str, threads: list[str], seed: str
    ) -> None:
        """Call the servers at these URLs, on these threads besides new ones."""
        self._urls = urls
        self._journal = journal
        self._assistant_id = assistant_id
        self._threads = threads
        self._chance = random.Random(seed)
        self._clients: list[AsyncClient] = []
        self._session: aiohttp.ClientSession | None = None
        self.doing = ""
        """What it is at."""

    async def call(self) -> None:
        """Make runs until there are enough."""
        async with AsyncExitStack() as stack:
            self._session = await stack.enter_async_context(aiohttp.ClientSession())
            for url in self._urls:
                client = AsyncClient(
                    url,
                    "chaos",
                    request_timeout=15,
                    retry=RetryPolicy(max_retries=1),
                    poll=PollPolicy(max_outage=5, long_poll=5),
                )
                self._clients.append(await stack.enter_async_context(client))
            while not self._journal.enough:
                await self._make_run()

    async def _make_run(self) -> None:
        key = f"k{next(self._journal.keys)}"
        (kind,) = self._chance.choices(list(_KINDS), list(_KINDS.values()))
        asked = question(key, self._chance.choice((3, 20, 40)), calls=kind == "tool")
        self.doing = f"{key} ({kind})"
        try:
            async with asyncio.timeout(3 * STUCK):
                thread_id = await self._thread(key)
                await getattr(self, f"_{kind}")(key, thread_id, asked)
        except TimeoutError:
            self._journal.wrong.append(f"{key} ({kind}): stuck")
        except Exception as error:
            self._journal.wrong.append(f"{key} ({kind}): {error!r}")

    async def _thread(self, key: str) -> str:
        if self._threads and self._chance.random() < 0.5:
            return self._chance.choice(self._threads)
        make = f"{key}-thread"
        thread = await self._anywhere(lambda client: client.threads.create(idempotency_key=make))
        return thread.id

    async def _anywhere(self, call: Callable[[AsyncClient], Awaitable[T]]) -> T:
        """Return what `call` returns, of one server or another."""
        while True:
            client = self._chance.choice(self._clients)
            try:
                return await call(client)
            except _PASSING as error:
                self._journal.tries[type(error).__name__] += 1
            await asyncio.sleep(self._chance.uniform(0.05, 0.3))

    def _body(self, key: str, kind: str, asked: str) -> dict[str, Any]:
        return {
            "assistant_id": self._assistant_id,
            "additional_messages": [{"role": "user", "content": asked}],
            "metadata": {"key": key, "kind": kind, "asked": asked},
        }

    async def _create(self, key: str, thread_id: str, asked: str, kind: str, **more: Any) -> Run:
        # Of a thread that is busy, the refusal is kept under the key: the next try needs another.
        tries = count()
        unused = f"{key}-{next(tries)}"

        async def create(client: AsyncClient) -> Run:
            nonlocal unused
            try:
                run: Run = await client.runs.create(
                    thread_id, **self._body(key, kind, asked), idempotency_key=unused, **more
                )
            except ActiveRunError as error:
                unused = f"{key}-{next(tries)}"
                raise Busy from error
            return run

        run = await self._anywhere(create)
        self._acknowledge(key, kind, thread_id, run.id, asked)
        return run

    def _acknowledge(self, key: str, kind: str, thread_id: str, run_id: str, asked: str) -> None:
        made = Acknowledged(kind, thread_id, run_id, asked)
        if self._journal.runs.setdefault(key, made) != made:
            self._journal.wrong.append(f"{key}: two runs: {self._journal.runs[key]}, {made}")

    async def _end(self, run: Run) -> Run:
        return await self._anywhere(
            lambda client: client.runs.wait(run.id, thread_id=run.thread_id, timeout=STUCK)
        )

    def _check_text(self, key: str, text: str, asked: str, status: str) -> None:
        if status == "completed" and text != text_of(asked):
            self._journal.wrong.append(f"{key}: the text is {text[:200]!r}")

    async def _plain(self, key: str, thread_id: str, asked: str) -> None:
        """Create a run, and wait for its end."""
        await self._end(await self._create(key, thread_id, asked, "plain"))

    async def _twice(self, key: str, thread_id: str, asked: str) -> None:
        """Create a run by two requests with the same key, which go to any two servers at once."""
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(self._create(key, thread_id, asked, "twice"))
        made = self._journal.runs[key]
        await self._anywhere(
            lambda client: client.runs.wait(made.run_id, thread_id=thread_id, timeout=STUCK)
        )

    async def _tool(self, key: str, thread_id: str, asked: str) -> None:
        """Create a run that calls a function, and go on with it at any server."""

        async def look_up(name: str) -> str:
            """Look it up."""
            return tool_output(name)

        parameters = {"type": "object", "properties": {"name": {"type": "string"}}}
        function = {"name": TOOL, "parameters": parameters}
        tools = [{"type": "function", "function": function}]
        run = await self._create(key, thread_id, asked, "tool", tools=tools)
        result = await self._anywhere(
            lambda client: client.runs.resume(
                run.id, thread_id=thread_id, tools=[look_up], timeout=STUCK
            )
        )
        self._check_text(key, result.text, asked, result.run.status)

    async def _cancel(self, key: str, thread_id: str, asked: str) -> None:
        """Create a run, and cancel it at some moment, at any server."""
        run = await self._create(key, thread_id, asked, "cancel")
        await asyncio.sleep(self._chance.uniform(0, 3))

        async def cancel(client: AsyncClient) -> None:
            try:
                await client.runs.cancel(run.id, thread_id=thread_id)
            except BadRequestError as error:
                if "Cannot cancel run" not in str(error):
                    raise

        await self._anywhere(cancel)
        await self._end(run)

    async def _stream(self, key: str, thread_id: str, asked: str) -> None:
        """Stream a run by the SDK; at another server, follow it where the first one left off."""
        pieces: list[str] = []
        run: Run | None = None
        last: str | None = None
        tries = count()
        unused = f"{key}-{next(tries)}"

        async def read(client: AsyncClient) -> Any:
            nonlocal run, last, unused
            if run is None:
                stream = client.runs.stream(
                    thread_id,
                    **self._body(key, "stream", asked),
                    idempotency_key=unused,
                    timeout=STUCK,
                )
            else:
                stream = client.runs.follow(
                    run.id, thread_id=thread_id, last_event_id=last, timeout=STUCK
                )
            try:
                async with stream:
                    async for event in stream:
                        last = event.id or last
                        if event.event == "thread.run.created":  # also where events were taken back
                            pieces.clear()
                        if run is None and stream.run is not None:
                            run = stream.run
                            self._acknowledge(key, "stream", thread_id, run.id, asked)
                        if isinstance(event, MessageDeltaEvent):
                            pieces.append(event.data.text)
                    return await stream.result()
            except ActiveRunError as error:
                unused = f"{key}-{next(tries)}"
                raise Busy from error

        result = await self._anywhere(read)
        self._check_text(key, result.text, asked, result.run.status)
        if result.run.status == "completed" and not text_of(asked).startswith("".join(pieces)):
            self._journal.wrong.append(f"{key}: the deltas are {''.join(pieces)[:300]!r}")

    async def _raw(self, key: str, thread_id: str, asked: str) -> None:
        """Stream a run by hand, and read on at any server after the last event that came."""
        assert self._session is not None
        body = {**self._body(key, "raw", asked), "stream": True}
        stream = RawStream(self._session, thread_id, key, body)
        while not stream.done:
            url = self._chance.choice(self._urls)
            try:
                async with asyncio.timeout(STUCK):
                    await stream.read(url)
            except _PASSING as error:
                self._journal.tries[f"raw {type(error).__name__}"] += 1
            if stream.run_id and key not in self._journal.runs:
                self._acknowledge(key, "raw", thread_id, stream.run_id, asked)
            await asyncio.sleep(self._chance.uniform(0.05, 0.3))
        self._journal.tries["raw stream cut"] += stream.cuts
        self._journal.wrong += [f"{key}: {what}" for what in stream.wrong]
        if stream.status == "completed":
            self._check_text(key, stream.text, asked, "completed")
