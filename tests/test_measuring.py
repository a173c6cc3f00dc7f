"""Which tests coverage is measured in."""

import sys
import threading
from pathlib import Path

import pytest

from tests.measuring import ROOT, UNMEASURED, is_measured, tracing


def test_unmeasured_files_are_there() -> None:
    """A file that was moved would be measured again, and nobody would notice."""
    assert [name for name in UNMEASURED if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    ("name", "measured"),
    [
        ("tests/fuzz/test_lying_server.py", False),
        ("tests/cli/test_guide.py", False),
        ("tests/cli/test_ask.py", True),
        ("tests/test_relay.py", True),
    ],
)
def test_folder_stands_for_all_that_is_in_it(name: str, measured: bool) -> None:
    """And a file for itself."""
    assert is_measured(ROOT / name) is measured


def test_file_elsewhere_is_measured(tmp_path: Path) -> None:
    """Only what is listed is left out."""
    assert is_measured(tmp_path / "tests" / "fuzz" / "test_a.py")


def test_tracer_is_back_after_a_pause() -> None:
    """For this thread and for those that begin later."""

    def tracer(*_: object) -> None:
        """Trace nothing."""

    before = sys.gettrace(), threading.gettrace()
    with tracing(tracer):
        with tracing(None):
            paused = sys.gettrace(), threading.gettrace()
        resumed = sys.gettrace()

    assert paused == (None, None)
    assert resumed is tracer
    assert (sys.gettrace(), threading.gettrace()) == before
