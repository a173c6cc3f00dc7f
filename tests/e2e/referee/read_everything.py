"""Read all that a server has of these threads with the official package, and count it as JSON.

Run by the interpreter that has the package, with the server's URL and the ids of the threads.
Each object is read in its list and by itself, and is the same both times; the events of each run
that has ended are replayed.
"""

import json
import sys
from collections import Counter
from typing import Any

import openai
from openai.types.beta import AssistantStreamEvent

url, *thread_ids = sys.argv[1:]
client = openai.OpenAI(base_url=url, api_key="any", max_retries=0, _strict_response_validation=True)
counts: Counter[str] = Counter()


def count(kind: str, listed: Any, retrieved: Any) -> None:
    """Count an object that was read in both ways."""
    assert listed.to_dict() == retrieved.to_dict(), (listed, retrieved)
    counts[kind] += 1


def count_events(thread_id: str, run_id: str) -> None:
    """Count the events of a run's log; a run of before there was one has none."""
    path = f"/threads/{thread_id}/runs/{run_id}/stream"
    kind = openai.Stream[AssistantStreamEvent]
    try:
        with client.get(path, cast_to=AssistantStreamEvent, stream=True, stream_cls=kind) as events:
            counts["events"] += sum(event.event.startswith("thread.") for event in events)
    except openai.ConflictError:
        counts["without events"] += 1


for assistant in client.beta.assistants.list(limit=1):
    count("assistants", assistant, client.beta.assistants.retrieve(assistant.id))
for thread_id in thread_ids:
    threads = client.beta.threads
    assert threads.retrieve(thread_id).id == thread_id
    counts["threads"] += 1
    for message in threads.messages.list(thread_id, limit=1):
        count("messages", message, threads.messages.retrieve(message.id, thread_id=thread_id))
    for run in threads.runs.list(thread_id, limit=1, order="asc"):
        count("runs", run, threads.runs.retrieve(run.id, thread_id=thread_id))
        within = {"thread_id": thread_id, "run_id": run.id}
        for step in threads.runs.steps.list(**within, limit=1):
            count("steps", step, threads.runs.steps.retrieve(step.id, **within))
        if run.status not in {"queued", "in_progress", "requires_action"}:
            count_events(thread_id, run.id)
print(json.dumps(counts))
