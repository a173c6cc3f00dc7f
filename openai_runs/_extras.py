"""What to install where a package of an extra is missing, as our own metadata has it.

The packages are named and not the extra: whoever installed this one from a checkout or a wheel
cannot install an extra of it by name.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["is_of_an_extra", "needs"]

_DISTRIBUTION: Final = "openai-runs"
_FOR_CONTRIBUTORS: Final = frozenset({"bench", "dev"})
_REQUIREMENT: Final = re.compile(
    r"(?P<name>[\w.-]++)\s*+(?P<versions>[^;\s]*+)\s*+;\s*+extra == ['\"](?P<extra>[\w.-]++)['\"]"
)


class _Package(NamedTuple):
    """A package that an extra needs."""

    name: str
    extra: str
    requirement: str
    """As pip takes it."""


def needs(what: str, error: ImportError) -> str:
    """Return the sentence that says which package is missing, and how to install it.

    Args:
        what: What cannot be used without it.
        error: What its import raised.
    """
    name = _package_of(error)
    extra = _extra_of(name)
    packages = [f"'{each.requirement}'" for each in _packages() if each.extra == extra] or [name]
    return f"{what} needs the package {name}: pip install {' '.join(packages)}"


def is_of_an_extra(error: ImportError) -> bool:
    """Return whether the module that is missing comes with an extra."""
    return _extra_of(_package_of(error)) is not None


def _package_of(error: ImportError) -> str:
    return _normalised((error.name or str(error)).partition(".")[0])


def _extra_of(package: str) -> str | None:
    """Return the extra that has the package; of several, the one with the fewest packages."""
    extras = [each.extra for each in _packages()]
    found = (each.extra for each in _packages() if each.name == package)
    return min(found, key=extras.count, default=None)


def _packages() -> list[_Package]:
    """Return the packages of the extras for users; none where only the folder is there."""
    from importlib.metadata import PackageNotFoundError, requires  # only here, as it takes long

    try:
        lines = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:
        return []
    found = filter(None, map(_REQUIREMENT.match, lines))
    packages = [
        _Package(_normalised(each["name"]), each["extra"], each["name"] + each["versions"])
        for each in found
    ]
    return [each for each in packages if each.extra not in _FOR_CONTRIBUTORS]


def _normalised(name: str) -> str:
    return name.lower().replace("_", "-")
