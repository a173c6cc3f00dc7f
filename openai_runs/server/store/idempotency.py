"""Answers kept under their `Idempotency-Key`, in the transaction of what they answer.

The key is inserted before anything else is done, and gets its answer at the end of the same
transaction. So of two writers with one key the second waits for the first one's commit at
its insert, or finds the row there, and never does the work as well.

An answer is kept when the operation itself gave it, also one that says no; what is said
before (a body that cannot be read) or when nothing could be done (5xx) is not.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import bindparam, delete, select, update

from openai_runs.config import IDEMPOTENCY_TTL
from openai_runs.server.api_errors import Refusal, Replay, key_reused
from openai_runs.server.store.database import Connection
from openai_runs.server.store.schema import PROJECT, idempotency
from openai_runs.server.store.statements import Statement
from openai_runs.server.store.transaction import RunState

__all__ = ["KeyReused", "Once", "answer", "encode_answer", "keep", "prune", "reserve"]


class Once(msgspec.Struct, frozen=True, kw_only=True):
    """A request that must not be carried out twice."""

    key: str
    fingerprint: bytes
    """Digest of method, path and body."""
    at: int
    """Unix seconds."""
    project: str = PROJECT


class KeyReused(Exception):  # noqa: N818 - carries a refusal that must not be kept
    """The key belongs to another request; what is kept for that one stays."""

    def __init__(self, refusal: Refusal) -> None:
        """Keep the answer."""
        super().__init__(refusal.message)
        self.refusal = refusal


class _Kept(NamedTuple):
    fingerprint: bytes
    created_at: int
    status_code: int
    body: bytes


_MINE = (idempotency.c.project == bindparam("p"), idempotency.c.key == bindparam("k"))
_FIND: Final = Statement(select(*(idempotency.c[name] for name in _Kept._fields)).where(*_MINE))
_INSERT: Final = Statement(
    lambda insert: insert(idempotency).on_conflict_do_nothing(), ["project", "key", *_Kept._fields]
)
_ANSWER: Final = Statement(update(idempotency).where(*_MINE), ["status_code", "body"])
_DROP: Final = Statement(
    delete(idempotency).where(*_MINE, idempotency.c.created_at < bindparam("before"))
)
_PRUNE: Final = Statement(delete(idempotency).where(idempotency.c.created_at < bindparam("before")))


def reserve(connection: Connection, once: Once) -> None:
    """Take the key for this request, which is to be answered in the same transaction.

    Raises:
        Replay: It was carried out before.
        KeyReused: The key was used for another request.
    """
    _add(connection, once, 0, b"")


def answer(connection: Connection, once: Once, value: Any) -> None:
    """Give the reserved key what the work returned as its answer; a run as it is stored."""
    body = encode_answer(value)
    _ANSWER.run(connection, p=once.project, k=once.key, status_code=200, body=body)


def encode_answer(value: Any) -> bytes:
    """Return what is kept of an answer."""
    return value.stored if isinstance(value, RunState) else msgspec.json.encode(value)


def keep(connection: Connection, once: Once, status_code: int, body: bytes) -> None:
    """Keep an answer whose reservation was rolled back with the work.

    Raises:
        Replay: Another writer has carried the request out since.
        KeyReused: Another writer has used the key for another request since.
    """
    _add(connection, once, status_code, body)


def _add(connection: Connection, once: Once, status_code: int, body: bytes) -> None:
    row = {"fingerprint": once.fingerprint, "created_at": once.at, "status_code": status_code}
    while not _INSERT.run(
        connection, project=once.project, key=once.key, body=body, **row
    ).rowcount:
        _replay(connection, once)


def _replay(connection: Connection, once: Once) -> None:
    """Return if the key that was there is free by now, since its time is over."""
    row = _FIND.one(connection, p=once.project, k=once.key)
    if row is None:
        return
    found, before = _Kept(*row), once.at - IDEMPOTENCY_TTL
    if found.created_at < before:
        _DROP.run(connection, p=once.project, k=once.key, before=before)
    elif found.fingerprint != once.fingerprint:
        raise KeyReused(key_reused(once.key))
    else:
        raise Replay(found.status_code, found.body)


def prune(connection: Connection, now: int) -> int:
    """Forget the keys that are older than their time; return how many."""
    return _PRUNE.run(connection, before=now - IDEMPOTENCY_TTL).rowcount
