"""What a process of the soak says about itself, each time a line comes on its standard input."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

__all__ = ["figures_of", "probed"]


class _MallInfo(ctypes.Structure):
    """What glibc's `mallinfo2` returns, of all arenas together."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


_LIBC: Final = ctypes.CDLL(None)
_LIBC.mallinfo2.restype = _MallInfo


def _heap() -> tuple[int, int]:
    """Return the bytes that malloc has given out, and those it keeps to give out again.

    SQLite's are among them; Python's own small objects are not, but in `blocks`.
    """
    info = _LIBC.mallinfo2()
    return info.uordblks + info.hblkhd, info.fordblks


def _pages(status: str, name: str) -> int:
    """Return the bytes of a line such as `Pss:  1234 kB`."""
    line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def figures_of(pid: int | str = "self") -> dict[str, float]:
    """Return the memory and the descriptors of a process, as the kernel counts them."""
    process = Path("/proc") / str(pid)
    memory = (process / "smaps_rollup").read_text()
    return {
        "rss": _pages(memory, "Rss"),
        "pss": _pages(memory, "Pss"),
        "uss": _pages(memory, "Private_Clean") + _pages(memory, "Private_Dirty"),
        "descriptors": len(os.listdir(process / "fd")),
        "threads": len(os.listdir(process / "task")),
    }


def _own_figures() -> dict[str, float]:
    """Return the same of this process, and what only Python knows of it."""
    heap, free = _heap()
    return {
        **figures_of(),
        "heap": heap,
        "heap free": free,
        "objects": len(gc.get_objects()),
        "blocks": sys.getallocatedblocks(),
        "python_threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        **{f"collections {age}": one["collections"] for age, one in enumerate(gc.get_stats())},
    }


def _types() -> dict[str, int]:
    """Return how many objects there are of each type, garbage apart."""
    gc.collect()
    kinds = Counter(type(one) for one in gc.get_objects())
    return {f"{kind.__module__}.{kind.__qualname__}": number for kind, number in kinds.items()}


async def probed(facts: Callable[[], Mapping[str, Any]] = dict) -> None:
    """Answer each line with a line of JSON, until standard input is closed.

    Args:
        facts: What else there is to say.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        answer: Any = _types() if line == b"types\n" else {**_own_figures(), **facts()}
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
        sys.stdout.flush()
