"""pytest as tests start it in a process of its own."""

from typing import Final

__all__ = ["PLUGINS"]

PLUGINS: Final = ["-p", "no:cacheprovider", "-p", "no:schemathesis"]
"""Options that leave out what writes into the folder, and what takes seconds to load."""
