"""Shared JSON: what many runs have in common is stored once, under its hash.

Theory of operation. A run shows the instructions, the tools and the response format that it was
started with, and so do its events. What is large of these is a row of `shared_json`. The row of
the run, its log, the answers under idempotency keys and what is kept in memory hold the run's
*stored* JSON: without these fields, and with one more at its end that names their rows:

    {"id": "run_1", ..., "instructions": "its own end", "_shared": {"instructions": ["<sha256>"]}}

`join` puts the texts in their place, on the way out and nowhere before, so a run moves without
anybody reading them. Instructions are the only field whose shared text is followed by some of the
run's own: additional instructions come behind those of an assistant. A text never changes. It is
deleted when no run names it, and no idempotency key can: see `prune`.

Why the last field cannot be mistaken: a quote within a JSON text is escaped, no field of a run is
called `_shared`, and one of an object inside of it is followed by more than two braces.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec
from sqlalchemy import Executable, Table, bindparam, delete, exists, func, select

from openai_runs._protocol.lenient import decoder_for
from openai_runs.config import IDEMPOTENCY_TTL
from openai_runs.server.api_errors import not_found
from openai_runs.server.store.damage import DamagedRow, describe_damage
from openai_runs.server.store.database import Connection, Readable
from openai_runs.server.store.rows import NOUNS, id_in, text_bytes
from openai_runs.server.store.schema import run_shared_json, runs, shared_json
from openai_runs.server.store.statements import Statement, inserting
from openai_runs.types.runs import Run

__all__ = [
    "SharedJson",
    "Split",
    "encode_again",
    "find",
    "join",
    "keep",
    "measuring",
    "prune",
    "split",
]

T = TypeVar("T")

_FIELDS: Final = ("tools", "response_format")
"""Fields of a run that may be large and never change; besides `instructions`."""
_SMALLEST: Final = 1024
"""Bytes of JSON from which a field is stored apart; below, naming it saves next to nothing."""
_NAMES: Final = b',"_shared":'
_INSTRUCTIONS: Final = b',"instructions":"'
_DATA: Final = b"\ndata: "
_KEPT_TEXTS: Final = 16 * 1024 * 1024
"""Bytes of shared texts that are kept in memory, so that a poll reads none."""
_KEPT_VALUES: Final = 4 * 1024 * 1024
"""Bytes of the JSON of decoded texts that are kept, so that runs share them; decoded, a text
takes several times its bytes."""
_MARKED: Final = 3600
"""Seconds between two notes that a text is in use: each writes the whole row."""
_PRUNED: Final = 200
"""Texts that are deleted in one piece of work; the writer has others to serve."""


def _keeping(insert: Callable[[Table], Any]) -> Executable:
    new = insert(shared_json)
    clause: Executable = new.on_conflict_do_update(
        index_elements=[shared_json.c.hash],
        set_={"used_at": new.excluded.used_at},
        where=shared_json.c.used_at < new.excluded.used_at - _MARKED,
    )
    return clause


_KEEP: Final = Statement(_keeping, ["hash", "body", "used_at"])
_MARKED_AT: Final = Statement(
    select(shared_json.c.used_at).where(shared_json.c.hash == bindparam("hash"))
)
_FIND: Final = Statement(select(shared_json.c.body).where(shared_json.c.hash == bindparam("hash")))
_NAMED: Final = Statement(
    select(run_shared_json.c.run_id).where(run_shared_json.c.hash == bindparam("hash"))
)
_SIZE: Final = Statement(
    select(func.length(shared_json.c.body)).where(shared_json.c.hash == bindparam("hash"))
)
_UNUSED = (
    select(shared_json.c.hash)
    .where(
        shared_json.c.used_at < bindparam("before"),
        ~exists().where(run_shared_json.c.hash == shared_json.c.hash),
    )
    .limit(_PRUNED)
)
_PRUNE: Final = Statement(delete(shared_json).where(shared_json.c.hash.in_(_UNUSED)))


class Split(NamedTuple):
    """A run's JSON, as it is stored."""

    stored: bytes
    texts: dict[str, bytes]
    """What is stored apart, by hash."""


def split(run: Run, base: str) -> Split:
    """Return the run's JSON with what is large apart; its instructions may begin with `base`."""
    found: dict[str, bytes] = {}
    names: dict[str, list[str]] = {}
    for field in _FIELDS:
        text = msgspec.json.encode(getattr(run, field))
        if len(text) >= _SMALLEST:
            names[field] = [_add(found, text)]
    rest = _quoted(run.instructions or "")
    if rest.startswith(_quoted(base)) and len(base) >= _SMALLEST:
        rest = rest.removeprefix(_quoted(base))
        names["instructions"] = [_add(found, _quoted(base))]
    if len(rest) >= _SMALLEST:
        names.setdefault("instructions", []).append(_add(found, rest))
        rest = b""
    if not names:
        return Split(msgspec.json.encode(run), {})
    end = [_INSTRUCTIONS, rest, b'"'] if "instructions" in names else []
    end += [_NAMES, msgspec.json.encode(names), b"}"]
    return Split(_encode_without(run, names, *end), found)


