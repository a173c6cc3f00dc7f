"""What is installed: Python, this package, its libraries and extras."""

from __future__ import annotations

import platform
import re
import sqlite3
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final

from openai_runs._diagnosis.finding import Finding
from openai_runs.config import VERSION, from_env

__all__ = ["check_environment", "check_installed"]

_LIBRARIES: Final = ("aiohttp", "anyio", "msgspec")
_USER: Final = re.compile(r"//[^/@]*+@")
_EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "cli": ("cyclopts", "rich", "prompt_toolkit"),
    "server": ("sqlalchemy",),
    "postgres": ("psycopg", "psycopg_pool", "procrastinate"),
}
"""Extra -> the modules that it brings."""
_OPTIONAL: Final = "postgres"
"""The extra that only servers on PostgreSQL need."""


def check_installed() -> Iterator[Finding]:
    """Yield what there is."""
    yield Finding(topic="python", state="ok", text=f"{platform.python_version()}")
    known = ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES)
    yield Finding(topic="package", state="ok", text=f"openai-runs {VERSION} with {known}")
    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if find_spec(name) is None]
        if missing and extra == _OPTIONAL:
            text = "not installed; only a database at postgresql:// needs it"
            yield Finding(topic=f"extra {extra}", state="ok", text=text)
        elif missing:
            yield Finding(
                topic=f"extra {extra}",
                state="warn",
                text=f"{', '.join(missing)} is not installed",
                advice=f"install this package with [{extra}], or with [all]",
            )
        else:
            there = ", ".join(f"{name} {_version(name)}" for name in modules)
            yield Finding(topic=f"extra {extra}", state="ok", text=there)
    yield Finding(topic="sqlite", state="ok", text=sqlite3.sqlite_version)


def check_environment(environ: Mapping[str, str]) -> Finding:
    """Return what clients take from the environment; keys are not shown."""
    found = from_env(environ)
    key = "set" if found.api_key else "not set"
    url = _USER.sub("//***@", (found.base_url or "not set").partition("?")[0])
    return Finding(
        topic="environment", state="ok", text=f"OPENAI_BASE_URL {url}; OPENAI_API_KEY {key}"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # installed some other way
        return "of an unknown version"
