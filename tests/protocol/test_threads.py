"""Several threads may use the package at once, from the first moment on."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys, threading
sys.setswitchinterval(1e-6)  # as bad as it gets
from contextlib import suppress

import msgspec
from openai_runs._protocol.endpoints import ENDPOINTS
from openai_runs._protocol.events import read_event
from openai_runs._protocol.sse import Frame

start = threading.Barrier(8)

text = b'{"id": "x", "data": [], "tools": [{"type": "function"}]}'
kinds = [kind for each in ENDPOINTS for kind in (each.answer, each.body) if kind is not None]

names = ["thread.message.delta", "thread.run.step.delta", "thread.run.step.created", ""]

def decode():
    start.wait()
    for name in names:
        with suppress(ValueError):
            read_event(Frame(name, text, ""))
    for kind in kinds:
        with suppress(msgspec.ValidationError):
            msgspec.json.decode(text, type=kind)

threads = [threading.Thread(target=decode) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.parametrize("attempt", range(5))
def test_types_are_first_decoded_in_many_threads_at_once(attempt: int) -> None:
    """Msgspec would crash the process, did the import not look at all types before."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=50
    )

    assert done.returncode == 0, done.stderr
