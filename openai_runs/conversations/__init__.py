"""Conversations of a bot: a thread for each key, one answer at a time, in order.

Written on public names only. `record` holds the rules, with the table of moves, `store` what is
kept where, `reply` what is done in a claim, `creating` how its run is created, `stopping` how it is
stopped.
"""

from openai_runs.conversations.conversations import Conversations
from openai_runs.conversations.errors import (
    DuplicateMessageError,
    LeaseLostError,
    ThreadGoneError,
    UnreadableRecordError,
)
from openai_runs.conversations.record import Status
from openai_runs.conversations.reply import Reply
from openai_runs.conversations.store import Change, Entry, SQLiteStore, Store

__all__ = [
    "Change",
    "Conversations",
    "DuplicateMessageError",
    "Entry",
    "LeaseLostError",
    "Reply",
    "SQLiteStore",
    "Status",
    "Store",
    "ThreadGoneError",
    "UnreadableRecordError",
]
