"""The official package's stream helper: snapshots, handlers, and tools from inside a handler."""

import asyncio
import sys
import warnings

from openai import AssistantEventHandler, AsyncAssistantEventHandler, AsyncOpenAI, OpenAI

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
ask = [{"role": "user", "content": "Use the tool look_up for green tea."}]
ARGUMENTS = '{"what":"green tea"}'


def outputs(run) -> list[dict]:
    """Return an output for each call the run waits for."""
    calls = run.required_action.submit_tool_outputs.tool_calls
    return [{"tool_call_id": call.id, "output": f"{call.function.name}: 80 C"} for call in calls]


def check_final(run, steps, messages, words: str) -> None:
    """See that the helper's final objects are those of a finished run."""
    assert run.status == "completed", run
    assert [step.type for step in steps][-1] == "message_creation"
    assert [message.content[0].text.value for message in messages] == [words]


# Without a handler: text, and the final objects.
thread = threads.create(messages=[{"role": "user", "content": "one two three"}])
with threads.runs.stream(thread_id=thread.id, assistant_id=assistant.id) as stream:
    assert list(stream.text_deltas) == ["one ", "two ", "three"]
    check_final(
        stream.get_final_run(),
        stream.get_final_run_steps(),
        stream.get_final_messages(),
        "one two three",
    )
with threads.create_and_run_stream(
    assistant_id=assistant.id, thread={"messages": [{"role": "user", "content": "a b"}]}
) as stream:
    stream.until_done()
    assert stream.current_run.status == "completed"
    assert stream.current_message_snapshot.content[0].text.value == "a b"

# Without a handler: a tool call, and the next leg by hand.
with threads.runs.stream(
    thread_id=thread.id, assistant_id=assistant.id, additional_messages=ask
) as stream:
    run = stream.get_final_run()
    (step,) = stream.get_final_run_steps()
assert run.status == "requires_action"
assert step.step_details.tool_calls[0].function.arguments == ARGUMENTS
with threads.runs.submit_tool_outputs_stream(
    run_id=run.id, thread_id=thread.id, tool_outputs=outputs(run)
) as stream:
    assert "".join(stream.text_deltas) == "look_up says: look_up: 80 C"
    assert stream.get_final_run().status == "completed"


class Handler(AssistantEventHandler):
    """Notes what it is called with; answers tool calls in a stream of their own."""

    def __init__(self, notes: list) -> None:
        super().__init__()
        self.notes = notes

    def on_event(self, event) -> None:
        """Note the event, and answer a run that waits."""
        self.notes.append(event.event)
        if event.event == "thread.run.requires_action":
            run = event.data
            with threads.runs.submit_tool_outputs_stream(
                run_id=run.id,
                thread_id=run.thread_id,
                tool_outputs=outputs(run),
                event_handler=Handler(self.notes),
            ) as stream:
                stream.until_done()

    def on_tool_call_created(self, tool_call) -> None:
        """Note the name, which is there from the start."""
        self.notes.append(("call created", tool_call.function.name))

    def on_tool_call_delta(self, delta, snapshot) -> None:
        """Note that the snapshot grows."""
        assert snapshot.function.arguments.endswith(delta.function.arguments)

    def on_tool_call_done(self, tool_call) -> None:
        """Note the whole arguments."""
        self.notes.append(("call done", tool_call.function.arguments))

    def on_text_created(self, text) -> None:
        """Note that a text begins."""
        self.notes.append("text created")

    def on_text_delta(self, delta, snapshot) -> None:
        """Note that the snapshot grows."""
        assert snapshot.value.endswith(delta.value)

    def on_text_done(self, text) -> None:
        """Note the whole text."""
        self.notes.append(("text done", text.value))

    def on_message_done(self, message) -> None:
        """Note the status."""
        self.notes.append(("message done", message.status))

    def on_run_step_done(self, run_step) -> None:
        """Note the kind."""
        self.notes.append(("step done", run_step.type, run_step.status))

    def on_end(self) -> None:
        """Note the end of a leg."""
        self.notes.append("end")

    def on_exception(self, exception) -> None:
        """Note what must not be."""
        self.notes.append(exception)


