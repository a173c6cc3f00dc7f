"""Answers as servers send them, as files; the README says where each comes from."""

import json
from pathlib import Path
from typing import Any

__all__ = ["ANSWERS", "ERRORS", "STREAMS", "differences", "load", "raw"]

HERE = Path(__file__).parent

ANSWERS = sorted(
    str(path.relative_to(HERE)) for path in HERE.glob("*/*.json") if path.parent.name != "errors"
)
"""`<operation>/<what>.json` of each answer."""
ERRORS = sorted(path.name for path in (HERE / "errors").iterdir())
"""`<status>_<what>.*` of each error body."""
STREAMS = sorted(str(path.relative_to(HERE)) for path in HERE.glob("streams/*.sse"))
"""`streams/<what>.sse` of each stream."""


def raw(name: str) -> bytes:
    """Return the bytes of a sample."""
    return (HERE / name).read_bytes()


def load(name: str) -> Any:
    """Return the JSON of a sample."""
    return json.loads(raw(name))


def differences(wire: Any, ours: Any, path: str = "$") -> dict[str, tuple[Any, Any]]:
    """Return what differs, by path, as (on the wire, ours); `...` stands for absent."""
    found: dict[str, tuple[Any, Any]] = {}
    if isinstance(wire, dict) and isinstance(ours, dict):
        for key in wire.keys() | ours.keys():
            found |= differences(wire.get(key, ...), ours.get(key, ...), f"{path}.{key}")
    elif isinstance(wire, list) and isinstance(ours, list) and len(wire) == len(ours):
        for number, (theirs, own) in enumerate(zip(wire, ours, strict=True)):
            found |= differences(theirs, own, f"{path}[{number}]")
    elif wire != ours or isinstance(wire, bool) != isinstance(ours, bool):
        found[path] = (wire, ours)
    return found
