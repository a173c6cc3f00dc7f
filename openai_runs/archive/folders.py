"""How an archive lies on the disk, read and written. Blocking: callers use worker threads.

    manifest.json            written last: counts, and the order and hash of every file
    assistants.jsonl         {"assistant": {...}}
    threads/thread_1.jsonl   {"thread": {...}}, then {"message": {...}} each, then {"run": {...}}
                             each, with its {"step": {...}} behind it; oldest first
    left-out.jsonl           what is not in it, and why

Objects stand as the server sent them, unknown fields and the order of keys included; only the
white space between is gone. The same objects give the same bytes. A file appears under its name
when all of it is on the disk (a temporary file, fsync, rename), so a kill leaves no half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any, Final

import msgspec

from openai_runs.errors import ConfigError

__all__ = [
    "ASSISTANTS",
    "LEFT_OUT",
    "MANIFEST",
    "THREADS",
    "FileEntry",
    "Manifest",
    "RunLines",
    "ThreadEntry",
    "ThreadLines",
    "begin",
    "compact",
    "decode_thread",
    "digest",
    "encode_thread",
    "finish",
    "lines_of",
    "make_folder",
    "mark_verified",
    "parse_object",
    "read_if_there",
    "read_manifest",
    "thread_path",
    "verified",
    "write_manifest",
    "write_whole",
]

FORMAT: Final = "openai-runs-archive/1"
MANIFEST: Final = "manifest.json"
ASSISTANTS: Final = "assistants.jsonl"
LEFT_OUT: Final = "left-out.jsonl"
THREADS: Final = "threads"

_PART: Final = ".part"
_PRIVATE: Final = stat.S_IRUSR | stat.S_IWUSR
_BEGUN: Final = ".begun"
"""Is there while an export is under way; its time is when that began. What is of a later time was
seen to be as the server has it."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}\Z")
"""An id that can be the name of a file."""


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One file, in the manifest."""

    file: str
    sha256: str


class ThreadEntry(FileEntry, frozen=True, kw_only=True):
    """The file of a thread, in the manifest."""

    id: str
    messages: int
    runs: int
    steps: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive holds; its threads are in the order of the server they came from."""

    format: str
    counts: dict[str, int]
    assistants: FileEntry
    left_out: FileEntry
    threads: list[ThreadEntry]


class RunLines(msgspec.Struct, frozen=True):
    """A run and its steps, as JSON."""

    run: bytes
    steps: list[bytes]


class ThreadLines(msgspec.Struct, frozen=True, kw_only=True):
    """A thread and all that is on it, as JSON, oldest first."""

    thread: bytes
    messages: list[bytes]
    runs: list[RunLines]

    @property
    def steps(self) -> int:
        """Return how many steps its runs have."""
        return sum(len(run.steps) for run in self.runs)


class _ThreadLine(msgspec.Struct, forbid_unknown_fields=True):
    thread: msgspec.Raw = msgspec.Raw()
    message: msgspec.Raw = msgspec.Raw()
    run: msgspec.Raw = msgspec.Raw()
    step: msgspec.Raw = msgspec.Raw()


_lines: Final = msgspec.json.Decoder(_ThreadLine)


def compact(raw: msgspec.Raw | bytes) -> bytes:
    """Return the JSON as one line, with its numbers and texts as they are.

    >>> compact(b'{"b": 1.50, "a": [ ]}')
    b'{"b":1.50,"a":[]}'
    """
    return msgspec.json.format(bytes(raw), indent=-1)


def lines_of(kind: str, items: list[bytes]) -> bytes:
    """Return a line for each."""
    return b"".join(b'{"%s":%s}\n' % (kind.encode(), item) for item in items)


def parse_object(raw: bytes) -> dict[str, Any]:
    r"""Return the object; half of a surrogate pair, which cannot be sent, becomes U+FFFD.

    >>> parse_object(b'{"a": "\\ud83c\\udf27 \\ud83c"}')["a"] == "\U0001f327 \ufffd"
    True

    Raises:
        ValueError: It is no JSON object.
    """
    try:
        value = msgspec.json.decode(raw)
    except RecursionError:
        message = "it is nested too deeply"
        raise ValueError(message) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = json.dumps(json.loads(raw), ensure_ascii=False)
        value = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    if not isinstance(value, dict):
        message = "it is no JSON object"
        raise ValueError(message)
    return value


def encode_thread(lines: ThreadLines) -> bytes:
    """Return the contents of its file."""
    pieces = [lines_of("thread", [lines.thread]), lines_of("message", lines.messages)]
    for run in lines.runs:
        pieces += [lines_of("run", [run.run]), lines_of("step", run.steps)]
    return b"".join(pieces)


