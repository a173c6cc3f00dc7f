"""Client and server are written in the field's words: a thing is found under its usual word.

The list is that of the style guide: private words, and what stands for them.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLACES = [
    "openai_runs/_client",
    "openai_runs/_protocol",
    "openai_runs/_transport.py",
    "openai_runs/conversations",
    "openai_runs/relay.py",
    "openai_runs/text.py",
    "openai_runs/server/api_errors.py",
    "openai_runs/server/clock.py",
    "openai_runs/server/events",
    "openai_runs/server/execution",
    "openai_runs/server/http",
    "openai_runs/server/local.py",
    "openai_runs/server/objects",
    "openai_runs/server/store/event_pages.py",
    "openai_runs/server/store/operations.py",
    "openai_runs/server/store/store.py",
    "openai_runs/web",
    "tests/client",
    "tests/protocol",
]

WORDS = {
    # waiting
    "Ticket": "WaitHandle",
    "Watch": "RunPoller",
    "Watching": "RunPoller",
    "WaitPlan": "WaitOptions",
    "Mailbox": "Inbox",
    "ticket": "handle",
    "mailbox": "inbox",
    "ring": "wake",
    "news": "changes",
    "tell": "notify",
    "hear": "notify",
    "look": "retrieve, poll or check",
    "look_again": "poll",
    # calls and their time
    "Timed": "Deadline",
    "timed": "deadline",
    "Attempts": "CreateRunFlow",
    "Creation": "CreateRunFlow",
    "Submission": "SubmitFlow",
    "taken": "keywords are parsed once, by `parse`",
    "refuse": "reject",
    "unsaid": "mask",
    "lay_over": "merge_headers",
    "Doubt": "maybe sent",
    "doubt": "maybe sent",
    "doubted": "maybe_sent",
    "unsure": "maybe sent",
    "guarded": "not idempotent",
    "GUARDED": "NOT_IDEMPOTENT",
    "is_harmless": "was_not_sent",
    "is_unsure": "is_ambiguous",
    "may_heal": "is_transient",
    "settle": "verify",
    "Settle": "Verify",
    "reveal": "strip_marker",
    "reveal_all": "strip_marker",
    "reveal_event": "strip_marker",
    "mark": "add_marker",
    # streams
    "Driver": "StreamSession",
    "Leg": "StreamRequest",
    "leg": "request",
    "Feed": "EventReader",
    "Patience": "IdleTimer",
    "Reading": "StreamParams",
    "reading": "params",
    "TakingUp": "Reconnector",
    "Fetcher": "ResultFetcher",
    "catch_up": "backfill",
    # what the calls of a client share
    "Supervisor": "BackgroundTasks",
    "supervisor": "background",
    "Work": "BackgroundTask",
    "Shared": "ClientState",
    "shared": "state",
    "Seams": "Runtime",  # the keyword `seams` of AsyncClient is public, and stays
    "Gate": "ThreadLock",
    "gates": "thread_locks",
    "Limiter": "RateLimiter",
    "admit": "acquire",
    "stand": "acquire",
    "Turn": "Permit",
    "NO_TURN": "NO_PERMIT",
    "_Line": "_Queue",
    "last_turn": "the permit that acquire returns",
    # the server
    "heard": "changes",
    "listen": "subscribe",
    "seat": "slot",
    "seats": "a limit, such as max_streams",
    "as_leg": "streamed",
    "crowded": "is_large",
    "hurry": "flush_soon",
    "insist": "retry_unavailable",
    "nap": "sleep",
    "take_back": "cut_after",
    "take_up": "resume",
    # states, not sets of booleans
    "bear": "tolerate",
    "outlast": "retry",
}
"""Identifier -> what to write."""

STEMS = {
    "audience": "events/subscribers",
    "bulletin": "events/change_bus",
    "drafting": "execution/draft",
    "executing": "store/claims",
    "making": "objects/builders",
    "moving": "store/runs or store/moves",
    "progress": "objects/transitions",
    "reading": "http/request_parsing",
    "refusals": "api_errors",
    "attempts": "flows/create_run",
    "awaiting": "await_run",
    "catching_up": "backfill",
    "creation": "create_run",
    "driving": "session",
    "faults": "error_mapping",
    "feed": "event_reader",
    "fetching": "recovery",
    "gathering": "as_completed",
    "legs": "requests",
    "limiting": "rate_limiter",
    "mapping": "run_map",
    "mending": "lenient",
    "patience": "idle_timer",
    "pieces": "delta_merge",
    "preparing": "pipeline",
    "scheduling": "scheduler",
    "shared": "state",
    "streaming": "run_stream",
    "submission": "submit_outputs",
    "supervising": "background",
    "taking_up": "recovery",
    "tickets": "handle",
    "waiting": "waiter",
    "watching": "poller",
}
"""File stem -> the module that took its place."""

PROSE = {
    r"wire": "API",
    r"bears?|bearing|outlasts?|outlive[sd]?": "tolerate, retry",
    r"told|tells?|heard|hears?|news": "say, send, notify, report",
    r"look again": "poll, check, retry",
    r"(?:take[sn]?|took|taking) (?:it |them |streams? |an? \w+ )?up": "reconnect, resume",
    r"taken? apart": "parse",
    r"doubt\w*|unsure": "may have been sent",
    r"guarded|harmless": "not idempotent, was not sent",
    r"settle[sd]?|settling": "verify, end",
    r"house|room|floor|door": "package, module, layer, entry point",
    r"anew": "again",
}
"""Word in the docs -> what to write."""

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "pages").rglob("*.md"))]

QUOTED: dict[tuple[str, str], str] = {
    ("docs/pages/guides/many-runs.md", "take up"): "held requests take up half of the connections",
}
"""(page, words) -> why they may stand there."""

ALLOWED: dict[tuple[str, str], str] = {
    ("openai_runs/server/execution/executor.py", "Turn"): "a public name: a model call",
}
"""(path, identifier) -> why it may stand there."""


def sources() -> Iterator[Path]:
    """Yield the files that are held to the list."""
    for place in PLACES:
        path = ROOT / place
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


def identifiers(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each name that a file defines, passes or reads, without underscores in front."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(value=ast.Name(id="pytest")):
                continue
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.keyword(arg=str(name)):
                yield name, node.value.lineno


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in sources()]
)
def test_names_are_the_fields_words(path: Path) -> None:
    """No identifier is one of the private words, but where the list of exceptions says why."""
    place = str(path.relative_to(ROOT))
    found = [
        f"{place}:{line}: {name}: write {WORDS[bare]}"
        for name, line in identifiers(path)
        if (bare := name if name in WORDS else name.lstrip("_")) in WORDS
        and (place, name) not in ALLOWED
    ]

    assert found == []


def prose(page: Path) -> Iterator[tuple[str, int]]:
    """Yield each line of a page without its code, with its number."""
    fenced = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            # What is printed is prose too, in a block of text as in the help of a command.
            fenced = not fenced and line.strip() != "```text"
        elif not fenced:
            yield re.sub(r"`[^`]*`|\]\([^)]*\)", "", line), number


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES]
)
def test_docs_are_written_in_the_fields_words(page: Path) -> None:
    """No private metaphor in README and docs: a reader finds a thing under its usual word."""
    place = str(page.relative_to(ROOT))
    found = [
        f"{place}:{number}: {word[0]}: write {instead}"
        for line, number in prose(page)
        for private, instead in PROSE.items()
        for word in re.finditer(rf"\b(?:{private})\b", line, re.IGNORECASE)
        if (place, word[0]) not in QUOTED
    ]

    assert found == []


def test_modules_have_the_fields_names() -> None:
    """No module of the client or the protocol has a name that was given up."""
    stems = {path.stem for path in sources() if path.is_relative_to(ROOT / "openai_runs")}

    assert stems & STEMS.keys() == set()


def test_exceptions_are_still_needed() -> None:
    """An allowed use that is gone leaves the list."""
    used = {
        (str(path.relative_to(ROOT)), name) for path in sources() for name, _ in identifiers(path)
    }

    assert {use for use in ALLOWED if use not in used} == set()
    assert {use for use in QUOTED if use[1] not in (ROOT / use[0]).read_text()} == set()
