"""Reading and writing objects by their id, and pages of them: the same for every table."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from sqlalchemy import Table, bindparam, select, update

from openai_runs._protocol.lenient import decoder_for
from openai_runs.config import MAX_PAGE_BYTES
from openai_runs.server.api_errors import bad_cursor, not_found
from openai_runs.server.store.damage import DamagedRow, describe_damage
from openai_runs.server.store.database import Connection
from openai_runs.server.store.schema import assistants, messages, probe, runs, steps, threads
from openai_runs.server.store.statements import Statement, inserting
from openai_runs.types.assistants import Assistant
from openai_runs.types.base import Answer, Page
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run
from openai_runs.types.steps import RunStep
from openai_runs.types.threads import Thread

if TYPE_CHECKING:
    from openai_runs.server.store.transaction import Transaction

__all__ = [
    "NOUNS",
    "PageQuery",
    "StoredPage",
    "add",
    "check",
    "decode",
    "encode",
    "find",
    "id_in",
    "lock",
    "lock_if_there",
    "page",
    "replace_body",
    "rewrite",
    "see",
    "stored_page",
    "text_bytes",
    "touch",
]

A = TypeVar("A", bound=Answer)
T = TypeVar("T")

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


def decode(kind: type[A], body: str, row: str = "of no known id") -> A:
    """Return the object a row keeps; `row` is its id, or says what it belongs to.

    Raises:
        DamagedRow: The row is damaged.
    """
    try:
        return decoder_for(kind).decode(body.encode())
    except _UNREADABLE as error:
        damage = describe_damage(error)
    # Out of the `except`, so that the message of msgspec, which may quote the row, is not kept.
    raise DamagedRow(TABLES[kind].name, row, damage)


def id_in(kind: type[Answer], stored: bytes) -> str:
    """Return the id of the object that is stored so.

    Raises:
        DamagedRow: It is damaged.
    """
    try:
        return _id_decoder.decode(stored).id
    except _UNREADABLE as error:
        damage = describe_damage(error)
    raise DamagedRow(TABLES[kind].name, "of no known id", damage)


def check(kind: type[Answer], body: str, object_id: str) -> str:
    """Return the JSON of a row that is answered without being decoded, if it is that object's.

    Raises:
        DamagedRow: The row is damaged.
    """
    try:
        if _id_decoder.decode(body).id == object_id and isinstance(body, str):
            return body
        damage = "it holds another object, or is not a text"
    except _UNREADABLE as error:
        damage = describe_damage(error)
    raise DamagedRow(TABLES[kind].name, object_id, damage)


class _Id(msgspec.Struct):
    id: str


_id_decoder: Final = msgspec.json.Decoder(_Id)
_UNREADABLE: Final = (
    msgspec.MsgspecError,
    AttributeError,  # not a text
    RecursionError,
    TypeError,
    UnicodeError,
)


def add(connection: Connection, thing: Answer, **columns: Any) -> str:
    """Insert an object, and return its JSON; `columns` are those that not every table has."""
    body = encode(thing)
    row = {"id": thing.id, "body": body, **columns}  # type: ignore[attr-defined]  # all have one
    inserting(TABLES[type(thing)], *row).run(connection, **row)
    return body


@lru_cache
def _finding(kind: type[Answer], column: str, *within: str) -> Statement:
    table = TABLES[kind]
    mine = (table.c[name] == bindparam(name) for name in within)
    return Statement(select(table.c[column]).where(table.c.id == bindparam("key"), *mine))


def find(connection: Connection, kind: type[A], object_id: str, **within: str) -> A:
    """Return the object with this id.

    Raises:
        Refusal: There is none, or it is not `within` what the path names.
    """
    body = _finding(kind, "body", *within).value(connection, key=object_id, **within)
    if body is None:
        raise not_found(NOUNS[kind], object_id)
    return decode(kind, body, object_id)


def see(connection: Connection, kind: type[Answer], object_id: str, **within: str) -> None:
    """See that there is an object with this id.

    Raises:
        Refusal: There is none, or it is not `within` what the path names.
    """
    found = _finding(kind, "seq", *within).value(connection, key=object_id, **within)
    if found is None:
        raise not_found(NOUNS[kind], object_id)


_LOCK: Final = Statement(
    select(threads.c.seq).where(threads.c.id == bindparam("key")).with_for_update(key_share=True)
)


def lock(connection: Connection, thread_id: str) -> None:
    """See that there is such a thread, and let nobody else add to it before the commit.

    Comes before any write to one of the thread's runs. SQLite has one writer, and locks nothing.

    Raises:
        Refusal: There is no such thread.
    """
    if not lock_if_there(connection, thread_id):
        raise not_found(NOUNS[Thread], thread_id)


def lock_if_there(connection: Connection, thread_id: str) -> bool:
    """Do the same; return whether there is such a thread."""
    return _LOCK.value(connection, key=thread_id) is not None


def rewrite(connection: Connection, thing: A, **changes: Any) -> A:
    """Write the object with these fields changed, and return it; for fields in no column.

    The other fields stay as they are by now, whatever `thing` says.

    Raises:
        Refusal: It is not there any more.
    """
    kind, object_id = type(thing), _id_of(thing)
    while (body := _finding(kind, "body").value(connection, key=object_id)) is not None:
        changed = msgspec.structs.replace(decode(kind, body, object_id), **changes)
        if replace_body(connection, changed, body) is not None:
            return changed
    raise not_found(NOUNS[kind], object_id)


@lru_cache
def _replacing(kind: type[Answer]) -> Statement:
    table = TABLES[kind]
    as_read = (table.c.id == bindparam("key"), table.c.body == bindparam("was_body"))
    return Statement(update(table).where(*as_read), ["body"])


def replace_body(connection: Connection, thing: Answer, was_body: str) -> str | None:
    """Write the object where its row holds what was read of it; return its JSON, else None."""
    body = encode(thing)
    key = _id_of(thing)
    done = _replacing(type(thing)).run(connection, key=key, was_body=was_body, body=body)
    return body if done.rowcount else None


@lru_cache
def _paging(
    kind: type[Answer], within: tuple[str, ...], above: bool, below: bool, rising: bool
) -> Statement:
    """Return the query of one page; `above` and `below` say whether it has these bounds."""
    table = TABLES[kind]
    bounds = [table.c[name] == bindparam(name) for name in within]
    if above:
        bounds.append(table.c.seq > bindparam("above"))
    if below:
        bounds.append(table.c.seq < bindparam("below"))
    order = table.c.seq.asc() if rising else table.c.seq.desc()
    columns = (table.c.id, table.c.body)
    return Statement(select(*columns).where(*bounds).order_by(order).limit(bindparam("rows")))


class StoredPage(msgspec.Struct, frozen=True):
    """One page of a list, before its objects are read."""

    ids: list[str]
    bodies: list[str]
    has_more: bool

    def check(self, kind: type[Answer]) -> StoredPage:
        """Return the page, whose objects are sent without being decoded, if none is damaged.

        Raises:
            DamagedRow: A row is damaged.
        """
        for object_id, body in zip(self.ids, self.bodies, strict=True):
            check(kind, body, object_id)
        return self

    def hold(self, data: list[T]) -> Page[T]:
        """Return the page with these objects, whose ids are `ids`."""
        return Page(
            data=data,
            first_id=self.ids[0] if data else "",  # the OpenAPI file asks for texts
            last_id=self.ids[-1] if data else "",
            has_more=self.has_more,
        )


def text_bytes(body: str) -> int:
    """Return how many bytes a text has in UTF-8."""
    return len(body) if body.isascii() else len(body.encode())


def page(
    connection: Connection,
    kind: type[A],
    query: PageQuery,
    *,
    only: dict[str, str] | None = None,
    **within: str,
) -> Page[A]:
    """Return one page of the list, sorted by creation; as of `stored_page`."""
    found = stored_page(connection, kind, query, only=only, measure=text_bytes, **within)
    return found.hold(list(map(partial(decode, kind), found.bodies, found.ids)))


def stored_page(
    connection: Connection,
    kind: type[Answer],
    query: PageQuery,
    *,
    only: dict[str, str] | None = None,
    measure: Callable[[str], int] = text_bytes,
    **within: str,
) -> StoredPage:
    """Return one page of the list, sorted by creation, as it is stored.

    `within` says which list, `only` leaves items of it out (a cursor may be one of those). The page
    ends before its objects exceed `MAX_PAGE_BYTES`, but has one at least; `measure` gives the bytes
    that an object is sent as.

    `after` alone or with `before` goes forward from it; `before` alone gives the page
    nearest before it, in list order, and `has_more` then looks backwards.

    Raises:
        Refusal: A cursor names no object of this list.
    """
    bounds: dict[str, int] = {}
    for param, cursor in (("after", query.after), ("before", query.before)):
        if cursor is not None:
            seq = _finding(kind, "seq", *within).value(connection, key=cursor, **within)
            if seq is None:
                raise bad_cursor(param, NOUNS[kind], cursor)
            later = (param == "after") == query.ascending
            bounds["above" if later else "below"] = seq
    backwards = query.before is not None and query.after is None
    rising = query.ascending != backwards
    wanted = {**within, **(only or {})}
    statement = _paging(kind, tuple(wanted), "above" in bounds, "below" in bounds, rising)
    rows: list[tuple[str, str]] = []
    size, has_more = 0, False
    for each, body in statement.each(connection, **wanted, **bounds, rows=query.limit + 1):
        if not isinstance(body, str):
            raise DamagedRow(TABLES[kind].name, each, "it is not a text")
        size += measure(body)
        has_more = len(rows) == query.limit or (size > MAX_PAGE_BYTES and bool(rows))
        if has_more:
            break  # the rows after it are not read
        rows.append((each, body))
    if backwards:
        rows.reverse()
    return StoredPage(
        ids=[each for each, _ in rows],
        bodies=[body for _, body in rows],
        has_more=has_more,
    )


def _id_of(thing: Answer) -> str:
    return str(thing.id)  # type: ignore[attr-defined]  # everything listed has one


_TOUCH: Final = Statement(
    lambda insert: insert(probe).on_conflict_do_update(
        index_elements=[probe.c.id], set_={"at": bindparam("now")}
    ),
    ["id", "at"],
)


def touch(tx: Transaction, now: int) -> None:
    """Write the one row that is there to be written."""
    _TOUCH.run(tx.connection, id=1, at=now, now=now)