def _add(found: dict[str, bytes], text: bytes) -> str:
    name = hashlib.sha256(text).hexdigest()
    found[name] = text
    return name


def _quoted(text: str) -> bytes:
    """Return what stands between the quotes in JSON."""
    return msgspec.json.encode(text)[1:-1]


def _encode_without(run: Run, fields: Iterable[str], *end: bytes) -> bytes:
    gone: dict[str, Any] = dict.fromkeys(fields, msgspec.UNSET)
    return b"".join((msgspec.json.encode(msgspec.structs.replace(run, **gone))[:-1], *end))


def encode_again(run: Run, before: bytes) -> bytes:
    """Return the stored JSON of a run that was decoded from `before` and then changed."""
    begin = _find_names(before)
    if begin is None:
        return msgspec.json.encode(run)
    names = _names(before, begin)
    if "instructions" in names:
        begin = before.rindex(_INSTRUCTIONS, 0, begin)
    return _encode_without(run, names, before[begin:])


def _find_names(stored: bytes) -> int | None:
    """Return where the field begins that names the shared texts; None: there are none."""
    begin = stored.rfind(_NAMES)
    if begin < 0 or not stored.endswith(b"}}") or stored.find(b"}", begin) != len(stored) - 2:
        return None
    return begin


def _names(stored: bytes, begin: int) -> dict[str, list[str]]:
    try:
        return _names_decoder.decode(stored[begin + len(_NAMES) : -1])
    except (msgspec.MsgspecError, UnicodeError) as error:
        damage = describe_damage(error)
    raise DamagedRow(runs.name, id_in(Run, stored), f"what it shares: {damage}")


_names_decoder: Final = msgspec.json.Decoder(dict[str, list[str]])


def join(stored: bytes, find_text: Callable[[str], bytes | None]) -> bytes:
    """Return the whole JSON of a run; `find_text` gives the text with a hash.

    Raises:
        Refusal: A text is gone, as its run must be.
        DamagedRow: What is stored of the run is damaged.
    """
    begin = _find_names(stored)
    if begin is None:
        return stored
    pieces = [stored[:begin]]
    for field, hashes in _names(stored, begin).items():
        text = b"".join(_need(find_text(name), stored) for name in hashes)
        if field == "instructions":
            at = pieces[0].rfind(_INSTRUCTIONS) + len(_INSTRUCTIONS)
            if at < len(_INSTRUCTIONS):
                raise DamagedRow(runs.name, id_in(Run, stored), "it has no instructions of its own")
            pieces[:1] = [pieces[0][:at], text, pieces[0][at:]]
        else:
            pieces += [b',"', field.encode(), b'":', text]
    return b"".join((*pieces, b"}"))


def _need(text: bytes | None, stored: bytes) -> bytes:
    """Return the text.

    Raises:
        Refusal: It is gone, as its run must be.
    """
    if text is None:
        raise not_found(NOUNS[Run], id_in(Run, stored))
    return text


def _join_frames(body: bytes, find_text: Callable[[str], bytes | None]) -> bytes:
    if _NAMES not in body:
        return body
    frames = []
    for frame in body.split(b"\n\n"):
        head, data, stored = frame.partition(_DATA)
        frames += [head, data, join(stored, find_text), b"\n\n"]
    return b"".join(frames[:-1])


def _names_in(stored: bytes) -> list[str]:
    begin = _find_names(stored)
    if begin is None:
        return []
    return [name for hashes in _names(stored, begin).values() for name in hashes]


def keep(connection: Connection, run_id: str, texts: Mapping[str, bytes], now: int) -> None:
    """Store the shared texts of a new run, as far as they are not there."""
    for name, text in sorted(
        texts.items()
    ):  # in one order, or two writers could wait for each other
        # Read first: an insert would lock the row, and with it all who start such runs.
        marked = _MARKED_AT.value(connection, hash=name)
        if marked is None or marked < now - _MARKED:
            _KEEP.run(connection, hash=name, body=text, used_at=now)
        inserting(run_shared_json, "run_id", "hash").run(connection, run_id=run_id, hash=name)


def find(connection: Connection, name: str) -> bytes | None:
    """Return the text with this hash.

    Raises:
        DamagedRow: The row is damaged.
    """
    text: bytes | None = _FIND.value(connection, hash=name)
    if text is None:
        if _NAMED.value(connection, hash=name) is None:
            return None
        raise DamagedRow(shared_json.name, name, "it is missing, and a run shares it")
    if not isinstance(text, bytes):
        raise DamagedRow(shared_json.name, name, "it is not bytes")
    if hashlib.sha256(text).hexdigest() != name:
        raise DamagedRow(shared_json.name, name, "it does not have its hash")
    return text


