"""The client of the soak: one `AsyncClient` behind a faulty proxy, with many kinds of calls.

    python -m tests.soak.client URL RATE SEED

Errors of the library are what is expected here, and counted; any other is foreign, and written
to standard error.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec

from openai_runs import AsyncClient, OpenAIRunsError
from openai_runs.types import Assistant, Run
from tests.soak.probe import probed

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

AT_ONCE: Final = 60
"""Calls under way; more are left out, so that a slow machine is not buried."""
KEPT: Final = 20.0
"""Seconds after which a thread is deleted."""
LONGEST: Final = 25.0
"""Seconds a call may take."""
CANCELLED: Final = 0.1
"""Share of the calls whose task is cancelled."""

KINDS: Final = (
    "poll", "wait", "stream", "leave", "tools", "tool_stream", "several", "follow", "cancel",
    "lists", "map", "parsed",
)  # fmt: skip
"""Methods of `Caller`: what is done with a new thread."""
TEXT: Final = "What is the weather in Oslo? " * 20


class Caller:
    """Makes the calls, and counts how they end."""

    def __init__(self, client: AsyncClient, group: TaskGroup, seed: int) -> None:
        """Call through this client."""
        self._client = client
        self._group = group
        self._chance = random.Random(seed)
        self._old: deque[tuple[float, str]] = deque()
        self._assistants: list[Assistant] = []
        self.ends: Counter[str] = Counter()
        self.under_way = 0
        self.foreign = 0

    async def prepare(self) -> None:
        """Make the assistants."""
        while len(self._assistants) < 5:
            try:
                made = await self._client.assistants.create(
                    model=f"soak-{len(self._assistants)}", instructions="Be short. " * 300
                )
            except OpenAIRunsError:
                continue
            self._assistants.append(made)

    async def call_for_ever(self, rate: float) -> None:
        """Begin so many calls a second."""
        due = time.monotonic()
        while True:
            due = max(due + self._chance.expovariate(rate), time.monotonic() - 1)
            await anyio.sleep(max(0.0, due - time.monotonic()))
            is_cancelled = self._chance.random() < CANCELLED
            within = self._chance.expovariate(2) if is_cancelled else LONGEST
            if self.under_way < AT_ONCE:
                self._group.start_soon(self.call, self._chance.choice(KINDS), within)
            else:
                self.ends["left out"] += 1

    async def delete_for_ever(self) -> None:
        """Delete threads that are old enough."""
        while True:
            await anyio.sleep(0.5)
            self._group.start_soon(self.delete_old, KEPT)

    async def delete_old(self, age: float) -> None:
        """Delete the threads that are older than these seconds."""
        async with anyio.create_task_group() as group:
            while self._old and self._old[0][0] <= time.monotonic() - age:
                _, thread_id = self._old.popleft()
                group.start_soon(self._counted, "delete", self._client.threads.delete, thread_id)

    async def call(self, kind: str, within: float) -> None:
        """Make one call of this kind, cancelled after some seconds."""
        self.under_way += 1
        try:
            with anyio.move_on_after(within):
                await self._counted(kind, self._begin, kind)
        finally:
            self.under_way -= 1

    async def _begin(self, kind: str) -> None:
        thread = await self._client.threads.create(messages=[{"role": "user", "content": TEXT}])
        self._old.append((time.monotonic(), thread.id))
        await getattr(self, kind)(thread.id, self._chance.choice(self._assistants).id)

    async def _counted(self, name: str, call: Callable[..., Awaitable[object]], *args: Any) -> None:
        try:
            await call(*args)
        except OpenAIRunsError as error:
            self.ends[f"{name}: {type(error).__name__}"] += 1
        except Exception:
            self.foreign += 1
            traceback.print_exc()
        except asyncio.CancelledError:
            self.ends[f"{name}: cancelled"] += 1
            raise
        else:
            self.ends[f"{name}: done"] += 1

    def _tools(self) -> list[Any]:
        """Return tools made for one call, as programs make them for each of their users."""
        user = self._chance.random()

        async def weather(city: str) -> str:
            """Return the weather of a city."""
            await anyio.sleep(user / 10)
            return f"{city}: {user}"

        def time_of(city: str, zone: str = "UTC") -> str:
            """Return the time in a city."""
            if user < 0.1:
                raise ValueError(city)
            return f"12:00 in {city}, {zone}"

        return [weather, time_of]

    async def poll(self, thread: str, assistant: str) -> None:
        """Create and poll."""
        await self._client.runs.create_and_poll(
            thread, assistant_id=assistant, on_cancel=self._chance.choice(["leave", "cancel"])
        )

    async def wait(self, thread: str, assistant: str) -> None:
        """Create, wait for a held answer, read the result."""
        run = await self._client.runs.create(thread, assistant_id=assistant)
        done = await self._client.runs.wait(run, timeout=self._chance.choice([0.2, 20]))
        await self._client.runs.result(done)

    async def stream(self, thread: str, assistant: str) -> None:
        """Read a stream to its end."""
        async with self._client.runs.stream(thread, assistant_id=assistant) as events:
            async for _ in events.text_deltas():
                pass
        await events.result()

    async def leave(self, thread: str, assistant: str) -> None:
        """Leave a stream early."""
        async with self._client.runs.stream(thread, assistant_id=assistant) as events:
            async for _ in events:
                if self._chance.random() < 0.2:
                    break

    async def tools(self, thread: str, assistant: str) -> None:
        """Answer tool calls, polled."""
        await self._client.runs.run_tools(thread, assistant_id=assistant, tools=self._tools())

    async def tool_stream(self, thread: str, assistant: str) -> None:
        """Answer tool calls, streamed."""
        async with self._client.runs.stream(
            thread, assistant_id=assistant, tools=self._tools()
        ) as events:
            async for _ in events:
                pass

    async def several(self, thread: str, assistant: str) -> None:
        """Wait for several runs at once."""
        runs: list[Run] = []
        for _ in range(3):
            runs.append(
                await self._client.threads.create_and_run(
                    assistant_id=assistant,
                    thread={"messages": [{"role": "user", "content": TEXT}]},
                )
            )
            self._old.append((time.monotonic(), runs[-1].thread_id))
        await self._client.runs.wait_all(runs, timeout=10)

    async def follow(self, thread: str, assistant: str) -> None:
        """Read the stream of a run that was created elsewhere."""
        run = await self._client.runs.create(thread, assistant_id=assistant)
        async with self._client.runs.follow(run.id, thread_id=thread) as events:
            async for _ in events:
                pass

    async def cancel(self, thread: str, assistant: str) -> None:
        """Cancel a run."""
        run = await self._client.runs.create(thread, assistant_id=assistant)
        await self._client.runs.cancel_and_wait(run.id, thread_id=thread)

    async def lists(self, thread: str, assistant: str) -> None:
        """Read lists, by several clients of one pool."""
        run = await self._client.runs.create_and_poll(thread, assistant_id=assistant)
        client = self._client.with_options(max_retries=1)
        async for _ in client.runs.list(thread):
            pass
        async for _ in client.messages.list(thread):
            pass
        async for _ in client.runs.steps.list(run_id=run.id, thread_id=thread):
            pass

    async def map(self, thread: str, assistant: str) -> None:
        """Map over a few items."""
        question = [{"role": "user", "content": TEXT}]
        items = [(number, {"thread": {"messages": question}}) for number in range(3)]
        async with self._client.runs.map(items, concurrency=2, assistant_id=assistant) as results:
            async for _, outcome in results:
                if not isinstance(outcome, Exception):
                    self._old.append((time.monotonic(), outcome.run.thread_id))

    async def parsed(self, thread: str, assistant: str) -> None:
        """Ask for a type that was made for this call."""
        kind = msgspec.defstruct("Answer", [("city", str), ("degrees", int)])
        await self._client.runs.run_tools(
            thread, assistant_id=assistant, tools=[], response_format=kind
        )

    def facts(self) -> dict[str, Any]:
        """Return the counts so far."""
        return {
            "calls": self.ends.total(),
            "done": sum(number for end, number in self.ends.items() if end.endswith(": done")),
            "under_way": self.under_way,
            "foreign": self.foreign,
            "ends": self.ends,
        }


async def call(url: str, rate: float, seed: int) -> None:
    """Make calls until standard input is closed."""
    async with (
        AsyncClient(url, "soak", request_timeout=8) as client,
        anyio.create_task_group() as group,
    ):
        caller = Caller(client, group, seed)
        await caller.prepare()
        print("ready", flush=True)
        group.start_soon(caller.call_for_ever, rate)
        group.start_soon(caller.delete_for_ever)
        await probed(caller.facts)
        group.cancel_scope.cancel()


if __name__ == "__main__":
    logging.getLogger("openai_runs").addHandler(logging.NullHandler())  # tools raise on purpose
    asyncio.run(call(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
