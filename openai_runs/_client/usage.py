"""What a caller sees who calls in a wrong way, or asks an object what it is.

`named` gives the methods of a class the names and parameters under which users know them: in
`help`, in a `TypeError`, and in "coroutine 'client.runs.create' was never awaited". `Resource` and
`AsyncOnly` answer wrong use with the right one. They do so where Python itself would raise a
`TypeError` too, and hidden from type checkers, which must go on to see a mistake.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache, wraps
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from msgspec import UNSET

from openai_runs.config import REPR_CHARS

__all__ = [
    "AsyncOnly",
    "NotAwaited",
    "Resource",
    "did_you_mean",
    "named",
    "suggesting",
    "unexpected_keyword",
    "with_keywords_of",
]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)

_UNPACKED: Final = re.compile(r"Unpack\[(\w+)\]")
_UNEXPECTED: Final = re.compile(r"got an unexpected keyword argument '(\w+)'$")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question for the name that is most like this one; empty where none is like it.

    >>> did_you_mean("instrctions", ["model", "instructions"])
    " Did you mean 'instructions'?"
    """
    close = get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def unexpected_keyword(call: str, keyword: str, known: Iterable[str] = ()) -> TypeError:
    """Return the error of a keyword that `call` does not take, worded as Python does.

    Args:
        call: The method as users know it.
        keyword: What was given.
        known: What it takes.
    """
    message = f"{call}() got an unexpected keyword argument {keyword!r}"
    hint = did_you_mean(keyword, known)
    return TypeError(f"{message}.{hint}" if hint else message)


def suggesting(function: F) -> F:
    """Return the function, whose `TypeError` for an unknown keyword names the closest one.

    Python does so itself since 3.13. It costs a call: not for what is called often.
    """

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            trace = error.__traceback__
            found = _UNEXPECTED.search(str(error))
            if found is None or trace is None or trace.tb_next is not None:  # raised further in
                raise
            known = inspect.signature(function).parameters
            name = call.__qualname__.removesuffix(".__init__")
            raise unexpected_keyword(name, found[1], known) from None

    return call  # type: ignore[return-value]  # called as the function is


def named(path: str) -> Callable[[C], C]:
    """Return a decorator of the class whose instance users know as `path`."""

    def name(cls: C) -> C:
        for attribute, value in vars(cls).items():
            if inspect.isfunction(value) and attribute == value.__name__ and attribute[0] != "_":
                value.__qualname__ = f"{path}.{attribute}"
                value.__signature__ = signature_of(value)  # type: ignore[attr-defined]
        cls._path = path  # type: ignore[attr-defined]
        return cls

    return name


def with_keywords_of(other: Callable[..., Any]) -> Callable[[F], F]:
    """Return a decorator of a function whose last `**options` are keywords of another one."""

    def show(function: F) -> F:
        *own, _ = inspect.signature(function).parameters.values()
        keywords = [
            one
            for one in inspect.signature(other).parameters.values()
            if one.kind is Parameter.KEYWORD_ONLY
        ]
        shown = inspect.signature(function).replace(parameters=[*own, *keywords])
        function.__signature__ = shown  # type: ignore[attr-defined]  # read by `inspect`
        return function

    return show


def signature_of(function: Callable[..., Any]) -> Signature:
    """Return the signature with each keyword of `**arguments: Unpack[...]` for itself."""
    plain = inspect.signature(function)
    *others, last = plain.parameters.values()
    found = _UNPACKED.fullmatch(str(last.annotation))
    if last.kind is not Parameter.VAR_KEYWORD or found is None:
        return plain
    keywords = _keywords_of(function.__globals__[found[1]])
    given = plain.parameters
    return plain.replace(parameters=[*others, *(one for one in keywords if one.name not in given)])


@cache
def _keywords_of(kind: type) -> list[Parameter]:
    """Return the parameters that a TypedDict declares; what is not given is UNSET."""
    return [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=UNSET,
            annotation=getattr(annotation, "__forward_arg__", annotation),
        )
        for name, annotation in kind.__annotations__.items()
    ]


class Resource:
    """What is reached as an attribute of the client, such as `client.runs`."""

    _path: str

    def __repr__(self) -> str:
        names = [name for name in vars(type(self)) if not name.startswith("_")]
        url = vars(self)["_pipeline"].settings.base_url or "a local server"
        text = f"<{self._path} of {url}: {', '.join(names)}>"
        while len(text) > REPR_CHARS:
            names.pop()
            text = f"<{self._path} of {url}: {', '.join(names)}, ...>"
        return text

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            known = {*vars(type(self)), *vars(self)}
            hint = did_you_mean(name, {one for one in known if not one.startswith("_")})
            message = f"{self._path} has no attribute {name!r}{hint and '.'}{hint}"
            raise AttributeError(message, name=name, obj=None)  # Python would repeat the hint

        def __call__(self, *_: Any, **__: Any) -> NoReturn:
            methods = [name for name in vars(type(self)) if not name.startswith("_")]
            message = f"{self._path} is no function: call {self._path}.{methods[0]}(...)"
            raise TypeError(message)

        def __iter__(self) -> NoReturn:
            raise TypeError(self._not_iterable())

        def __aiter__(self) -> NoReturn:
            raise TypeError(self._not_iterable())

        def _not_iterable(self) -> str:
            if "list" not in vars(type(self)):
                return f"{self._path} cannot be iterated: this API has no list of them"
            return f"{self._path} cannot be iterated: use `async for` with {self._path}.list(...)"


class AsyncOnly:
    """What is read with `async for`, and is neither a list nor a context manager of sync code."""

    __slots__ = ()
    _call = "this object"
    """How it was made, such as `client.runs.list(...)`."""
    _block = "needs `async with`, not `with`"
    """What `with` is answered with."""
    _instead = ""
    """What else can be done with it, after a semicolon."""

    if not TYPE_CHECKING:

        def __bool__(self) -> bool:
            return True  # which would ask for the length

        def __iter__(self) -> NoReturn:
            msg = f"{self._call} is read with `async for`, not with `for`{self._instead}"
            raise TypeError(msg)

        def __contains__(self, _: object) -> NoReturn:
            iter(self)

        def __next__(self) -> NoReturn:
            msg = f"{self._call} is read with `async for`, not with `next`{self._instead}"
            raise TypeError(msg)

        def __len__(self) -> NoReturn:
            msg = f"{self._call} has no length: its items come one by one{self._instead}"
            raise TypeError(msg)

        def __getitem__(self, _: Any) -> NoReturn:
            msg = f"{self._call} has no index: its items come one by one{self._instead}"
            raise TypeError(msg)

        def __enter__(self) -> NoReturn:
            msg = f"{self._call} {self._block}"
            raise TypeError(msg)

        def __exit__(self, *_: object) -> None:
            """Be there, since Python asks for it before it enters."""


class NotAwaited(AsyncOnly):
    """What is iterated or entered, and never awaited itself."""

    __slots__ = ()

    if not TYPE_CHECKING:

        def __await__(self) -> NoReturn:
            msg = f"{self._call} is not awaited: use `async with` or `async for`"
            raise TypeError(msg)
