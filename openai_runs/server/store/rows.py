"""Reading and writing objects by their id, and pages of them: the same for every table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Table, delete, insert, select, update

from openai_runs._protocol.mending import decoder_for
from openai_runs.server.refusals import bad_cursor, not_found
from openai_runs.server.store.schema import assistants, messages, probe, runs, steps, threads
from openai_runs.types.assistants import Assistant
from openai_runs.types.base import Answer, Page
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run
from openai_runs.types.steps import RunStep
from openai_runs.types.threads import Thread

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

__all__ = ["NOUNS", "PageQuery", "add", "decode", "encode", "find", "page", "rewrite", "touch"]

A = TypeVar("A", bound=Answer)

TABLES: Final[dict[type[Answer], Table]] = {
    Assistant: assistants,
    Thread: threads,
    Message: messages,
    Run: runs,
    RunStep: steps,
}
NOUNS: Final[dict[type[Answer], str]] = {
    Assistant: "assistant",
    Thread: "thread",
    Message: "message",
    Run: "run",
    RunStep: "run step",
}
"""What the error texts call an object."""


class PageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a list is asked for."""

    limit: int = 20
    """From 1 to 100."""
    ascending: bool = False
    after: str | None = None
    before: str | None = None


def encode(thing: Answer) -> str:
    """Return the text a row keeps of an object."""
    return msgspec.json.encode(thing).decode()


def decode(kind: type[A], body: str) -> A:
    """Return the object a row keeps."""
    return decoder_for(kind).decode(body.encode())


def add(connection: Connection, thing: Answer, **columns: Any) -> None:
    """Insert an object; `columns` are those that are not in every table."""
    row = {"id": thing.id, "body": encode(thing), **columns}  # type: ignore[attr-defined]  # all have one
    connection.execute(insert(TABLES[type(thing)]), row)


def find(connection: Connection, kind: type[A], object_id: str, *within: ColumnElement[bool]) -> A:
    """Return the object with this id.

    Raises:
        Refusal: There is none, or it is not `within` what the path names.
    """
    table = TABLES[kind]
    query = select(table.c.body).where(table.c.id == object_id, *within)
    body = connection.execute(query).scalar_one_or_none()
    if body is None:
        raise not_found(NOUNS[kind], object_id)
    return decode(kind, body)


def rewrite(connection: Connection, thing: A, **changes: Any) -> A:
    """Write the object with these fields changed, and return it; for fields in no column."""
    changed = msgspec.structs.replace(thing, **changes)
    table = TABLES[type(thing)]
    object_id = thing.id  # type: ignore[attr-defined]  # all have one
    connection.execute(update(table).where(table.c.id == object_id).values(body=encode(changed)))
    return changed


def page(
    connection: Connection,
    kind: type[A],
    query: PageQuery,
    *within: ColumnElement[bool],
    only: ColumnElement[bool] | None = None,
) -> Page[A]:
    """Return one page of the list, sorted by creation.

    `within` says which list, `only` leaves items of it out (a cursor may be one of those).

    `after` alone or with `before` goes forward from it; `before` alone gives the page
    nearest before it, in list order, and `has_more` then looks backwards.

    Raises:
        Refusal: A cursor names no object of this list.
    """
    table = TABLES[kind]
    bounds = [*within] if only is None else [*within, only]
    for param, cursor in (("after", query.after), ("before", query.before)):
        if cursor is not None:
            seq = _position(connection, kind, param, cursor, within)
            later = (param == "after") == query.ascending
            bounds.append(table.c.seq > seq if later else table.c.seq < seq)
    backwards = query.before is not None and query.after is None
    rising = query.ascending != backwards
    ordered = select(table.c.body).where(*bounds)
    ordered = ordered.order_by(table.c.seq.asc() if rising else table.c.seq.desc())
    bodies = connection.execute(ordered.limit(query.limit + 1)).scalars().all()
    data = [decode(kind, body) for body in bodies[: query.limit]]
    if backwards:
        data.reverse()
    return Page(
        data=data,
        first_id=_id_of(data[0]) if data else "",  # the OpenAPI file asks for texts
        last_id=_id_of(data[-1]) if data else "",
        has_more=len(bodies) > query.limit,
    )


def _position(
    connection: Connection,
    kind: type[A],
    param: str,
    cursor: str,
    within: tuple[ColumnElement[bool], ...],
) -> int:
    table = TABLES[kind]
    query = select(table.c.seq).where(table.c.id == cursor, *within)
    seq = connection.execute(query).scalar_one_or_none()
    if seq is None:
        raise bad_cursor(param, NOUNS[kind], cursor)
    return int(seq)


def _id_of(thing: Answer) -> str:
    return str(thing.id)  # type: ignore[attr-defined]  # everything listed has one


def touch(connection: Connection, now: int) -> None:
    """Write the one row that is there to be written."""
    connection.execute(delete(probe))
    connection.execute(insert(probe), {"id": 1, "at": now})
