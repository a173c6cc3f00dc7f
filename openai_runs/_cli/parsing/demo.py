"""Arguments and help of `openai-runs demo`."""

__all__ = ["demo"]


def demo() -> int:
    """Watch a run from a tool call to the answer.

    A server on a temporary file plays a support assistant with a scripted model.
    It is asked over real HTTP, has a Python function called, and answers.
    Takes a few seconds and leaves nothing behind.
    """
    from openai_runs._cli.commands.demo import perform

    return perform()
