"""Many messages at once, two bots on one store, one of them killed."""

from pathlib import Path

from tests.conversations.crowd import crowd

USERS = 3
EACH = 4
LEASE = 1.0


async def test_each_message_is_answered_in_order_when_a_bot_is_killed(tmp_path: Path) -> None:
    """Killed in mid-answer: no 400, no message lost or doubled, all in order of arrival."""
    found = await crowd(tmp_path, "queue", users=USERS, each=EACH, lease=LEASE)

    assert found.wrong == []
    assert found.rejections == []


async def test_joined_messages_make_fewer_runs(tmp_path: Path) -> None:
    """What arrives while a run is at work is answered together, also when a bot is killed."""
    found = await crowd(tmp_path, "join", users=USERS, each=EACH, lease=LEASE)

    assert found.wrong == []
    assert found.rejections == []
    assert USERS <= found.runs < found.messages


async def test_interrupted_answers_end_in_the_last_one(tmp_path: Path) -> None:
    """The last message of each user is answered, and all before it are on the thread."""
    found = await crowd(tmp_path, "interrupt", users=USERS, each=EACH, lease=LEASE)

    assert found.wrong == []
