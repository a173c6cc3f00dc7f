"""One thing that was found."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

__all__ = ["Finding", "State"]

State: TypeAlias = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was checked, how it stands, and what to do next."""

    topic: str
    state: State
    text: str
    advice: str = ""