def check_notes(notes: list) -> None:
    """See that a handler was called with everything, in both legs, and with no exception."""
    assert not [note for note in notes if isinstance(note, Exception)], notes
    for wanted in (
        ("call created", "look_up"),
        ("call done", ARGUMENTS),
        ("step done", "tool_calls", "completed"),
        "text created",
        ("text done", "look_up says: look_up: 80 C"),
        ("message done", "completed"),
        ("step done", "message_creation", "completed"),
    ):
        assert wanted in notes, (wanted, notes)
    assert notes.count("end") == 2, notes
    assert notes.count("thread.run.completed") == 1, notes


notes: list = []
with threads.runs.stream(
    thread_id=thread.id,
    assistant_id=assistant.id,
    additional_messages=ask,
    event_handler=Handler(notes),
) as stream:
    stream.until_done()
check_notes(notes)


class AsyncHandler(AsyncAssistantEventHandler):
    """The same, for the async client."""

    def __init__(self, client: AsyncOpenAI, notes: list) -> None:
        super().__init__()
        self.client = client
        self.notes = notes

    async def on_event(self, event) -> None:
        """Note the event, and answer a run that waits."""
        self.notes.append(event.event)
        if event.event == "thread.run.requires_action":
            run = event.data
            async with self.client.beta.threads.runs.submit_tool_outputs_stream(
                run_id=run.id,
                thread_id=run.thread_id,
                tool_outputs=outputs(run),
                event_handler=AsyncHandler(self.client, self.notes),
            ) as stream:
                await stream.until_done()

    async def on_tool_call_created(self, tool_call) -> None:
        """Note the name, which is there from the start."""
        self.notes.append(("call created", tool_call.function.name))

    async def on_tool_call_done(self, tool_call) -> None:
        """Note the whole arguments."""
        self.notes.append(("call done", tool_call.function.arguments))

    async def on_text_created(self, text) -> None:
        """Note that a text begins."""
        self.notes.append("text created")

    async def on_text_done(self, text) -> None:
        """Note the whole text."""
        self.notes.append(("text done", text.value))

    async def on_message_done(self, message) -> None:
        """Note the status."""
        self.notes.append(("message done", message.status))

    async def on_run_step_done(self, run_step) -> None:
        """Note the kind."""
        self.notes.append(("step done", run_step.type, run_step.status))

    async def on_end(self) -> None:
        """Note the end of a leg."""
        self.notes.append("end")

    async def on_exception(self, exception) -> None:
        """Note what must not be."""
        self.notes.append(exception)


async def main() -> None:
    """Do all of it with the async client."""
    async with AsyncOpenAI(**options, max_retries=0) as client:
        threads = client.beta.threads
        thread = await threads.create(messages=[{"role": "user", "content": "one two three"}])
        async with threads.runs.stream(thread_id=thread.id, assistant_id=assistant.id) as stream:
            assert [text async for text in stream.text_deltas] == ["one ", "two ", "three"]
            check_final(
                await stream.get_final_run(),
                await stream.get_final_run_steps(),
                await stream.get_final_messages(),
                "one two three",
            )
        async with threads.create_and_run_stream(
            assistant_id=assistant.id, thread={"messages": ask}
        ) as stream:
            run = await stream.get_final_run()
        assert run.status == "requires_action"
        async with threads.runs.submit_tool_outputs_stream(
            run_id=run.id, thread_id=run.thread_id, tool_outputs=outputs(run)
        ) as stream:
            await stream.until_done()
            assert stream.current_run.status == "completed"
        notes: list = []
        async with threads.runs.stream(
            thread_id=thread.id,
            assistant_id=assistant.id,
            additional_messages=ask,
            event_handler=AsyncHandler(client, notes),
        ) as stream:
            await stream.until_done()
        check_notes(notes)


asyncio.run(main())
print("ok")
