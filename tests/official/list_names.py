"""Print the public names of the official client's Assistants resources, with their arguments.

Run by hand where `openai` is installed; what it prints is kept in `names.json`, so that no test
needs that package:

    python tests/official/list_names.py > tests/official/names.json
"""

import inspect
import json
import warnings

import openai
from openai.lib.streaming import AsyncAssistantEventHandler


def names_below(resource: object, path: str) -> dict[str, list[str]]:
    """Return dotted name -> names of its arguments, for a resource and those below it."""
    found: dict[str, list[str]] = {}
    for name in (name for name in dir(resource) if not name.startswith("_")):
        value = getattr(resource, name)
        if name.startswith("with_"):
            found[f"{path}.{name}"] = []
        elif inspect.ismethod(value):
            found[f"{path}.{name}"] = list(inspect.signature(value).parameters)
        else:
            found |= names_below(value, f"{path}.{name}")
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # each of them is deprecated there
    beta = openai.AsyncOpenAI(api_key="x", base_url="http://127.0.0.1:9").beta
    names = names_below(beta.assistants, "beta.assistants")
    names |= names_below(beta.threads, "beta.threads")
    handler = AsyncAssistantEventHandler
    names |= {f"{handler.__name__}.{name}": [] for name in dir(handler) if name[0] != "_"}
    print(json.dumps({"openai": openai.__version__, "names": names}, indent=1))
