"""Where it was measured: the machine, the load it was under, and the versions."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

__all__ = ["described", "file_system_of"]


def described() -> dict[str, str]:
    """Return what a reader needs to know about this machine, now."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}, files on {_file_system()}",
        "load": f"{os.getloadavg()[0]:.1f}",
        "Python": platform.python_version(),
        "packages": ", ".join(
            f"{name} {version(name)}" for name in ("aiohttp", "msgspec", "anyio")
        ),
        "commit": _commit(),
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file_system() -> str:
    """Return the kind of file system that the server's database is put on."""
    try:
        mounts = Path("/proc/mounts").read_text()
    except OSError:
        return file_system_of("", "")
    return file_system_of(str(Path(__file__).resolve()), mounts)


def file_system_of(path: str, mounts: str) -> str:
    """Return the kind of file system that a path is on; a chroot may not know it."""
    lines = [line.split(" ") for line in mounts.splitlines()]
    fitting = [(len(where), kind) for _, where, kind, *_ in lines if path.startswith(where)]
    return max(fitting, default=(0, "a file system unknown"))[1]


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
