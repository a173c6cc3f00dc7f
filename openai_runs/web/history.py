"""What a page shows of a chat's past: its messages, and how the answers ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openai_runs import Message, Run

__all__ = ["History", "ShownMessage", "shown_messages"]

_ENDED_BADLY: Final = frozenset({"cancelled", "expired", "failed", "incomplete"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMessage:
    """A message as a page shows it. Made by `Chat.history`."""

    id: str
    """The message's; of an answer without a word the run's."""
    role: str
    """`user` or `assistant`."""
    text: str
    status: str | None = None
    """How its run ended where it is not whole: `cancelled`, `failed`, `expired`, `incomplete`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A page of a chat's messages, and what waits for an answer. Made by `Chat.history`."""

    messages: list[ShownMessage]
    """The oldest first."""
    before: str | None
    """Where the page before this one ends; None: there is none."""
    waiting: list[str]
    """Texts that no run has yet: the user has sent them, and `messages` does not list them."""


def shown_messages(
    messages: Sequence[Message], runs: Sequence[Run], *, is_newest: bool
) -> list[ShownMessage]:
    """Return messages with the ends of their runs, and a message for each end without a word.

    Args:
        messages: The oldest first.
        runs: Of the same thread, the newest first.
        is_newest: Whether no message comes after these.
    """
    ended = {run.id: str(run.status) for run in runs if run.status in _ENDED_BADLY}
    last = {one.run_id: one.id for one in messages if one.role != "user" and one.run_id}
    shown = [
        ShownMessage(
            id=one.id,
            role=str(one.role),
            text=one.text,
            status=ended.get(one.run_id or "") if last.get(one.run_id or "") == one.id else None,
        )
        for one in messages
    ]
    place = len(messages)
    for run in runs:
        own = [n for n, one in enumerate(messages) if one.run_id == run.id]
        end = own[-1] + 1 if own else _place_after_question(messages[:place], run)
        if not end or (not own and not is_newest and end == len(messages)):
            continue  # it is on another page, or may be
        is_whole = is_newest or end < len(messages)  # else its words may be on the next page
        if is_whole and run.id in ended and run.id not in last:
            wordless = ShownMessage(id=run.id, role="assistant", text="", status=ended[run.id])
            shown.insert(end, wordless)
        place = own[0] if own else end
        has_question = bool(own) and messages[place].role == "user"
        if place and not has_question and messages[place - 1].role == "user":
            place -= 1  # each run has a question of its own
    return shown


def _place_after_question(messages: Sequence[Message], run: Run) -> int:
    """Return the place behind the last question that a run can have; 0: there is none."""
    for place in range(len(messages), 0, -1):
        one = messages[place - 1]
        if one.role == "user" and one.created_at <= run.created_at:
            return place
    return 0
