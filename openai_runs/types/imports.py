"""What our server says of each thread or assistant that it is given to keep as it was."""

from msgspec import field

from openai_runs.types.base import Answer

__all__ = ["ImportOutcome"]


class ImportOutcome(Answer, frozen=True, kw_only=True):
    """One line of the answer to `POST /import`, an extension of our server's."""

    id: str
    object: str = field(default_factory=lambda: "thread")
    """`thread` or `assistant`."""
    outcome: str
    """`created`, `extended` (what was new was added), `unchanged`, `conflict` (other content is
    there under the same ids) or `invalid`; the last two changed nothing."""
    reason: str | None = None
    """Why, with `conflict` and `invalid`."""
    messages: int = field(default_factory=int)
    """Messages that were added."""
    runs: int = field(default_factory=int)
    """Runs that were added."""
    steps: int = field(default_factory=int)
    """Run steps that were added."""
    ended: list[str] = field(default_factory=list)
    """Ids of the runs that were active: they are kept as `expired`, since nobody goes on."""
    left_out: list[str] = field(default_factory=list)
    """Fields that this server does not keep, such as `run.priority`."""

    @property
    def is_kept(self) -> bool:
        """Return whether the server has it as it was sent."""
        return self.outcome in {"created", "extended", "unchanged"}
