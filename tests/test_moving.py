"""The guide for those who come from the official client leaves out none of its names."""

import json
import re
from pathlib import Path

import pytest

from openai_runs import AsyncClient
from tests.test_seed_table import find, parameters

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "pages" / "guides" / "moving.md").read_text()
NAMES: dict[str, list[str]] = json.loads((ROOT / "tests" / "official" / "names.json").read_text())[
    "names"
]
"""Name of the official client -> its arguments, as `list_names.py` found them."""
HANDLER = "AsyncAssistantEventHandler."

_ROW = re.compile(r"^\| (?P<theirs>`.+?) \| (?P<ours>.+?) \| (?P<note>.*?)\|$", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")

ROWS = {name: found for found in _ROW.finditer(PAGE) for name in _CODE.findall(found["theirs"])}
"""Official name -> its row."""
METHODS = [name for name in NAMES if not name.startswith(HANDLER) and ".with_" not in name]


def test_every_name_has_its_row() -> None:
    """Whoever looks a name up finds it: the same, another, or what to do instead."""
    assert [name for name in NAMES if name.removeprefix(HANDLER) not in ROWS] == []


@pytest.mark.parametrize("name", METHODS)
def test_method_takes_what_it_takes_there(name: str) -> None:
    """Under its official name, but for a deprecated one, with all arguments but those named."""
    row = ROWS[name]
    ours = find(_CODE.findall(row["ours"])[0])
    refused = re.findall(r"not `(\w+)`", row["note"])

    assert callable(ours)
    assert sorted(set(NAMES[name]) - set(parameters(ours))) == refused
    if "deprecated" not in row["note"]:
        client = AsyncClient(base_url="http://127.0.0.1:9/v1")
        for part in name.split("."):
            client = getattr(client, part)
        assert client.__name__ == ours.__name__  # type: ignore[attr-defined]  # a method by now
