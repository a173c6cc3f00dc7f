"""Runs and their steps through the official package, from create to cancel."""

import sys
import warnings

from openai import BadRequestError, NotFoundError, OpenAI

warnings.simplefilter("ignore", DeprecationWarning)
client = OpenAI(base_url=sys.argv[1], api_key="sk-referee", _strict_response_validation=True)
threads = client.beta.threads
runs = threads.runs
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
assistant = client.beta.assistants.create(model="gpt-4o", instructions="Echo.", tools=[tool])
thread = threads.create(messages=[{"role": "user", "content": "hello there"}])

# A plain run, polled to its end.
run = runs.create_and_poll(
    thread_id=thread.id,
    assistant_id=assistant.id,
    additional_instructions="Please.",
    metadata={"k": "v"},
    temperature=0.3,
    max_completion_tokens=1000,
    truncation_strategy={"type": "last_messages", "last_messages": 5},
    tool_choice="auto",
    parallel_tool_calls=False,
    poll_interval_ms=50,
)
assert run.status == "completed", run
assert run.object == "thread.run"
assert run.instructions == "Echo.\n\nPlease.", run.instructions
assert (run.metadata, run.temperature, run.max_completion_tokens) == ({"k": "v"}, 0.3, 1000)
assert run.truncation_strategy.last_messages == 5
assert run.parallel_tool_calls is False
assert run.usage.total_tokens == run.usage.prompt_tokens + run.usage.completion_tokens
assert run.expires_at is None
assert run.started_at
assert run.completed_at
assert run.required_action is None
assert runs.retrieve(run.id, thread_id=thread.id) == run
answer = threads.messages.list(thread.id, run_id=run.id).data
assert len(answer) == 1, answer
assert "hello there" in answer[0].content[0].text.value
assert answer[0].assistant_id == assistant.id
steps = runs.steps.list(run.id, thread_id=thread.id).data
assert [step.type for step in steps] == ["message_creation"]
assert steps[0].step_details.message_creation.message_id == answer[0].id
assert steps[0].usage is not None
assert runs.steps.retrieve(steps[0].id, thread_id=thread.id, run_id=run.id) == steps[0]
changed = runs.update(run.id, thread_id=thread.id, metadata={"k": "w"})
assert changed.metadata == {"k": "w"}

# A run that calls a tool, twice told what is wrong, then answered.
waiting = runs.create_and_poll(
    thread_id=thread.id,
    assistant_id=assistant.id,
    additional_messages=[{"role": "user", "content": "Use the tool look_up for tea."}],
    poll_interval_ms=50,
)
assert waiting.status == "requires_action", waiting
calls = waiting.required_action.submit_tool_outputs.tool_calls
assert [call.function.name for call in calls] == ["look_up"]
assert "tea" in calls[0].function.arguments
step = runs.steps.list(waiting.id, thread_id=thread.id).data[0]
assert (step.type, step.status) == ("tool_calls", "in_progress")
assert step.step_details.tool_calls[0].function.output is None

for call, text in (
    (
        lambda: runs.create(thread_id=thread.id, assistant_id=assistant.id),
        f"Thread {thread.id} already has an active run {waiting.id}.",
    ),
    (
        lambda: threads.messages.create(thread.id, role="user", content="x"),
        f"Can't add messages to {thread.id} while a run {waiting.id} is active.",
    ),
    (
        lambda: runs.submit_tool_outputs(
            waiting.id,
            thread_id=thread.id,
            tool_outputs=[{"tool_call_id": "call_no", "output": "x"}],
        ),
        f"Expected tool outputs for call_ids [{calls[0].id}], got [call_no]",
    ),
    (
        lambda: runs.cancel(run.id, thread_id=thread.id),
        "Cannot cancel run with status 'completed'.",
    ),
    (
        lambda: runs.submit_tool_outputs(run.id, thread_id=thread.id, tool_outputs=[]),
        'Runs in status "completed" do not accept tool outputs.',
    ),
):
    try:
        call()
    except BadRequestError as error:
        assert text in error.message, (text, error.message)
        assert (error.code, error.type) == (None, "invalid_request_error")
    else:
        raise AssertionError(f"not refused: {text}")

done = runs.submit_tool_outputs_and_poll(
    run_id=waiting.id,
    thread_id=thread.id,
    tool_outputs=[{"tool_call_id": calls[0].id, "output": "green"}],
    poll_interval_ms=50,
)
assert done.status == "completed", done
steps = runs.steps.list(done.id, thread_id=thread.id, order="asc").data
assert [step.type for step in steps] == ["tool_calls", "message_creation"]
assert steps[0].step_details.tool_calls[0].function.output == "green"

# A run that is cancelled while it waits.
waiting = runs.create_and_poll(
    thread_id=thread.id,
    assistant_id=assistant.id,
    additional_messages=[{"role": "user", "content": "Use the tool look_up for tea."}],
    poll_interval_ms=50,
)
cancelling = runs.cancel(waiting.id, thread_id=thread.id)
assert cancelling.status in {"cancelling", "cancelled"}, cancelling
while cancelling.status == "cancelling":
    cancelling = runs.retrieve(waiting.id, thread_id=thread.id)
assert cancelling.status == "cancelled"
assert cancelling.cancelled_at is not None

# Thread and run in one call, and lists in both directions.
both = threads.create_and_run_poll(
    assistant_id=assistant.id,
    thread={"messages": [{"role": "user", "content": "at once"}], "metadata": {"t": "1"}},
    poll_interval_ms=50,
)
assert both.status == "completed"
assert threads.retrieve(both.thread_id).metadata == {"t": "1"}
made = [run.id]
for _ in range(2):
    made.append(runs.create_and_poll(thread_id=both.thread_id, assistant_id=assistant.id).id)
made[0] = both.id
assert [one.id for one in runs.list(both.thread_id, limit=2, order="asc")] == made
assert [one.id for one in runs.list(both.thread_id, limit=2)] == made[::-1]
assert [one.id for one in runs.list(both.thread_id, before=made[0]).data] == made[:0:-1]

try:
    runs.retrieve("run_nowhere", thread_id=thread.id)
except NotFoundError as error:
    assert "No run found with id 'run_nowhere'." in error.message, error.message
else:
    raise AssertionError("an unknown run was found")
print("ok")
