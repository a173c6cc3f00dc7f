"""How the run of a claim is created: its settings, and its messages as the API takes them.

What may not live here: which claim it is, and what becomes of its answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple

from openai_runs import AsyncClient, NotFoundError, Run, RunStream
from openai_runs.config import MAX_MESSAGE_CHARS
from openai_runs.conversations.record import Claim

__all__ = ["MissingThread", "Options", "WhenBusy", "has_thread", "leave", "stream_of"]

WhenBusy = Literal["queue", "join", "interrupt"]
MissingThread = Literal["raise", "new"]


class Options(NamedTuple):
    """How messages are answered."""

    assistant_id: str
    missing_thread: MissingThread
    when_busy: WhenBusy
    every: float
    tools: list[Any] | None
    arguments: Mapping[str, Any]


def stream_of(
    client: AsyncClient,
    options: Options,
    claim: Claim,
    thread_id: str,
    *,
    on_status: Callable[[Run], Awaitable[None]],
    is_left: bool,
) -> RunStream:
    """Return the stream of a claim's run, which is created under the claim's key.

    Args:
        client: What it is created with.
        options: How.
        claim: Whose messages it answers.
        thread_id: On which thread.
        on_status: Called with the run when its status has changed.
        is_left: Whether the run goes on where the stream is left.
    """
    arguments = dict(options.arguments)
    if options.tools is not None:
        arguments["tools"] = options.tools
    return client.runs.stream(
        thread_id,
        assistant_id=options.assistant_id,
        additional_messages=[
            {"role": "user", "content": piece}
            for message in claim.messages
            for piece in _pieces(message.text)
        ],
        idempotency_key=claim.key,
        on_active_run="wait",
        on_status=on_status,
        on_timeout="cancel",
        on_cancel="leave" if is_left else "cancel",
        **arguments,
    )


def leave(stream: RunStream) -> None:
    """Let the run go on where its stream is left."""
    stream.set_on_cancel("leave")


async def has_thread(client: AsyncClient, thread_id: str) -> bool:
    """Return whether the server has this thread."""
    try:
        await client.threads.retrieve(thread_id)
    except NotFoundError:
        return False
    return True


def _pieces(text: str) -> list[str]:
    """Return a message as the API takes it: in several, cut between words, where it is too long."""
    pieces = []
    while len(text) > MAX_MESSAGE_CHARS:
        blank = max(text.rfind(one, 0, MAX_MESSAGE_CHARS) for one in " \n")
        end = blank + 1 or MAX_MESSAGE_CHARS
        pieces.append(text[:end])
        text = text[end:]
    return [*pieces, text]
