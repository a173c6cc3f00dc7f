"""One process per checkpoint: a lock file beside it, with the process's id inside.

`flock` belongs to the open file, so it goes with the process however that ends. The lock file is
never removed: whoever held a removed one would lock nothing.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from openai_runs.batch.errors import BatchError

__all__ = ["Lock", "holder", "make_private"]

_MAX_BYTES: Final = 100
"""Bytes read of a lock file; a process id is shorter."""
_FLAGS: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Lock:
    """The lock of one checkpoint, held from the constructor to `release`."""

    def __init__(self, checkpoint: Path) -> None:
        """Acquire the lock.

        Raises:
            BatchError: Another process has it, or the lock file cannot be used.
        """
        path = _path(checkpoint)
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        except OSError as error:  # a link, too, which somebody else may have made
            msg = f"{path}: cannot be used as a lock file: {error.strerror}"
            raise BatchError(msg) from error
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:  # it is truncated below
            os.close(self._fd)
            msg = f"{path}: cannot be used as a lock file: not a regular file of one name"
            raise BatchError(msg)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _pid(self._fd)
            os.close(self._fd)
            msg = (
                f"process {holder} works on the checkpoint {checkpoint.absolute()}: wait for its "
                "end, or end it, and start again"
            )
            raise BatchError(msg) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Release the lock."""
        os.close(self._fd)


def holder(checkpoint: Path) -> str | None:
    """Return the id of the process that works on the checkpoint; None if there is none."""
    with suppress(OSError):
        fd = os.open(_path(checkpoint), os.O_RDONLY | _FLAGS)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _pid(fd)
        finally:
            os.close(fd)
    return None


def _pid(fd: int) -> str:
    text = os.pread(fd, _MAX_BYTES, 0).decode("ascii", "replace").strip()
    return text if text.isdecimal() else "(unknown)"


def _path(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.lock")


def make_private(path: Path) -> None:
    """Make the file, readable for its owner alone; a link is not followed."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(path, flags, 0o600))
