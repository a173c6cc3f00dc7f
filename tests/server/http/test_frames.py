"""Straight ways: few coroutines of ours stand between aiohttp and the writer of the store.

Counted are the frames of coroutines on the stack where a write is handed to the writer thread, from
the one that aiohttp calls on.
"""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

import pytest

from openai_runs.server.store.sqlite import writer
from tests.canaries import CANARY_KEY
from tests.client.test_frames import coroutines
from tests.server.conftest import Serve
from tests.server.support import FUNCTION, Caller, run_path

pytestmark = pytest.mark.sqlite("about the thread that writes to the file")

MOST = 5

WAYS = {
    "createAssistant": ("/assistants", {"model": "m"}),
    "createThread": ("/threads", {}),
    "modifyThread": ("{thread}", {"metadata": {"a": "b"}}),
    "createMessage": ("{free}/messages", {"role": "user", "content": "Hi"}),
    "createRun": ("{free}/runs", {"assistant_id": "{assistant}"}),
    "createRun-streamed": ("{free}/runs", {"assistant_id": "{assistant}", "stream": True}),
    "createThreadAndRun": ("/threads/runs", {"assistant_id": "{assistant}"}),
    "modifyRun": ("{run}", {"metadata": {"a": "b"}}),
    "cancelRun": ("{run}/cancel", None),
    "submitToolOuputsToRun": ("{run}/submit_tool_outputs", {"tool_outputs": []}),
}


async def places(caller: Caller) -> dict[str, str]:
    """Return what the paths and bodies name: an assistant, a thread, a run and its thread."""
    run = await caller.start()
    free = await caller.thread("Hi")
    return {
        "assistant": await caller.assistant(tools=[FUNCTION]),
        "free": f"/threads/{free}",
        "thread": f"/threads/{run['thread_id']}",
        "run": run_path(run),
    }


@pytest.mark.parametrize("options", [{}, {"api_key": CANARY_KEY}], ids=["local", "with-key"])
@pytest.mark.parametrize(("path", "body"), WAYS.values(), ids=WAYS.keys())
async def test_way_to_the_writer_is_straight(
    serve: Serve,
    path: str,
    body: Any,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No more coroutines than the design allows stand on the stack at the hand-over."""
    ways: list[list[str]] = []

    class Recorded(SimpleQueue[Any]):
        def put(self, item: Any, *args: Any, **kwargs: Any) -> None:
            ways.append(coroutines())
            super().put(item, *args, **kwargs)

    monkeypatch.setattr(writer, "SimpleQueue", Recorded)
    caller = await serve(**options)
    known = await places(caller)
    ways.clear()
    sent = body and {
        name: value.format_map(known) if isinstance(value, str) else value
        for name, value in body.items()
    }

    await caller.send("POST", path.format_map(known), json=sent)

    requested = [way for way in ways if any("http.handlers." in frame for frame in way)]
    assert len(requested) == 1
    assert len(requested[0]) <= MOST, "\n".join(requested[0])