def measuring(connection: Connection) -> Callable[[str], int]:
    """Return what gives the bytes of a run's whole JSON, from what is stored of it."""
    sizes: dict[str, int] = {}

    def measure(stored: str) -> int:
        names = _names_in(stored.encode())
        for name in names:
            if name not in sizes:
                sizes[name] = _SIZE.value(connection, hash=name) or 0
        return text_bytes(stored) + sum(sizes[name] for name in names)

    return measure


def prune(connection: Connection, now: int) -> int:
    """Delete some of the texts that no run names, nor an idempotency key; return how many.

    A deleted run's answer may be kept under a key for as long as keys are.
    """
    return _PRUNE.run(connection, before=now - IDEMPOTENCY_TTL - 2 * _MARKED).rowcount


class _Cache(Generic[T]):
    """Values by name, those used last, up to a number of bytes. Any thread may use it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._values: OrderedDict[Any, tuple[T, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, name: Any) -> T | None:
        with self._lock:
            found = self._values.get(name)
            if found is None:
                return None
            self._values.move_to_end(name)
            return found[0]

    def put(self, name: Any, value: T, size: int) -> None:
        with self._lock:
            if name in self._values or size > self._limit:
                return
            self._values[name] = (value, size)
            self._size += size
            while self._size > self._limit:
                self._size -= self._values.popitem(last=False)[1][1]


class SharedJson:
    """Puts the shared texts in their place: in what is sent of runs, and in what is executed."""

    def __init__(self, database: Readable) -> None:
        """Read from this, and keep what was used last."""
        self._database = database
        self._texts: _Cache[bytes] = _Cache(_KEPT_TEXTS)
        self._values: _Cache[Any] = _Cache(_KEPT_VALUES)

    async def join(self, stored: bytes) -> bytes:
        """Return the whole JSON.

        Raises:
            Refusal: The run is gone, and its texts.
            StoreUnavailable: They cannot be read.
        """
        if _find_names(stored) is None:
            return stored
        (whole,) = await self.join_all([stored])
        return whole

    async def join_all(self, stored: Sequence[bytes]) -> list[bytes]:
        """Return the same of each."""
        texts = await self._read({name for each in stored for name in _names_in(each)})
        return [join(each, texts.get) for each in stored]

    async def join_frames(self, body: bytes) -> bytes:
        """Return events as they are sent: the same of their data."""
        if _NAMES not in body:
            return body
        data = [frame.partition(_DATA)[2] for frame in body.split(b"\n\n")]
        texts = await self._read({name for each in data for name in _names_in(each)})
        return _join_frames(body, texts.get)

    def join_frames_with(self, connection: Connection, body: bytes) -> bytes:
        """Return the same, in a piece of work that reads."""
        return _join_frames(body, lambda name: self._find(connection, name))

    async def complete(self, run: Run, stored: bytes) -> Run:
        """Return the run that was decoded from `stored` with all its fields.

        Runs with the same texts share what they are decoded to.

        Raises:
            Refusal: The run is gone, and its texts.
            StoreUnavailable: They cannot be read.
        """
        begin = _find_names(stored)
        if begin is None:
            return run
        names = _names(stored, begin)
        texts = await self._read({name for hashes in names.values() for name in hashes})
        values: dict[str, Any] = {}
        for field, hashes in names.items():
            value = self._values.get((field, *hashes))
            if value is None:
                text = b"".join(_need(texts.get(name), stored) for name in hashes)
                value = _decode_field(field, text)
                self._values.put((field, *hashes), value, len(text))
            values[field] = value
        if "instructions" in values:
            values["instructions"] += run.instructions or ""
        return msgspec.structs.replace(run, **values)

    async def _read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the texts with these hashes, as far as they are there."""
        found = {name: self._texts.get(name) for name in names}
        missing = [name for name, text in found.items() if text is None]
        if missing:
            found |= await self._database.read(
                lambda connection: {name: self._find(connection, name) for name in missing}
            )
        return {name: text for name, text in found.items() if text is not None}

    def _find(self, connection: Connection, name: str) -> bytes | None:
        text = self._texts.get(name)
        if text is None:
            text = find(connection, name)
            if text is not None:
                self._texts.put(name, text, len(text))
        return text


def _decode_field(field: str, text: bytes) -> Any:
    """Return the value of a field of runs; `text` of instructions is without its quotes."""
    if field == "instructions":
        return msgspec.json.decode(b'"' + text + b'"')
    run = b'{"id":"run","thread_id":"thread","status":"","%s":%s}' % (field.encode(), text)
    return getattr(decoder_for(Run).decode(run), field)
