"""What ends a batch before its last line."""

from openai_runs.errors import OpenAIRunsError

__all__ = ["BatchError"]


class BatchError(OpenAIRunsError):
    """The batch cannot go on: an input line, a file, or the server is at fault.

    Nothing is lost: once the cause is removed, the same call goes on.
    """