def decode_thread(data: bytes) -> ThreadLines:
    """Return what the file of a thread holds.

    Raises:
        ValueError: It is damaged.
    """
    thread = b""
    messages: list[bytes] = []
    runs: list[RunLines] = []
    for text in data.split(b"\n"):
        if not text:
            continue
        line = _lines.decode(text)  # its error is a ValueError
        if bytes(line.thread):
            thread = bytes(line.thread)
        elif bytes(line.message):
            messages.append(bytes(line.message))
        elif bytes(line.run):
            runs.append(RunLines(bytes(line.run), []))
        elif runs:
            runs[-1].steps.append(bytes(line.step))
    if not thread:
        message = "it holds no thread"
        raise ValueError(message)
    return ThreadLines(thread=thread, messages=messages, runs=runs)


def thread_path(thread_id: str) -> str:
    """Return where the thread's file is, below the folder.

    >>> thread_path("thread_1")
    'threads/thread_1.jsonl'
    """
    if _PLAIN.match(thread_id):
        return f"{THREADS}/{thread_id}.jsonl"
    name = hashlib.sha256(thread_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{THREADS}/sha256-{name}.jsonl"


def digest(data: bytes) -> str:
    """Return the hash that a manifest has of a file."""
    return hashlib.sha256(data).hexdigest()


def begin(folder: Path) -> tuple[list[str], int]:
    """Make the folder, and drop what a kill left half written.

    Returns:
        The threads' files that are there, and when the export began that goes on now.

    Raises:
        ConfigError: Something else is there.
    """
    try:
        make_folder(folder)
        make_folder(folder / THREADS)
    except (FileExistsError, NotADirectoryError) as error:
        message = f"{str(folder)!r} is no folder: name one, or one that is to be made"
        raise ConfigError(message) from error
    for left in (*folder.glob(f"*{_PART}"), *(folder / THREADS).glob(f"*{_PART}")):
        left.unlink()
    begun = folder / _BEGUN
    if not begun.exists():
        write_whole(begun, b"")
    there = sorted(f"{THREADS}/{path.name}" for path in (folder / THREADS).glob("*.jsonl"))
    return there, begun.stat().st_mtime_ns


def finish(folder: Path) -> None:
    """Note that the export is not under way any more: a later one asks for everything again."""
    (folder / _BEGUN).unlink(missing_ok=True)


def verified(path: Path, since: int) -> bytes | None:
    """Return the contents of the file if it was seen to be right since then; None if not."""
    try:
        return path.read_bytes() if path.stat().st_mtime_ns >= since else None
    except FileNotFoundError:
        return None


def mark_verified(path: Path) -> None:
    """Note that the file is as the server has it."""
    os.utime(path)


def read_if_there(path: Path) -> bytes | None:
    """Return the contents of the file; None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def write_whole(path: Path, data: bytes) -> None:
    """Write the file so that it is there whole or not at all, and for its owner alone."""
    part = path.with_name(path.name + _PART)
    part.unlink(missing_ok=True)
    with open(part, "xb", opener=_open_private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    if hasattr(os, "O_DIRECTORY"):  # elsewhere a folder cannot be synchronized
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, _PRIVATE)


def make_folder(path: Path) -> None:
    """Make a folder for its owner alone, if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=_PRIVATE | stat.S_IXUSR, exist_ok=True)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest: what the archive holds is whole."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    write_whole(folder / MANIFEST, text + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest.

    Raises:
        ConfigError: There is none, or it cannot be read.
    """
    data = read_if_there(folder / MANIFEST)
    if data is None:
        problem = "it has no manifest.json; an export that was cut short goes on when it is started"
        message = f"{str(folder)!r} is no whole archive: {problem} again"
        raise ConfigError(message)
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        message = f"{str(folder / MANIFEST)!r} cannot be read: {error}"
        raise ConfigError(message) from None
    if manifest.format != FORMAT:
        message = f"{str(folder)!r} is of the format {manifest.format!r}, not {FORMAT!r}"
        raise ConfigError(message)
    named = [(manifest.assistants.file, ASSISTANTS), (manifest.left_out.file, LEFT_OUT)]
    named += [(entry.file, thread_path(entry.id)) for entry in manifest.threads]
    for file, wanted in named:  # an archive of somebody else's must not have others read
        if file != wanted:
            message = f"the manifest of {str(folder)!r} names {file!r} in place of {wanted!r}"
            raise ConfigError(message)
    return manifest
