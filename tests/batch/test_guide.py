"""The guide's program is short: no user code for checkpoint, progress or resumption."""

import ast

from tests.test_docs import PAGES_FOLDER, blocks_of


def test_program_of_the_guide_has_12_statements_at_most() -> None:
    """Imports and the call of `asyncio.run` counted."""
    blocks = blocks_of(PAGES_FOLDER / "guides" / "batch.md")
    (program,) = (block for block in blocks if "asyncio.run(" in block.source)
    statements = [
        node for node in ast.walk(ast.parse(program.source)) if isinstance(node, ast.stmt)
    ]

    assert len(statements) <= 12
