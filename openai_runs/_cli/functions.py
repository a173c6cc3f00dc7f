"""Functions of the user's, by the name of their module."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from openai_runs._cli.ending import USAGE, Stop

__all__ = ["load_function"]


def load_function(name: str) -> Callable[..., Any]:
    """Return the function that `MODULE:FUNCTION` names, of the folder we are in or installed.

    Raises:
        Stop: There is none.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        sentence = f"--tools {name}: {error}; it must be MODULE:FUNCTION"
        raise Stop(sentence, USAGE) from error
    finally:
        sys.path.remove(str(Path.cwd()))
    if not callable(found):
        sentence = f"--tools {name}: is no function"
        raise Stop(sentence, USAGE)
    return found  # type: ignore[no-any-return]  # of a module we do not know
