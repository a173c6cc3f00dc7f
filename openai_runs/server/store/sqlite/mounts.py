"""A database on a network file system: found on Linux, and warned of.

SQLite's locks and the memory that its log is shared by are of one machine: over a network they
may be missing or late, and two programs that write at once then damage the file. Elsewhere
nothing is known of the file system, and nothing is said.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Final

from openai_runs.server.store.sqlite.files import real_path

__all__ = ["find_network", "warn_of_network"]

_MOUNTS: Final = Path("/proc/self/mountinfo")
_NETWORKS: Final = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "pvfs2",
        "smb2",
        "smb3",
        "smbfs",
        "virtiofs",
        "vboxsf",
        "vmhgfs",
    }
)
_LOCAL_FUSE: Final = frozenset(
    {"fuse.bindfs", "fuse.fuse-overlayfs", "fuse.ntfs-3g", "fuse.ntfs", "fuse.ext4", "fuse.exfat"}
)
"""Programs behind FUSE whose files are on a disk of this machine."""
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")

_logger = logging.getLogger("openai_runs.server")


def warn_of_network(db: Path, mounts: Path | None = None) -> None:
    """Log a line where the database is on a network file system, or may be."""
    try:
        table = (mounts or _MOUNTS).read_text("utf-8", "surrogateescape")
    except OSError:  # not Linux, or hidden: nothing is known
        return
    kind = find_network(real_path(db), table)
    if kind is not None:
        _logger.warning(
            "database '%s' is on a file system of type %s, which is, or may be, of a network: "
            "SQLite's locks and its write-ahead log work on one machine only, and two programs "
            "that use the file at once may damage it; move it to a local disk",
            db,
            kind,
        )


def find_network(real: Path, table: str) -> str | None:
    """Return the type of the file system that a path is on, if that may be of a network.

    Args:
        real: An absolute path without symbolic links.
        table: The text of `/proc/self/mountinfo`.
    """
    kind, longest = "", -1
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) < 5 or not kinds[0]:
            continue
        point = Path(_ESCAPE.sub(lambda found: chr(int(found[1], 8)), fields[4]))
        # Of two at the same place, the later one hides the one before.
        if real.is_relative_to(point) and len(point.parts) >= longest:
            kind, longest = kinds[0], len(point.parts)
    is_fuse = kind in {"fuse", "osxfs"} or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)
    return kind if kind in _NETWORKS or is_fuse else None
