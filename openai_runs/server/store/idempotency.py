"""Answers kept under their `Idempotency-Key`, in the transaction of what they answer.

An answer is kept when the operation itself gave it, also one that says no; what is said
before (a body that cannot be read) or when nothing could be done (5xx) is not.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
from sqlalchemy import bindparam, delete, insert, select

from openai_runs.config import IDEMPOTENCY_TTL
from openai_runs.server.api_errors import Refusal, Replay, key_reused
from openai_runs.server.store.database import Connection
from openai_runs.server.store.schema import PROJECT, idempotency
from openai_runs.server.store.statements import Statement

__all__ = ["KeyReused", "Once", "check", "keep", "prune"]


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
_DROP: Final = Statement(delete(idempotency).where(*_MINE))
_KEEP: Final = Statement(
    insert(idempotency).prefix_with("OR REPLACE"), ["project", "key", *_Kept._fields]
)
"""Replaces a key that is over its time, which a refused savepoint brought back."""
_PRUNE: Final = Statement(delete(idempotency).where(idempotency.c.created_at < bindparam("before")))


def check(connection: Connection, once: Once) -> None:
    """Return if the request is new.

    Raises:
        Replay: It was carried out before.
        KeyReused: The key was used for another request.
    """
    row = _FIND.one(connection, p=once.project, k=once.key)
    if row is None:
        return
    found = _Kept(*row)
    if found.created_at < once.at - IDEMPOTENCY_TTL:
        _DROP.run(connection, p=once.project, k=once.key)
    elif found.fingerprint != once.fingerprint:
        raise KeyReused(key_reused(once.key))
    else:
        raise Replay(found.status_code, found.body)


def keep(connection: Connection, once: Once, status_code: int, body: bytes) -> None:
    """Keep the answer to the request."""
    _KEEP.run(
        connection,
        project=once.project,
        key=once.key,
        fingerprint=once.fingerprint,
        created_at=once.at,
        status_code=status_code,
        body=body,
    )


def prune(connection: Connection, now: int) -> int:
    """Forget the keys that are older than their time; return how many."""
    return _PRUNE.run(connection, before=now - IDEMPOTENCY_TTL).rowcount
