"""Requests that schemathesis makes from the OpenAPI description: valid, invalid, in sequence."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from openai_runs.testing import RunsServer
from tests.canaries import CANARY_KEY, WATCH
from tests.fuzz.description import described
from tests.fuzz.hammering import FIRST, SECONDS, is_long, keep_figures
from tests.openapi import OPERATIONS, problems

if TYPE_CHECKING:
    from schemathesis import Case, Response

pytestmark = pytest.mark.timeout(120 + 2 * SECONDS)


class Judge:
    """Sends cases, and judges the answers."""

    def __init__(self, url: str, session: requests.Session) -> None:
        """Speak to this server."""
        self.url = url
        self.session = session
        self.ends: dict[int, int] = {}
        """How many answers had each status."""

    def send(self, case: Case[Any]) -> Response:
        """Return the answer to a case."""
        answer = case.call(base_url=self.url, session=self.session, timeout=20)
        self.check(case.operation.definition.raw["operationId"], answer)
        return answer

    def check(self, operation: str, answer: Response) -> None:
        """Fail unless the answer fits the description, or is a refusal as the API has them."""
        status, text = answer.status_code, answer.content.decode()
        self.ends[status] = self.ends.get(status, 0) + 1
        headers = {name: ",".join(values) for name, values in answer.headers.items()}
        WATCH.search_answer(status, headers, text)
        assert status == 200 or 400 <= status < 500, f"{status} {text[:300]}"
        assert headers["x-request-id"], headers
        if headers["content-type"].startswith("text/event-stream"):
            assert text.endswith("data: [DONE]\n\n"), text[-300:]
            return
        schema = OPERATIONS[operation].answer if status == 200 else "ErrorResponse"
        assert problems(schema, answer.json()) == [], text[:300]


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Judge]:
    """Judge of a server that echoes."""
    with RunsServer(db=tmp_path / "runs.db") as server, requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {CANARY_KEY}"
        yield Judge(server.url, session)


def made(judge: Judge, path: str, body: dict[str, Any]) -> Any:
    """Return what a POST made."""
    return judge.session.post(judge.url + path, json=body, timeout=20).json()


def real_ids(judge: Judge) -> dict[str, str]:
    """Return the ids of one new object of each kind."""
    assistant, thread = made(judge, "/assistants", {"model": "m"}), made(judge, "/threads", {})
    place = f"/threads/{thread['id']}"
    message = made(judge, f"{place}/messages", {"role": "user", "content": "x"})
    run = made(judge, f"{place}/runs", {"assistant_id": assistant["id"]})
    return {
        "assistant_id": assistant["id"],
        "thread_id": thread["id"],
        "message_id": message["id"],
        "run_id": run["id"],
    }


def name_real(case: Case[Any], ids: dict[str, str]) -> None:
    """Put the ids of real objects where those of the case stand, and no id into its query."""
    given, query = case.path_parameters or {}, case.query or {}
    case.path_parameters = {name: ids.get(name, value) for name, value in given.items()}
    case.query = {name: query[name] for name in query.keys() - {"after", "before", "run_id"}}
    if isinstance(case.body, dict) and "assistant_id" in case.body:
        case.body = {**case.body, "assistant_id": ids["assistant_id"]}


def hammer(
    part: str, judge: Judge, attempt: Callable[[int, settings], None], examples: int
) -> None:
    """Run the examples of one seed, or of as many as there is time for.

    A seed is printed before it is tried, so that a failure is of the last one printed.
    """
    until = monotonic() + SECONDS
    tried = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        stateful_step_count=8,
        suppress_health_check=list(HealthCheck),
    )
    failures = 1
    try:
        for number in itertools.count(FIRST):
            print(f"FUZZ_SEED={number} ({part})")  # noqa: T201 - shown where it fails
            attempt(number, tried)
            if not is_long() or monotonic() >= until:
                break
        failures = 0
    finally:
        keep_figures(part, sum(judge.ends.values()), failures)


@pytest.mark.parametrize("mode", ["valid", "invalid"])
def test_described_requests_get_described_answers(judge: Judge, mode: str) -> None:
    """No 5xx; each answer has the shape that the description gives it, each refusal its id."""
    from schemathesis import GenerationMode
    from schemathesis.core.result import Ok

    found = described().get_all_operations()
    operations = [operation.ok() for operation in found if isinstance(operation, Ok)]
    kind = GenerationMode.POSITIVE if mode == "valid" else GenerationMode.NEGATIVE

    def attempt(number: int, tried: settings) -> None:
        ids = real_ids(judge)  # new ones for each seed: some are deleted

        @seed(number)
        @tried
        @given(
            case=st.one_of([one.as_strategy(kind) for one in operations]),
            is_real=st.sampled_from([True, True, True, False]),
        )
        def one(case: Case[Any], is_real: bool) -> None:
            if is_real:
                name_real(case, ids)
            judge.send(case)

        one()

    hammer(f"description, {mode}", judge, attempt, 40)

    assert judge.ends.keys() >= ({200, 404} if mode == "valid" else {400})


def test_described_requests_in_sequence_get_described_answers(judge: Judge) -> None:
    """What was made is read, changed, listed and deleted, in any order."""

    class Sequence(described().as_state_machine()):  # type: ignore[misc]  # made as the test runs
        def call(self, case: Case[Any], **kw: Any) -> Response:
            """Send it, and judge the answer."""
            return judge.send(case)

        def validate_response(self, *args: Any, **kw: Any) -> None:
            """It is judged already."""

    def attempt(number: int, tried: settings) -> None:
        run_state_machine_as_test(seed(number)(Sequence), settings=tried)

    hammer("description, in sequence", judge, attempt, 6)

    assert judge.ends[200] > 1
