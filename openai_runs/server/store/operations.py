"""What operations do to assistants, threads, messages and lists: one function each.

Runs have a module of their own. Each function is the work of one transaction, to be handed to
`Store.read` (it takes a connection first) or to `Store.write` (a transaction). An operation
that is one call of `rows` needs no function here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete

from openai_runs.server.api_errors import busy_thread, not_found
from openai_runs.server.store import runs, schema
from openai_runs.server.store.rows import (
    NOUNS,
    PageQuery,
    StoredPage,
    add,
    find,
    lock,
    page,
    rewrite,
    see,
    stored_page,
)
from openai_runs.server.store.shared_json import measuring
from openai_runs.server.store.statements import Statement
from openai_runs.types.assistants import Assistant
from openai_runs.types.base import Deleted, Page
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run
from openai_runs.types.steps import RunStep
from openai_runs.types.threads import Thread

if TYPE_CHECKING:
    from openai_runs.server.store.database import Connection
    from openai_runs.server.store.transaction import Transaction

__all__ = [
    "add_assistant",
    "add_message",
    "delete_assistant",
    "delete_message",
    "delete_thread",
    "get_message",
    "get_step",
    "list_all_runs",
    "list_messages",
    "list_runs",
    "list_steps",
    "update_assistant",
    "update_message",
    "update_thread",
]

_DELETE_ASSISTANT: Final = Statement(
    delete(schema.assistants).where(schema.assistants.c.id == bindparam("key"))
)
_DELETE_MESSAGE: Final = Statement(
    delete(schema.messages).where(schema.messages.c.id == bindparam("key"))
)


def add_assistant(tx: Transaction, assistant: Assistant) -> Assistant:
    """Store a new assistant."""
    add(tx.connection, assistant)
    return assistant


def update_assistant(tx: Transaction, assistant_id: str, changes: dict[str, Any]) -> Assistant:
    """Change these fields of the assistant."""
    return rewrite(tx.connection, find(tx.connection, Assistant, assistant_id), **changes)


def delete_assistant(tx: Transaction, assistant_id: str) -> Deleted:
    """Delete the assistant; its runs stay readable.

    Raises:
        Refusal: There is no such assistant.
    """
    if not _DELETE_ASSISTANT.run(tx.connection, key=assistant_id).rowcount:
        raise not_found(NOUNS[Assistant], assistant_id)
    return Deleted(id=assistant_id, object="assistant.deleted", deleted=True)


def update_thread(tx: Transaction, thread_id: str, changes: dict[str, Any]) -> Thread:
    """Change these fields of the thread."""
    return rewrite(tx.connection, find(tx.connection, Thread, thread_id), **changes)


def delete_thread(tx: Transaction, thread_id: str) -> Deleted:
    """Delete the thread with all that is on it, an active run included."""
    runs.delete_thread(tx, thread_id)
    return Deleted(id=thread_id, object="thread.deleted", deleted=True)


def add_message(tx: Transaction, message: Message) -> Message:
    """Store a new message.

    Raises:
        Refusal: There is no such thread, or a run is active on it.
    """
    thread_id = message.thread_id
    lock(tx.connection, thread_id)
    running = runs.active_run_id(tx.connection, thread_id)
    if running is not None:
        raise busy_thread(thread_id, running)
    add(tx.connection, message, thread_id=thread_id)
    return message


def get_message(connection: Connection, thread_id: str, message_id: str) -> Message:
    """Return the message."""
    see(connection, Thread, thread_id)
    return find(connection, Message, message_id, thread_id=thread_id)


def update_message(
    tx: Transaction, thread_id: str, message_id: str, changes: dict[str, Any]
) -> Message:
    """Change these fields of the message."""
    return rewrite(tx.connection, get_message(tx.connection, thread_id, message_id), **changes)


def delete_message(tx: Transaction, thread_id: str, message_id: str) -> Deleted:
    """Delete the message."""
    get_message(tx.connection, thread_id, message_id)
    _DELETE_MESSAGE.run(tx.connection, key=message_id)
    return Deleted(id=message_id, object="thread.message.deleted", deleted=True)


def list_messages(
    connection: Connection, thread_id: str, query: PageQuery, run_id: str | None
) -> Page[Message]:
    """Return a page of the thread's messages, of one run only if `run_id` is given."""
    see(connection, Thread, thread_id)
    only = None if run_id is None else {"run_id": run_id}
    return page(connection, Message, query, thread_id=thread_id, only=only)


def list_runs(connection: Connection, thread_id: str, query: PageQuery) -> StoredPage:
    """Return a page of the thread's runs."""
    see(connection, Thread, thread_id)
    measure = measuring(connection)
    return stored_page(connection, Run, query, measure=measure, thread_id=thread_id).check(Run)


def list_all_runs(connection: Connection, query: PageQuery) -> StoredPage:
    """Return a page of the runs of all threads."""
    return stored_page(connection, Run, query, measure=measuring(connection)).check(Run)


def get_step(connection: Connection, thread_id: str, run_id: str, step_id: str) -> RunStep:
    """Return the run step."""
    runs.see_run(connection, thread_id, run_id)
    return find(connection, RunStep, step_id, run_id=run_id)


def list_steps(
    connection: Connection, thread_id: str, run_id: str, query: PageQuery
) -> Page[RunStep]:
    """Return a page of the run's steps."""
    runs.see_run(connection, thread_id, run_id)
    return page(connection, RunStep, query, run_id=run_id)
