"""Facts about the running asyncio task that anyio does not offer."""

from __future__ import annotations

import asyncio

__all__ = ["is_cancelled"]


def is_cancelled() -> bool:
    """Return whether the running task itself is being cancelled.

    A `CancelledError` in a task that is not comes from what it awaited: a future or task that
    was cancelled by another.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
