"""What commands take from the environment: keys, by the name of their variable."""

from collections.abc import Mapping

from openai_runs._cli.ending import USAGE, Stop

__all__ = ["secret"]


def secret(option: str, name: str | None, environ: Mapping[str, str]) -> str | None:
    """Return what the environment variable `name` holds; None if there is no name.

    Raises:
        Stop: The variable is not set, or holds what cannot be sent.
    """
    if name is None:
        return None
    value = environ.get(name, "").strip()
    if not value:
        sentence = f"{option} {name}: the environment variable {name} is not set or empty"
        raise Stop(sentence, USAGE)
    if not (value.isascii() and value.isprintable()):
        sentence = f"{option} {name}: {name} holds characters that no HTTP header can carry"
        raise Stop(sentence, USAGE)
    return value
