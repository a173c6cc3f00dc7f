"""The notebook of the docs runs, and its outputs are short and those that it was kept with.

`python -m tests.test_notebook` runs it and keeps the outputs.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "pages" / "guides" / "notebook.ipynb"
MAX_LINES = 9
"""Lines of an output; a table of two messages has six."""
MAX_CHARS = 400
_CHANGING = re.compile(r"((?:asst|thread|run|msg)\\?_)\w{24}|(127\.0\.0\.1:)\d+|(created_at=)\d+")


def read() -> Any:
    """Return the notebook as it is kept."""
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]  # has no types


def executed() -> Any:
    """Return the notebook with the outputs of a new kernel."""
    notebook = read()
    NotebookClient(notebook, timeout=30, kernel_name="python3").execute()
    return notebook


def outputs_of(notebook: Any) -> Iterator[tuple[str, str]]:
    """Yield each cell's source, and what is shown below it: Markdown where there is some."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = []
            for output in cell.outputs:
                data = output.get("data", {})
                shown.append(output.get("text") or data.get("text/markdown") or data["text/plain"])
            yield cell.source, _CHANGING.sub(r"\1\2\3...", "".join(shown))


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel write its history and its connection file nowhere else."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


def test_notebook_shows_what_it_was_kept_with() -> None:
    """Ids, ports and times apart, each cell's output is the one that readers of the docs see."""
    kept = read()
    outputs = dict(outputs_of(executed()))

    assert len(outputs) >= 10
    assert outputs == dict(outputs_of(kept))
    long = [
        source
        for source, text in outputs.items()
        if len(text.splitlines()) > MAX_LINES or len(text) > MAX_CHARS
    ]
    assert long == []


if __name__ == "__main__":
    kept = executed()
    for cell in kept.cells:
        cell.metadata.pop("execution", None)
    nbformat.write(kept, NOTEBOOK)  # type: ignore[no-untyped-call]  # has no types
