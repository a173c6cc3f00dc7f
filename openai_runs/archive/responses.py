"""`write_responses`: the conversations of an archive as input items of the API's successor.

A file for each thread, with an item a line, in the order of the conversation: messages, and before
the message that a run wrote from them, the function calls of its steps and their outputs. What the
form has no place for is left out, and named.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import msgspec

from openai_runs.archive import folders
from openai_runs.archive.folders import RunLines, ThreadLines, parse_object
from openai_runs.archive.left_out import LeftOut
from openai_runs.errors import ConfigError

__all__ = ["ResponsesReport", "input_items", "write_responses"]

FOLDER: Final = "responses"

_NO_OUTPUT: Final = "the call never got an output, and the form asks for one"
_NO_CALL: Final = "the form has function calls only"
_NO_TEXT: Final = "citations are kept as the text has them, without their files"
_NO_PART: Final = "the form has no such part of a message"
_NO_ATTACHMENTS: Final = "the form has no attachments of messages"


class ResponsesReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the conversations."""

    folder: Path
    threads: int
    items: int
    left_out: list[LeftOut]
    """What has no place in the form, and why."""


async def write_responses(folder: str | Path) -> ResponsesReport:
    """Write each thread of the archive as input items, into `responses/` of its folder.

    Nothing is asked of a server. A line is an item of `input`, as `POST /responses` and
    `POST /conversations` take it; `left-out.jsonl` there names what could not be carried over.

    Args:
        folder: A whole archive of `export`.

    Raises:
        ConfigError: The folder holds no whole archive.
        OSError: The files cannot be written.

    Cancellation: waits until the files are written.
    """
    return await anyio.to_thread.run_sync(_write, Path(folder))


def _write(folder: Path) -> ResponsesReport:
    manifest = folders.read_manifest(folder)
    target = folder / FOLDER
    folders.make_folder(target)
    count, left = 0, []
    for entry in manifest.threads:
        data = folders.read_if_there(folder / entry.file)
        if data is None or folders.digest(data) != entry.sha256:
            message = f"{entry.file} is not what the manifest says: export again"
            raise ConfigError(message)
        items, notes = input_items(folders.decode_thread(data))
        text = b"".join(msgspec.json.encode(item) + b"\n" for item in items)
        folders.write_whole(target / Path(entry.file).name, text)
        count += len(items)
        left += notes
    lines = b"".join(msgspec.json.encode(note) + b"\n" for note in left)
    folders.write_whole(target / folders.LEFT_OUT, lines)
    return ResponsesReport(folder=target, threads=len(manifest.threads), items=count, left_out=left)


def input_items(lines: ThreadLines) -> tuple[list[dict[str, Any]], list[LeftOut]]:
    """Return the items of a thread, and what has no place among them."""
    return _Conversation(lines).items()


class _Run:
    """A run while its conversation is written: its steps, up to the one that is next."""

    def __init__(self, lines: RunLines) -> None:
        facts = parse_object(lines.run)
        self.id = str(facts.get("id", ""))
        self.created_at = _time(facts)
        self._steps = [parse_object(step) for step in lines.steps]
        self._next = 0

    def until(self, message_id: str | None) -> Iterator[dict[str, Any]]:
        """Yield the steps up to the one that wrote this message; None: the rest."""
        while self._next < len(self._steps):
            step = self._steps[self._next]
            self._next += 1
            yield step
            if message_id is not None and _written(step) == message_id:
                return

    def wrote(self, message_id: str) -> bool:
        """Return whether a step that is to come wrote this message."""
        return any(_written(step) == message_id for step in self._steps[self._next :])

    @property
    def writes(self) -> bool:
        """Return whether a step that is to come wrote a message."""
        return any(_written(step) is not None for step in self._steps[self._next :])


