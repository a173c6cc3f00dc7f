"""How many calls one piece of work takes: what a clock would say, were machines all alike.

    python -m tests.counting > tests/cost.json      to record the counts anew

Counted are the calls of functions of `openai_runs`, and the calls which these make to others
(`aiohttp.ClientSession.request` is one, whatever it does inside). A coroutine counts when it
begins and not each time it goes on, and of several repetitions the least counts, so that how
an answer was cut on its way makes no difference.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import msgspec

import openai_runs
from openai_runs import AsyncClient
from tests.client.broadcaster import HEAD, Broadcaster
from tests.support import Action, Answer, HostileServer, Raw, Received, run_json

__all__ = ["Cost", "measure"]

_OURS: Final = str(Path(openai_runs.__file__).parent)
_RESUMED: Final = (
    inspect.CO_COROUTINE
    | inspect.CO_GENERATOR
    | inspect.CO_ASYNC_GENERATOR
    | inspect.CO_ITERABLE_COROUTINE
)
_REPEATS: Final = 7
_POLLS: Final = (2, 12)
_WORDS: Final = (50, 550)
Work = Callable[[AsyncClient], Awaitable[object]]


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one piece of work."""

    total: float
    functions: dict[str, float]
    """By name, the most frequent first."""


class _Tally:
    """What `sys.setprofile` tells, counted by name."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._begun: set[FrameType] = set()

    def __call__(self, frame: FrameType, event: str, called: object) -> None:
        if event == "c_call":
            if _is_ours(frame.f_code):
                self.calls[f"{getattr(called, '__qualname__', called)}()"] += 1
        elif event == "call":
            self._enter(frame)

    def _enter(self, frame: FrameType) -> None:
        code = frame.f_code
        if not _is_ours(code) and (frame.f_back is None or not _is_ours(frame.f_back.f_code)):
            return
        if code.co_flags & _RESUMED:
            if frame in self._begun:
                return
            self._begun.add(frame)
        room = code.co_filename.rpartition("/")[2].removesuffix(".py")
        self.calls[f"{room}.{code.co_qualname}"] += 1


def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(_OURS)


@contextmanager
def _counted() -> Iterator[Counter[str]]:
    tally = _Tally()
    sys.setprofile(tally)
    try:
        yield tally.calls
    finally:
        sys.setprofile(None)


async def _least(client: AsyncClient, work: Work) -> Counter[str]:
    await work(client)  # warm: connections, caches, what the server can do
    counts = []
    for _ in range(_REPEATS):
        with _counted() as calls:
            await work(client)
        counts.append(calls)
    return min(counts, key=Counter.total)


def _cost(calls: Counter[str], times: int = 1) -> Cost:
    shares = {name: round(count / times, 2) for name, count in calls.most_common()}
    functions = {name: share for name, share in shares.items() if share >= 0.1}
    return Cost(total=round(sum(functions.values()), 1), functions=functions)


async def _retrieve(client: AsyncClient) -> object:
    return await client.runs.retrieve("run_1", thread_id="thread_1")


async def _create(client: AsyncClient) -> object:
    message = {"role": "user", "content": "Hello"}
    return await client.runs.create(
        "thread_1", assistant_id="asst_1", additional_messages=[message]
    )


async def _list(client: AsyncClient) -> object:
    return await client.runs.list("thread_100", limit=100)


def _wait(polls: int) -> Work:
    async def work(client: AsyncClient) -> object:
        run = f"polled_{polls}_{next(_NAMES)}"
        return await client.runs.wait(run, thread_id="thread_1", interval=0.05)

    return work


def _stream(words: int) -> Work:
    async def work(client: AsyncClient) -> object:
        async with client.runs.stream(f"words_{words}", assistant_id="asst_1") as events:
            async for _ in events:
                pass
        return events.snapshot.text

    return work


_NAMES: Final = iter(range(1_000_000))


async def _each(client: AsyncClient, make: Callable[[int], Work], few: int, many: int) -> Cost:
    """Return what one of many more costs, without what the first and the last of all cost."""
    calls = await _least(client, make(many))
    calls.subtract(await _least(client, make(few)))
    return _cost(calls, many - few)


class _Answers:
    """A server's side of all that is measured."""

    def __init__(self) -> None:
        self._polls: Counter[str] = Counter()

    def __call__(self, request: Received) -> Action:
        thread, _, rest = request.path.removeprefix("/v1/threads/").partition("/")
        run = rest.removeprefix("runs/")
        if thread.startswith("words_"):
            told = Broadcaster(["word "] * int(thread.partition("_")[2]))
            length = f"Content-Length: {len(told.stream)}\r\n\r\n".encode()
            return Raw(HEAD + length + told.stream)
        if thread == "thread_100":
            return Answer(json={"data": [run_json()] * 100, "has_more": False})
        if run.startswith("polled_"):
            self._polls[run] += 1
            is_over = self._polls[run] == int(run.split("_")[1])
            return Answer(json=run_json("completed" if is_over else "in_progress", id=run))
        return Answer(json=run_json())


async def _measured(url: str) -> dict[str, Cost]:
    async with AsyncClient(url, "sk-key-of-a-test") as client:
        return {
            "retrieve a run": _cost(await _least(client, _retrieve)),
            "create a run": _cost(await _least(client, _create)),
            "list 100 runs": _cost(await _least(client, _list)),
            "one poll of a wait": await _each(client, _wait, *_POLLS),
            "one event of a stream": await _each(client, _stream, *_WORDS),
        }


def measure() -> dict[str, Cost]:
    """Return what each piece of work costs; its server runs in a thread that is not counted."""
    told: list[str] = []
    ready, over = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with HostileServer(_Answers()) as server:
            told.append(server.url)
            ready.set()
            await over.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait()
    try:
        return asyncio.run(_measured(told[0]))
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


if __name__ == "__main__":
    costs: dict[str, Any] = msgspec.to_builtins(measure())
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(costs), indent=2) + b"\n")
