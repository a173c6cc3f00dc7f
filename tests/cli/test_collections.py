"""How often `openai-runs serve` collects garbage."""

from __future__ import annotations

import gc

from openai_runs._cli.commands.serve import spare_collections


def test_old_garbage_waits_for_no_more_than_fifty_collections_of_the_youngest() -> None:
    """Seldom for the young, so that a run costs little; soon enough for what lived a while."""
    before = gc.get_threshold()
    try:
        spare_collections()
        youngest, younger, old = gc.get_threshold()
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()

    assert youngest > before[0]
    assert younger * old <= 50
