"""Assistants through the official package: create, retrieve, update, list, delete."""

import sys
import warnings

from openai import NotFoundError, OpenAI

warnings.simplefilter("ignore", DeprecationWarning)
client = OpenAI(base_url=sys.argv[1], api_key="sk-referee", _strict_response_validation=True)
assistants = client.beta.assistants

tool = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look something up",
        "parameters": {"type": "object", "properties": {"what": {"type": "string"}}},
    },
}
made = assistants.create(
    model="gpt-4o",
    name="Referee",
    description="judges",
    instructions="Be brief.",
    tools=[tool],
    metadata={"team": "blue"},
    temperature=0.5,
    top_p=0.9,
    response_format={"type": "text"},
)
assert made.id.startswith("asst_"), made.id
assert made.object == "assistant"
assert (made.name, made.description, made.instructions) == ("Referee", "judges", "Be brief.")
assert made.tools[0].function.name == "look_up"
assert made.tools[0].function.parameters == tool["function"]["parameters"]
assert made.metadata == {"team": "blue"}
assert (made.temperature, made.top_p) == (0.5, 0.9)
assert made.response_format.type == "text"

assert assistants.retrieve(made.id) == made

changed = assistants.update(made.id, name="Umpire", metadata={})
assert (changed.name, changed.metadata, changed.instructions) == ("Umpire", {}, "Be brief.")

others = [assistants.create(model="gpt-4o", name=f"n{number}") for number in range(4)]
expected = [one.id for one in reversed([made, *others])]
assert [one.id for one in assistants.list(limit=2)][:5] == expected  # walks all pages
page = assistants.list(limit=2)
assert [one.id for one in page.data] == expected[:2]
assert page.has_more
ascending = [one.id for one in assistants.list(limit=2, order="asc", after=made.id)]
assert ascending == [one.id for one in others], ascending
nearest = assistants.list(limit=2, before=expected[3])
assert [one.id for one in nearest.data] == expected[1:3], nearest

gone = assistants.delete(made.id)
assert (gone.id, gone.deleted, gone.object) == (made.id, True, "assistant.deleted")
try:
    assistants.retrieve(made.id)
except NotFoundError as error:
    assert error.type == "invalid_request_error", error.type
    assert error.code is None
    assert f"No assistant found with id '{made.id}'." in error.message
else:
    raise AssertionError("a deleted assistant could be retrieved")
print("ok")
