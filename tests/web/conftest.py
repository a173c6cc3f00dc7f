"""What the tests of web back ends share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.web.serving import FRAMEWORKS, serve_chat


@pytest.fixture(params=FRAMEWORKS)
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    """Each framework in turn."""
    return lambda model, **options: serve_chat(request.param, model, tmp_path, **options)
