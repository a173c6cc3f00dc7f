"""The search for canaries bites: a test that lets a key or a prompt out fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.suites import PLUGINS

ROOT = Path(__file__).resolve().parents[1]

LEAKS = {
    "error-body": "refused(body=CANARY_KEY)",
    "message": "logging.getLogger('any').debug(f'sent {CANARY_KEY}')",
    "arguments": "logging.getLogger('openai_runs.client').info('sent %.3s', CANARY_PROMPT)",
    "attribute": "logging.getLogger('any').error('failed', extra={'run_id': CANARY_KEY})",
    "traceback": "logging.getLogger('any').error('failed', exc_info=ValueError(CANARY_KEY))",
    "cause": "logging.getLogger('any').error('failed', exc_info=chained(CANARY_PROMPT))",
    "error": "errors.ConfigError(f'the key {CANARY_KEY} is wrong')",
    "refusal": "Refusal(f'no {CANARY_PROMPT}')",
    "error-fact": "refused(code=CANARY_KEY)",
    "answer": "WATCH.search_answer(200, {}, CANARY_KEY)",
    "error-answer": "WATCH.search_answer(400, {}, CANARY_PROMPT)",
    "answer-header": "WATCH.search_answer(200, {'x-echo': CANARY_KEY}, '')",
}
"""What a test does that must fail."""
HARMLESS = {
    "own-message": "WATCH.search_answer(200, {}, CANARY_PROMPT)",
    "log": "logging.getLogger('any').error('%s characters', len(CANARY_KEY))",
    "prompt-in-body": "refused(body=CANARY_PROMPT)",
}
SUITE = """
import logging
from openai_runs import errors
from openai_runs.server.api_errors import Refusal
from tests.canaries import CANARY_KEY, CANARY_PROMPT, WATCH

def chained(text):
    try:
        try:
            raise ValueError(text)
        except ValueError as error:
            raise LookupError from error
    except LookupError as error:
        return error

def refused(code=None, body=None):
    errors.BadRequestError("no", status_code=400, headers={}, code=code, body=body)
"""


def ident(name: str) -> str:
    """Return the name as a part of a function's."""
    return name.replace("-", "_")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of a suite that does each of these things, in a test of its own."""
    folder = tmp_path_factory.mktemp("leaky")
    tests = [
        f"def test_{n.replace('-', '_')}():\n    {do}\n" for n, do in (LEAKS | HARMLESS).items()
    ]
    (folder / "test_leaky.py").write_text("\n".join([SUITE, *tests]))
    options = [*PLUGINS, "-p", "tests.canaries", "-v", "--tb=no", "--rootdir=."]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_leaky.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", LEAKS)
def test_leak_fails_the_test(name: str, outcome: str) -> None:
    """The check is made when the test is over, so it is an error of the teardown."""
    assert f"test_leaky.py::test_{ident(name)} ERROR" in outcome, outcome


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_no_leak_passes(name: str, outcome: str) -> None:
    """An object may hold its own text, and an exception the answer it stands for."""
    assert f"test_leaky.py::test_{ident(name)} PASSED" in outcome, outcome
    assert f"test_leaky.py::test_{ident(name)} ERROR" not in outcome
