"""The files of a database: checked before they are opened, made for their owner alone.

Theory of operation. Another user of the machine may have put a link, a fifo, a device or a file
of their own where one of ours is expected. So what is there is checked by `lstat` first, which
neither blocks nor follows; the lock file, which is opened here, is checked once more as it was
opened. SQLite opens the database and its log by itself, and follows no link when it does.
The database is named by its real path, so that links to it share one lock. It is never opened
here while it exists: closing it would release the locks that SQLite has on it in this process.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from openai_runs.errors import ConfigError

__all__ = [
    "check_database",
    "keep_private",
    "lock_path",
    "make_private",
    "open_lock",
    "real_path",
    "set_private",
]

_PRIVATE: Final = 0o600
_SAFELY: Final = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
"""How files are opened: a fifo does not block, and a link is not followed."""
_TRIES: Final = 5
"""Times that a lock file is looked for which others make or remove meanwhile."""
_BESIDE: Final = ("-wal", "-shm", "-journal")
"""What SQLite adds to the name of a database for its own files."""
_KINDS: Final[tuple[tuple[Callable[[int], bool], str], ...]] = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a fifo"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

_logger = logging.getLogger("openai_runs.server")


def real_path(db: Path) -> Path:
    """Return the path of the database without symbolic links.

    Raises:
        ConfigError: It cannot be a path.
    """
    try:
        return Path(os.path.realpath(db))
    except ValueError as error:  # a NUL
        message = f"cannot use database {ascii(str(db))}: {error}; use another path"
        raise ConfigError(message) from error


def lock_path(db: Path) -> Path:
    """Return where the lock of this database is: beside the file itself, whatever links to it."""
    real = real_path(db)
    return real.with_name(f"{real.name}.lock") if real.name else real / ".lock"


def check_database(db: Path) -> None:
    """Check that the database and SQLite's own files can be used, as far as they are there.

    Raises:
        ConfigError: One is no regular file, is somebody else's, has other names, or is read-only.
    """
    real = real_path(db)
    subject = f"cannot use database '{db}'"
    found = _lstat(real, subject)
    if found is not None:
        user = os.geteuid()
        _refuse_strange(real, found, subject, None if user == 0 else frozenset({0, user}))
        _refuse_hard_links(db, found)
        _refuse_read_only(real, found, subject)
    for each in _beside(real):
        status = _lstat(each, subject)
        if status is not None:
            _refuse_strange(each, status, subject, _owners(found))
            _refuse_read_only(each, status, subject)
    folder = _lstat(real.parent, subject)
    if folder is not None:  # else the lock cannot be made, which says so
        _refuse_read_only(real.parent, folder, subject)


def make_private(db: Path) -> None:
    """Make the database, for its owner alone, where there is none; call it under the lock.

    SQLite gives its own files beside it the same permissions.

    Raises:
        ConfigError: The file cannot be made.
    """
    real = real_path(db)
    if real.exists():
        return
    try:
        fd = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFELY, _PRIVATE)
        try:
            set_private(fd)  # whatever the umask
        finally:
            os.close(fd)
    except OSError as error:
        message = (
            f"cannot use database '{db}': {error.strerror} when '{real}' was made; check the "
            "permissions of its folder, and the space on its disk"
        )
        raise ConfigError(message) from error


def keep_private(db: Path) -> None:
    """Take the rights of others to a database that is ours, to its copies and SQLite's own files.

    Where that cannot be done, the log says so, and the database is served all the same.
    """
    real = real_path(db)
    listed = real.parent.iterdir() if os.access(real.parent, os.R_OK) else iter(())
    copies = (each for each in listed if each.name.startswith(f"{real.name}.schema-"))
    wide = [each for each in (real, *_beside(real), *copies) if _is_shared(each)]
    for each in wide:
        with suppress(OSError):  # seen below
            os.chmod(each, stat.S_IMODE(os.lstat(each).st_mode) & ~0o077)
    left = [each.name for each in wide if _is_shared(each)]
    if left:
        _logger.warning(
            "other users have rights to database '%s', and they cannot be taken, as its file "
            "system has no permissions or it has another owner (%s); move it to a folder of yours",
            real,
            ", ".join(left),
        )
    elif wide:
        _logger.warning(
            "other users had rights to database '%s'; now its owner alone has (changed: %s)",
            real,
            ", ".join(each.name for each in wide),
        )


def open_lock(db: Path, flags: int, *, make: bool = False) -> int | None:
    """Return the lock file, opened; None if it is not there and not to be made.

    Raises:
        ConfigError: It is no regular file, is somebody else's, can be written by others, has
            other names, or cannot be opened.
    """
    path = lock_path(db)
    subject = f"cannot lock database '{db}'"
    database = _lstat(real_path(db), subject)
    for _ in range(_TRIES):
        found = _lstat(path, subject)
        if found is None and not make:
            return None
        try:
            if found is None:
                return os.open(path, flags | os.O_CREAT | os.O_EXCL | _SAFELY, _PRIVATE)
            _refuse_planted(path, found, subject, database)
            fd = os.open(path, flags | _SAFELY)
        except FileExistsError:  # another server has just made it
            continue
        except OSError as error:
            if isinstance(error, FileNotFoundError) and found is not None:
                continue
            raise _not_opened(path, error, subject) from error
        try:  # another file may have come in its place since it was looked at
            _refuse_planted(path, os.fstat(fd), subject, database)
            _refuse_writable(path, fd, subject)
        except BaseException:
            os.close(fd)
            raise
        return fd
    message = f"{subject}: its lock file '{path}' comes and goes; find out what removes it"
    raise ConfigError(message)


def set_private(fd: int) -> None:
    """Give an open file to its owner alone, as far as its file system knows permissions."""
    with suppress(OSError):  # such as FAT and some network file systems
        os.fchmod(fd, _PRIVATE)


def _beside(real: Path) -> list[Path]:
    return [Path(f"{real}{suffix}") for suffix in _BESIDE]


def _lstat(path: Path, subject: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"{subject}: {error.strerror} at '{path}'; use a path that this user can reach"
        raise ConfigError(message) from error


def _refuse_planted(
    path: Path, status: os.stat_result, subject: str, database: os.stat_result | None
) -> None:
    _refuse_strange(path, status, subject, _owners(database))
    if status.st_nlink > 1:
        message = (
            f"{subject}: its lock file '{path}' has {status.st_nlink} names (hard links), so "
            "writing to it would change another file; remove it when no server is running"
        )
        raise ConfigError(message)


def _refuse_writable(path: Path, fd: int, subject: str) -> None:
    """Refuse a lock file that others can write to, unless its file system knows no permissions."""
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if not mode & 0o022:
        return
    set_private(fd)
    if os.fstat(fd).st_mode & 0o022:
        return
    os.fchmod(fd, mode)  # as it was: who wrote to it until now is not known the next time either
    message = (
        f"{subject}: other users can write to its lock file '{path}' (mode {mode:04o}), so what "
        "it says cannot be trusted; remove it when no server is running"
    )
    raise ConfigError(message)


def _refuse_strange(
    path: Path, status: os.stat_result, subject: str, owners: frozenset[int] | None
) -> None:
    """Refuse what is no regular file, or belongs to none of the owners; None: anybody."""
    for is_kind, name in _KINDS:
        if is_kind(status.st_mode):
            message = (
                f"{subject}: '{path}' is {name}, not a regular file; remove it if it is not "
                "yours, or use another path"
            )
            raise ConfigError(message)
    if owners is not None and status.st_uid not in owners:
        message = (
            f"{subject}: '{path}' belongs to user id {status.st_uid}, and this process runs as "
            f"user id {os.geteuid()}; run as its owner, change the owner, or use another path"
        )
        raise ConfigError(message)


def _owners(database: os.stat_result | None) -> frozenset[int]:
    """Return who may own the files beside a database; root may serve that of another user."""
    user = os.geteuid()
    return frozenset({0, user if user != 0 or database is None else database.st_uid})


def _refuse_hard_links(db: Path, status: os.stat_result) -> None:
    """Check that the file has one name: SQLite's own log and the lock are named after it."""
    if status.st_nlink > 1:
        message = (
            f"database '{db}' has {status.st_nlink} names (hard links), and two servers that use "
            "it under different ones would damage it; remove the others, or make symbolic links"
        )
        raise ConfigError(message)


def _refuse_read_only(path: Path, status: os.stat_result, subject: str) -> None:
    """Refuse what nobody may write to, also where this process is root, who may all the same."""
    if status.st_mode & 0o222 and os.access(path, os.W_OK):
        return
    why = f"mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}"
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        why = "its file system is mounted read-only"
    message = (
        f"{subject}: '{path}' cannot be written to ({why}; this process runs as user id "
        f"{os.geteuid()}); a server needs to write: change the permissions, mount it writable, or "
        "serve a copy"
    )
    raise ConfigError(message)


def _not_opened(path: Path, error: OSError, subject: str) -> ConfigError:
    return ConfigError(
        f"{subject}: {error.strerror} when its lock file '{path}' was opened; use a folder that "
        "exists and that this user can write to"
    )


def _is_shared(path: Path) -> bool:
    """Return whether a regular file gives group or others any right."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o077)
