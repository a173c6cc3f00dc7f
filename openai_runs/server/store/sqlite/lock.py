"""One server per file: a lock beside it, with the server's address inside.

`flock` belongs to the open file, so it goes with the process however that ends, and two
servers in one process exclude each other too. The file itself is never removed: whoever
held an unlinked one would lock nothing.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Final

import msgspec

from openai_runs.errors import ConfigError

__all__ = ["FileLock", "serving_url"]

_PATIENCE: Final = 1.0
"""Seconds a starting server tries to acquire the lock; another process may just be checking it."""
_PAUSE: Final = 0.02
"""Seconds between two tries."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """What the lock file says of the server that holds it."""

    pid: int
    url: str = ""
    """Empty until the server is bound."""


_HOLDER: Final = msgspec.json.Decoder(Holder)
"""Made at import: msgspec must not meet a type in two threads at once for the first time."""


def lock_path(db: Path) -> Path:
    """Return where the lock of this database is."""
    real = Path(os.path.realpath(db))
    return real.with_name(f"{real.name}.lock")


class FileLock:
    """The lock of one database file, held from the constructor to `release`."""

    def __init__(self, db: Path) -> None:
        """Acquire the lock.

        Raises:
            ConfigError: Another server has it, the folder cannot be written to, or the file
                has other names, under which nobody would see the lock.
        """
        self._db = db
        _refuse_hard_links(db)
        try:
            self._fd = os.open(lock_path(db), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            message = f"cannot lock database '{db}': {error.strerror}"
            raise ConfigError(message) from error
        try:
            self._acquire()
        except BaseException:
            os.close(self._fd)
            raise
        self._write(Holder(pid=os.getpid()))

    def _acquire(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not _try_lock(self._fd, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise ConfigError(_describe(self._db, _read(self._fd)))
            time.sleep(_PAUSE)

    def publish(self, url: str) -> None:
        """Let other processes find the server at `url`."""
        self._write(Holder(pid=os.getpid(), url=url))

    def _write(self, holder: Holder) -> None:
        text = msgspec.json.encode(holder)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text, 0)

    def release(self) -> None:
        """Release the lock; calling it twice is fine."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def serving_url(path: str | os.PathLike[str], *, patience: float = 5.0) -> str | None:
    """Return the URL of the server that has the database `path` open, or None.

    Blocks for at most `patience` seconds while a server that is just starting has the lock
    but no address yet: call it in a worker thread.

    Args:
        path: The database file.
        patience: Seconds.
    """
    try:
        fd = os.open(lock_path(Path(path)), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        deadline = time.monotonic() + patience
        while True:
            if _try_lock(fd, fcntl.LOCK_SH):  # nobody holds it; closing releases it
                return None
            holder = _read(fd)
            if holder is not None and holder.url:
                return holder.url
            if time.monotonic() > deadline:
                return None
            time.sleep(_PAUSE)
    finally:
        os.close(fd)


def _refuse_hard_links(db: Path) -> None:
    """Check that the file has one name: SQLite's own log and this lock are named after it."""
    try:
        status = os.stat(db)
    except OSError:  # not there yet, or an error when it is opened
        return
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:  # a folder has links of its own
        message = (
            f"database '{db}' has {status.st_nlink} names (hard links), and two servers that use "
            "it under different ones would damage it; remove the others, or make symbolic links"
        )
        raise ConfigError(message)


def _try_lock(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(fd: int) -> Holder | None:
    try:
        return _HOLDER.decode(os.pread(fd, 4096, 0))
    except msgspec.MsgspecError:  # being written just now
        return None


def _describe(db: Path, holder: Holder | None) -> str:
    if holder is None:
        return f"database '{db}' is in use by another server"
    where = f" at {holder.url}" if holder.url else ""
    return f"database '{db}' is in use by the server with process id {holder.pid}{where}"