class _Conversation:
    """A thread as one list of items."""

    def __init__(self, lines: ThreadLines) -> None:
        self._where = str(parse_object(lines.thread).get("id", ""))
        self._messages = [parse_object(message) for message in lines.messages]
        self._runs = [_Run(run) for run in lines.runs]
        self._items: list[dict[str, Any]] = []
        self._left: dict[tuple[str, str], LeftOut] = {}

    def items(self) -> tuple[list[dict[str, Any]], list[LeftOut]]:
        for message in self._messages:
            self._add_runs_before(message)
            self._add_message(message)
        for run in self._runs:
            self._add_calls(run, None)
        return self._items, list(self._left.values())

    def _add_runs_before(self, message: dict[str, Any]) -> None:
        """Add the calls that were made before this message was written."""
        message_id = str(message.get("id", ""))
        for run in self._runs:
            if run.wrote(message_id):
                self._add_calls(run, message_id)
                return
        if message.get("role") == "user":  # what ended before it without a word more
            for run in self._runs:
                if not run.writes and run.created_at < _time(message):
                    self._add_calls(run, None)

    def _add_calls(self, run: _Run, message_id: str | None) -> None:
        for step in run.until(message_id):
            for call in _objects(_object(step.get("step_details")).get("tool_calls")):
                self._add_call(call)

    def _add_call(self, call: dict[str, Any]) -> None:
        call_id = str(call.get("id", ""))
        if call.get("type") != "function":
            self._leave(f"{call.get('type')} call", call_id, _NO_CALL)
            return
        function = _object(call.get("function"))
        output = function.get("output")
        if output is None:
            self._leave("function call", call_id, _NO_OUTPUT)
            return
        self._items += [
            {
                "type": "function_call",
                "call_id": call_id,
                "name": function.get("name", ""),
                "arguments": function.get("arguments", "{}"),
            },
            {"type": "function_call_output", "call_id": call_id, "output": output},
        ]

    def _add_message(self, message: dict[str, Any]) -> None:
        message_id = str(message.get("id", ""))
        is_answer = message.get("role") == "assistant"
        parts = [
            part
            for each in _objects(message.get("content"))
            if (part := self._part(each, message_id, is_answer=is_answer)) is not None
        ]
        if message.get("attachments"):
            self._leave("attachments", message_id, _NO_ATTACHMENTS)
        if parts:
            role = "assistant" if is_answer else "user"
            self._items.append({"type": "message", "role": role, "content": parts})

    def _part(
        self, part: dict[str, Any], message_id: str, *, is_answer: bool
    ) -> dict[str, Any] | None:
        """Return a part of a message in the new form; None if it has no place there."""
        kind, inside = part.get("type"), part.get(str(part.get("type")))
        if kind == "text" and isinstance(inside, dict):
            if inside.get("annotations"):
                self._leave("annotations", message_id, _NO_TEXT)
            text = inside.get("value", "")
            if is_answer:
                return {"type": "output_text", "text": text, "annotations": []}
            return {"type": "input_text", "text": text}
        if kind == "refusal" and is_answer:
            return {"type": "refusal", "refusal": inside}
        if kind in {"image_url", "image_file"} and isinstance(inside, dict) and not is_answer:
            source = {"image_url": inside.get("url")} if kind == "image_url" else inside
            name = "image_url" if kind == "image_url" else "file_id"
            detail = inside.get("detail") or "auto"
            return {"type": "input_image", name: source.get(name), "detail": detail}
        self._leave(f"{kind} part", message_id, _NO_PART)
        return None

    def _leave(self, what: str, key: str, why: str) -> None:
        self._left.setdefault((what, key), LeftOut(what=what, id=key, why=why, where=self._where))


def _written(step: dict[str, Any]) -> str | None:
    """Return the id of the message that the step wrote."""
    return _object(_object(step.get("step_details")).get("message_creation")).get("message_id")


def _objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list, whatever else is there."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _time(value: dict[str, Any]) -> float:
    time = value.get("created_at")
    return time if isinstance(time, int | float) else 0
