"""What tests of spans share: a recorder, and a traced client of a traced server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openai_runs import AsyncClient
from openai_runs.otel import Tracing
from openai_runs.server import (
    LocalServer,
    ScriptedBackend,
    ScriptedTurn,
)

KEY = "sk-not-to-be-seen-0123456789"
QUESTION = "How warm is Paris?"
ANSWER = "It is mild, and it rains."
TEXTS = (QUESTION, ANSWER, "Be brief.", "18 degrees", "wet as ever", '"city"')


class Recorder:
    """The spans of a test."""

    def __init__(self) -> None:
        """Record from now on."""
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def tracing(self, *, capture_content: bool = False) -> Tracing:
        """Return a tracing that is recorded here."""
        return Tracing(capture_content=capture_content, tracer_provider=self.provider)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """Return what has ended, in the order in which it began."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, start: str) -> list[ReadableSpan]:
        """Return the spans whose names begin so."""
        return [span for span in self.spans if span.name.startswith(start)]

    def text(self) -> str:
        """Return all that would be exported."""
        return "".join(span.to_json() for span in self.spans)


@asynccontextmanager
async def both(
    recorder: Recorder, *script: ScriptedTurn, capture_content: bool = False
) -> AsyncIterator[tuple[AsyncClient, str, str]]:
    """Yield a traced client of a traced server that plays `script`, an assistant and a thread."""
    tracing = recorder.tracing(capture_content=capture_content)
    server = LocalServer(backend=ScriptedBackend([*script]), api_key=KEY, tracing=tracing)
    async with server, AsyncClient(server.url, KEY, tracing=tracing) as client:
        assistant = await client.assistants.create(model="m-1", instructions="Be brief.")
        thread = await client.threads.create(messages=[{"role": "user", "content": QUESTION}])
        recorder.exporter.clear()
        yield client, assistant.id, thread.id


def tree(spans: Sequence[ReadableSpan], ids: dict[str, str]) -> list[str]:
    """Return the spans as indented lines: kind and name, ids by what they are."""
    children: dict[int | None, list[ReadableSpan]] = {}
    known = {span.context.span_id for span in spans if span.context}
    for span in spans:
        parent = span.parent.span_id if span.parent else None
        children.setdefault(parent if parent in known else None, []).append(span)

    def lines(parent: int | None, depth: int) -> Iterator[str]:
        for span in children.get(parent, []):
            name = span.name
            for there, word in ids.items():
                name = name.replace(there, word)
            yield "  " * depth + f"{span.kind.name} {name}"
            assert span.context is not None
            yield from lines(span.context.span_id, depth + 1)

    return [*lines(None, 0)]
