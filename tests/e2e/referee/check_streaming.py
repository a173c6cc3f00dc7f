"""Streams through the official package: raw events, sync and async, one leg and the next."""

import asyncio
import sys
import warnings

from openai import AsyncOpenAI, BadRequestError, OpenAI

warnings.simplefilter("ignore", DeprecationWarning)
options = {"base_url": sys.argv[1], "api_key": "sk-referee", "_strict_response_validation": True}
client = OpenAI(**options)
threads = client.beta.threads
tool = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {
            "type": "object",
            "properties": {"what": {"type": "string"}},
            "required": ["what"],
        },
    },
}
assistant = client.beta.assistants.create(model="gpt-4o", tools=[tool])
BEGIN = ["thread.run.created", "thread.run.queued", "thread.run.in_progress"]
STEP = ["thread.run.step.created", "thread.run.step.in_progress"]
TEXT = [
    *STEP,
    "thread.message.created",
    "thread.message.in_progress",
    "thread.message.delta",
    "thread.message.completed",
    "thread.run.step.completed",
    "thread.run.completed",
]
CALL = [*STEP, "thread.run.step.delta", "thread.run.requires_action"]
NEXT = ["thread.run.step.completed", "thread.run.queued", "thread.run.in_progress"]


def names(events: list) -> list[str]:
    """Return the names, deltas that follow each other as one."""
    kept = []
    for event in events:
        if not (kept and kept[-1] == event.event and event.event.endswith("delta")):
            kept.append(event.event)
    return kept


def text(events: list) -> str:
    """Return the text that the deltas tell."""
    deltas = [event.data.delta for event in events if event.event == "thread.message.delta"]
    return "".join(delta.content[0].text.value for delta in deltas)


def arguments(events: list) -> str:
    """Return the arguments that the deltas tell."""
    deltas = [event.data.delta for event in events if event.event == "thread.run.step.delta"]
    calls = [delta.step_details.tool_calls[0] for delta in deltas]
    assert calls[0].id.startswith("call_")
    assert calls[0].function.name == "look_up"
    assert len(calls) > 1
    return "".join(call.function.arguments for call in calls)


def check_answer(events: list, words: str) -> None:
    """See that a leg told this text, in all its forms."""
    assert text(events) == words, text(events)
    message = next(e.data for e in events if e.event == "thread.message.completed")
    assert message.content[0].text.value == words
    assert events[-1].data.usage.total_tokens > 0


def outputs(run) -> list[dict]:
    """Return an output for each call the run waits for."""
    calls = run.required_action.submit_tool_outputs.tool_calls
    return [{"tool_call_id": call.id, "output": "green"} for call in calls]


# A text, on a thread that is there and on a new one.
thread = threads.create(messages=[{"role": "user", "content": "hello there, my friend"}])
with threads.runs.create(thread_id=thread.id, assistant_id=assistant.id, stream=True) as stream:
    events = list(stream)
assert names(events) == [*BEGIN, *TEXT], names(events)
check_answer(events, "hello there, my friend")
assert [e.event for e in events].count("thread.message.delta") == 4

new = {"messages": [{"role": "user", "content": "at once"}]}
events = list(threads.create_and_run(assistant_id=assistant.id, thread=new, stream=True))
assert names(events) == ["thread.created", *BEGIN, *TEXT], names(events)
assert events[0].data.id == events[1].data.thread_id
check_answer(events, "at once")

# A tool call, and the leg after its output.
ask = [{"role": "user", "content": "Use the tool look_up for tea."}]
events = list(
    threads.runs.create(
        thread_id=thread.id, assistant_id=assistant.id, additional_messages=ask, stream=True
    )
)
assert names(events) == [*BEGIN, *CALL], names(events)
run = events[-1].data
(wanted,) = run.required_action.submit_tool_outputs.tool_calls
assert arguments(events) == wanted.function.arguments == '{"what":"tea"}'
events = list(
    threads.runs.submit_tool_outputs(
        run.id, thread_id=thread.id, tool_outputs=outputs(run), stream=True
    )
)
assert names(events) == [*NEXT, *TEXT], names(events)
check_answer(events, "look_up says: green")
assert threads.runs.retrieve(run.id, thread_id=thread.id) == events[-1].data

# What is refused is refused before a stream begins.
try:
    threads.runs.submit_tool_outputs(
        run.id, thread_id=thread.id, tool_outputs=outputs(run), stream=True
    )
except BadRequestError as error:
    assert "do not accept tool outputs" in error.message, error.message
else:
    raise AssertionError("outputs were accepted twice")


async def main() -> None:
    """Do the same with the async client, and twenty at once."""
    async with AsyncOpenAI(**options, max_retries=0) as client:
        threads = client.beta.threads
        thread = await threads.create()
        stream = await threads.runs.create(
            thread_id=thread.id, assistant_id=assistant.id, additional_messages=ask, stream=True
        )
        events = [event async for event in stream]
        assert names(events) == [*BEGIN, *CALL], names(events)
        run = events[-1].data
        stream = await threads.runs.submit_tool_outputs(
            run.id, thread_id=thread.id, tool_outputs=outputs(run), stream=True
        )
        events = [event async for event in stream]
        assert names(events) == [*NEXT, *TEXT], names(events)

        async def one(number: int) -> None:
            """Stream one run on a thread of its own, and see whose answer it is."""
            new = {"messages": [{"role": "user", "content": f"number {number} of twenty"}]}
            stream = await threads.create_and_run(
                assistant_id=assistant.id, thread=new, stream=True
            )
            events = [event async for event in stream]
            assert names(events) == ["thread.created", *BEGIN, *TEXT], names(events)
            check_answer(events, f"number {number} of twenty")

        await asyncio.gather(*(one(number) for number in range(20)))


asyncio.run(main())
print("ok")
