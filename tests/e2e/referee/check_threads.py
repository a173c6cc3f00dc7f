"""Threads and messages through the official package."""

import sys
import warnings

from openai import BadRequestError, NotFoundError, OpenAI

warnings.simplefilter("ignore", DeprecationWarning)
client = OpenAI(base_url=sys.argv[1], api_key="sk-referee", _strict_response_validation=True)
threads = client.beta.threads
messages = threads.messages

thread = threads.create(
    messages=[
        {"role": "user", "content": "one", "metadata": {"n": "1"}},
        {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
    ],
    metadata={"a": "b"},
)
assert thread.id.startswith("thread_")
assert thread.object == "thread"
assert threads.retrieve(thread.id) == thread
assert threads.update(thread.id, metadata={"c": "d"}).metadata == {"c": "d"}

listed = list(messages.list(thread.id, order="asc"))
assert [one.content[0].text.value for one in listed] == ["one", "two"]
assert [one.role for one in listed] == ["user", "assistant"]
assert listed[0].metadata == {"n": "1"}

third = messages.create(thread.id, role="user", content="three", metadata={"x": "y"})
assert third.id.startswith("msg_")
assert third.object == "thread.message"
assert third.content[0].type == "text"
assert messages.retrieve(third.id, thread_id=thread.id) == third
assert messages.update(third.id, thread_id=thread.id, metadata={}).metadata == {}
newest = [one.content[0].text.value for one in messages.list(thread.id, limit=1)]
assert newest == ["three", "two", "one"], newest
page = messages.list(thread.id, limit=2, order="asc", after=listed[0].id)
assert [one.content[0].text.value for one in page.data] == ["two", "three"]
assert not page.has_next_page() or not page.get_next_page().data

try:
    messages.list(thread.id, after="msg_nowhere")
except BadRequestError as error:
    assert "msg_nowhere" in error.message, error.message
else:
    raise AssertionError("an unknown cursor was accepted")
try:
    messages.create(thread.id, role="user", content="x", metadata={str(n): "" for n in range(17)})
except BadRequestError as error:
    assert error.param == "metadata", error.param
else:
    raise AssertionError("17 metadata pairs were accepted")

gone = messages.delete(third.id, thread_id=thread.id)
assert (gone.deleted, gone.object) == (True, "thread.message.deleted")
assert [one.content[0].text.value for one in messages.list(thread.id)] == ["two", "one"]
removed = threads.delete(thread.id)
assert (removed.deleted, removed.object) == (True, "thread.deleted")
for call in (
    lambda: threads.retrieve(thread.id),
    lambda: messages.list(thread.id),
    lambda: messages.retrieve(listed[0].id, thread_id=thread.id),
):
    try:
        call()
    except NotFoundError:
        continue
    raise AssertionError("a deleted thread still answers")
print("ok")
