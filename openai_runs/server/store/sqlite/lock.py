"""One server per file: a lock beside it, with the server's address inside.

`flock` belongs to the open file, so it goes with the process however that ends, and two
servers in one process exclude each other too. The file itself is never removed: whoever
held an unlinked one would lock nothing. What is at its path may have been put there by another
user: `files` says what is opened, and `proof` which address is believed.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path
from typing import Final

import msgspec

from openai_runs.config import LOCK_PATIENCE, MAX_LOCK_BYTES, SERVER_PATIENCE
from openai_runs.errors import ConfigError
from openai_runs.server.store.sqlite.files import lock_path, open_lock, set_private
from openai_runs.server.store.sqlite.proof import new_secret, parse_address, prove, proves

__all__ = ["FileLock", "serving_url"]

_PAUSE: Final = 0.02
"""Seconds between two tries."""
_PROOF_PAUSE: Final = 0.2
"""Seconds between two tries where a server was asked for its proof."""
_CREDENTIALS: Final = re.compile("//(?:[^/@]*+@)++")
_BEGIN: Final = b'{"pid":'
"""How the content of every lock file begins; an empty one, or one of zeros, is of a crash."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """What the lock file says of the server that holds it."""

    pid: int
    url: str = ""
    """Empty until the server is bound."""
    secret: str = ""
    """What the server proves with that it is the one."""


_HOLDER: Final = msgspec.json.Decoder(Holder)
"""Made at import: msgspec must not meet a type in two threads at once for the first time."""


class FileLock:
    """The lock of one database file, held from the constructor to `release`."""

    def __init__(self, db: Path) -> None:
        """Acquire the lock.

        Raises:
            ConfigError: Another server has it, or the lock file cannot be used.
        """
        self._db = db
        self._url = ""
        self._secret = new_secret()
        fd = open_lock(db, os.O_RDWR, make=True)
        assert fd is not None  # it is made
        self._fd = fd
        try:
            self._acquire()
            _refuse_foreign(db, os.pread(fd, MAX_LOCK_BYTES + 1, 0))
            set_private(fd)  # whatever the umask
            self._write(Holder(pid=os.getpid()))
        except OSError as error:
            os.close(fd)
            message = (
                f"cannot lock database '{db}': {error.strerror} when its lock file "
                f"'{lock_path(db)}' was written; check its disk"
            )
            raise ConfigError(message) from error
        except BaseException:
            os.close(fd)
            raise

    def _acquire(self) -> None:
        deadline = time.monotonic() + LOCK_PATIENCE
        while not _try_lock(self._fd, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise ConfigError(_describe(self._db, _read(self._fd)))
            time.sleep(_PAUSE)

    def publish(self, url: str) -> None:
        """Let other processes find the server at `url`."""
        self._url = url
        self._write(Holder(pid=os.getpid(), url=url, secret=self._secret))

    def prove(self, nonce: str) -> str:
        """Return the proof that this server has the lock."""
        return prove(self._secret, nonce, self._url)

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


def serving_url(path: str | os.PathLike[str], *, patience: float = SERVER_PATIENCE) -> str | None:
    """Return the URL of the server that has the database `path` open, or None.

    The address in the lock file is believed only if it is one of this machine, and the server
    there proves that it has the lock; no API key is sent before. Blocks for at most about
    `patience` seconds while a server that is just starting has the lock but no address yet, or
    does not answer: call it in a worker thread.

    Args:
        path: The database file.
        patience: Seconds.

    Raises:
        ConfigError: The lock file is not one of ours, or the address in it cannot be believed.
    """
    db = Path(path)
    fd = open_lock(db, os.O_RDONLY)
    if fd is None:
        return None
    try:
        return _find(db, fd, time.monotonic() + patience)
    except OSError as error:
        message = f"cannot read the lock file '{lock_path(db)}': {error.strerror}"
        raise ConfigError(message) from error
    finally:
        os.close(fd)


def _find(db: Path, fd: int, deadline: float) -> str | None:
    while True:
        if _try_lock(fd, fcntl.LOCK_SH):  # nobody holds it; closing releases it
            return None
        content = os.pread(fd, MAX_LOCK_BYTES + 1, 0)
        _refuse_foreign(db, content)
        holder = _parse(content)
        url = "" if holder is None else holder.url
        if url:
            _refuse_address(db, url)
            if holder is not None and proves(url, holder.secret, deadline):
                return url
        if time.monotonic() > deadline:
            if url:
                raise ConfigError(_describe_unproven(db, url))
            return None
        time.sleep(_PROOF_PAUSE if url else _PAUSE)


def _refuse_foreign(db: Path, content: bytes) -> None:
    """Check that the file is a lock file, before it is written to or believed."""
    text = content.strip(b"\0")
    begins = text.startswith(_BEGIN) or _BEGIN.startswith(text)
    if len(content) <= MAX_LOCK_BYTES and begins and text.isascii():
        return
    message = (
        f"cannot lock database '{db}': '{lock_path(db)}' is not a lock file of openai-runs (it has "
        f"{'more than ' if len(content) > MAX_LOCK_BYTES else ''}"
        f"{min(len(content), MAX_LOCK_BYTES)} bytes of something else); move it away, or use "
        "another path"
    )
    raise ConfigError(message)


def _refuse_address(db: Path, url: str) -> None:
    if parse_address(url) is None:
        shown = ascii(_CREDENTIALS.sub("//***@", url)[:100])
        message = (
            f"the lock file '{lock_path(db)}' names a server at {shown}, which is not a loopback "
            "address such as http://127.0.0.1:8080/v1, so it is not used; if it is your server, "
            "pass its address as base_url, else stop the process that holds the lock"
        )
        raise ConfigError(message)


def _describe_unproven(db: Path, url: str) -> str:
    return (
        f"the lock file '{lock_path(db)}' names a server at {url}, which did not prove that it "
        f"has database '{db}', so nothing was sent to it; try again if it was just starting or "
        "stopping, or is of an older version of openai-runs, else find out what holds the lock"
    )


def _try_lock(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(fd: int) -> Holder | None:
    return _parse(os.pread(fd, MAX_LOCK_BYTES, 0))


def _parse(content: bytes) -> Holder | None:
    try:
        return _HOLDER.decode(content)
    except msgspec.MsgspecError:  # being written just now
        return None


def _describe(db: Path, holder: Holder | None) -> str:
    if holder is None:
        return (
            f"database '{db}' is in use by another process, which holds '{lock_path(db)}' and "
            "does not say who it is; stop it, or use another path"
        )
    where = f" at {holder.url}" if parse_address(holder.url) else ""
    return (
        f"database '{db}' is in use by the server with process id {holder.pid}{where}; "
        "connect to it, stop it, or use another path"
    )
