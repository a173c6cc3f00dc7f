"""The names of the official SDK, for code that moves by changing its import."""

from __future__ import annotations

from openai_runs._client.resources.assistants import Assistants
from openai_runs._client.resources.threads import Threads

__all__ = ["Beta"]


class Beta:
    """`client.beta`: the client's own resources once more."""

    def __init__(self, assistants: Assistants, threads: Threads) -> None:
        """Point at the resources."""
        self.assistants = assistants
        """The same as `client.assistants`."""
        self.threads = threads
        """The same as `client.threads`, with `.runs` and `.messages` below it."""
