"""The input of a batch: JSON lines, CSV with a template, or pairs of any iterable.

A file is read as a stream, and twice: all its lines are checked before anything is sent.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import hashlib
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio.lowlevel
import anyio.to_thread
import msgspec

from openai_runs._client.tools.json_schema import response_format
from openai_runs.batch.errors import BatchError

__all__ = [
    "Blanks",
    "Body",
    "Items",
    "Line",
    "Lines",
    "chunks",
    "digest_of",
    "numbered_rows",
    "plain_body",
    "read_csv",
    "read_jsonl",
]

Body = Mapping[str, Any] | str
"""The body of a `POST /threads/runs`, whose `response_format` may be a type; or only a prompt: what
the user says, on a new thread, to the assistant of the batch."""
Items = Iterable[tuple[str, Body]] | AsyncIterable[tuple[str, Body]]
"""Pairs of a custom id and a body."""

_URL: Final = "/v1/threads/runs"
_FORM: Final = "each line must be one JSON object"
_CHUNK: Final = 500
"""Lines of a file that are read and checked at once."""
_SHOWN: Final = 5
"""Ids that are named at most of rows with a fault."""
_ID_COLUMN: Final = "custom_id"
_PLACE: Final = re.compile(r"\{([^{}]+)\}")
"""Where a template has the value of a column."""
_WORDS: Final = re.compile(r"[\w .-]+")
"""What may be the name of a column that is misspelt; JSON has other characters."""
_SIMILAR: Final = 0.7
"""How similar it is to the name that is meant, as `difflib` measures it."""
_OPEN_QUOTE: Final = "unexpected end of data"
"""What the `csv` module says of a quote without an end."""
_SEPARATORS: Final = re.compile(r"[;\t|]")
"""What separates columns in place of commas, such as in a spreadsheet of many a country."""


class Line(NamedTuple):
    """One line of the input."""

    number: int
    custom_id: str
    body: dict[str, Any]
    digest: bytes
    """Of the body, whatever its spaces and the order of its keys."""
    is_row: bool = False
    """Whether it is a row of a CSV file, filled into a template."""
    blank: tuple[str, ...] = ()
    """Columns that the template names and that have nothing in this row."""


class Blanks:
    """Rows with nothing in a column that the template names."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, line: Line) -> None:
        """Count a row."""
        for name in line.blank:
            self._counts[name] += 1
            ids = self._found.setdefault(name, [])
            if len(ids) < _SHOWN:
                ids.append(line.custom_id)

    def sentences(self) -> list[str]:
        """Return one for each column."""
        return [self._sentence(name, ids) for name, ids in self._found.items()]

    def _sentence(self, name: str, ids: list[str]) -> str:
        number = self._counts[name]
        shown = ", ".join([*(f"{one:.100}" for one in ids), *["..."] * (number > len(ids))])
        return (
            f"{number:,} {'row has' if number == 1 else 'rows have'} nothing in {{{name}}}: {shown}"
        )


class Lines:
    """The lines of a file; made by `read_jsonl` and `read_csv`."""

    def __init__(
        self,
        read: Callable[[], Iterator[Line]],
        template: Any = None,
        id_column: str | None = None,
    ) -> None:
        self._read = read
        self.template = template
        """What the rows of a CSV file are filled into; None where there is none."""
        self.id_column = id_column
        """The column that has the custom ids, where one was named."""

    def __iter__(self) -> Iterator[Line]:
        """Read the file from its start."""
        return self._read()

    def __repr__(self) -> str:
        return "<Lines of a file, which is read when the batch runs>"


def read_jsonl(path: str | Path) -> Lines:
    """Return the lines of a file in the form of the vendor's Batch API.

    Each line has `custom_id`, `method` (`POST`), `url` (`/v1/threads/runs`) and `body`.

    Args:
        path: The file; it is read when the batch runs.

    Raises:
        BatchError: When it is read: a line is not of this form; the text names it.
    """
    return Lines(partial(_jsonl, Path(path)))


def read_csv(path: str | Path, template: Body, *, id_column: str | None = None) -> Lines:
    """Return a line for each row of a CSV file, whose first row has the names of the columns.

    Args:
        path: The file, in UTF-8, with commas; it is read when the batch runs.
        template: The body of each row, or only its prompt, for lines of the batch's assistant. In
            all texts `{column}` stands for a value; other braces stand for themselves. A
            `response_format` may be a type.
        id_column: The column that has the custom ids; None: `custom_id`, and without such a column
            they are `row-2`, `row-3`, ... by the line of the file, for a row of several lines the
            last of them.

    Rows without any value are left out, as spreadsheets add them.

    Raises:
        BatchError: The template cannot be sent. When it is read: the template has a place that
            is no column, or none at all; `id_column` is no column; a row has too many values or
            too few.
    """
    plain = plain_body(_whole(template), "the template")
    return Lines(partial(_csv, Path(path), plain, id_column), plain, id_column)


async def chunks(items: Lines | Items) -> AsyncGenerator[list[Line]]:
    """Yield the lines as they come: those of a file by hundreds, others one by one."""
    if isinstance(items, Lines):
        lines = iter(items)
        while chunk := await anyio.to_thread.run_sync(lambda: list(islice(lines, _CHUNK))):
            yield chunk
        return
    numbers = count(1)
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield [_pair(next(numbers), item)]
        return
    for item in items:
        await anyio.lowlevel.checkpoint()
        yield [_pair(next(numbers), item)]


def _pair(number: int, item: Any) -> Line:
    try:
        custom_id, body = item
        is_pair = not isinstance(item, str)  # "hi" has two letters
    except (TypeError, ValueError):
        is_pair = False
    if not is_pair:
        msg = f"items must be pairs of a custom id and a body, got {type(item).__name__}"
        raise TypeError(msg)
    return _checked(number, custom_id, plain_body(_whole(body), f"line {number} of the input"))


def _whole(body: Body) -> Mapping[str, Any]:
    """Return a body as it is; of a prompt, the body that has it as its message."""
    if not isinstance(body, str):
        return body
    return {"thread": {"messages": [{"role": "user", "content": body}]}}


def plain_body(body: object, place: str) -> Any:
    """Return the body as JSON has it; a type as `response_format` becomes its schema."""
    try:
        if isinstance(body, Mapping) and "response_format" in body:
            body = {**body, "response_format": response_format(body["response_format"])}
        return msgspec.to_builtins(body)
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"{place}: {error}"
        raise BatchError(msg) from error


def _jsonl(path: Path) -> Iterator[Line]:
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                line = text.removeprefix(codecs.BOM_UTF8) if number == 1 else text
                if line.strip():
                    yield _parsed(number, line)
    except OSError as error:
        raise _unreadable(path, error) from error


def _parsed(number: int, text: bytes) -> Line:
    try:
        line = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise _refused(number, f"is not JSON: {error}; {_FORM}") from error
    if not isinstance(line, dict):
        raise _refused(number, f"is no JSON object; {_FORM}")
    if line.get("method", "POST") != "POST" or line.get("url") != _URL:
        asked = (
            f"asks for {line.get('method', 'POST')} {line['url']}"
            if "url" in line
            else "has no url"
        )
        raise _refused(number, f'{asked:.100}; write "method": "POST", "url": "{_URL}"')
    return _checked(number, line.get("custom_id"), line.get("body"))


def _checked(number: int, custom_id: object, body: object) -> Line:
    if not isinstance(custom_id, str) or not custom_id:
        raise _refused(number, f"custom_id must be a text, got {custom_id!r:.100}")
    fault = _fault(body)
    if fault or not isinstance(body, dict):
        raise _refused(number, f"body{fault}")
    try:
        digest = _digest(body)
        custom_id.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise _refused(number, f"cannot be sent: {error}") from error
    return Line(number, custom_id, body, digest)


def _digest(body: object) -> bytes:
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).digest()


def digest_of(template: object, row: Mapping[str, str]) -> bytes:
    """Return the digest of the body that the template makes of a row, as its `Line` has it."""
    return _digest(_filled(template, row))


def _fault(body: object) -> str:
    """Return what is wrong with a body, to be read after its name; "" if nothing is."""
    if not isinstance(body, dict):
        return f" must be an object, got {type(body).__name__}"
    if not isinstance(body.get("assistant_id", ""), str):
        return ".assistant_id must be a text"
    if not isinstance(body.get("thread") or {}, dict):
        return ".thread must be an object"
    return ".stream: a batch cannot stream" if body.get("stream") else ""


def _csv(path: Path, template: Any, id_column: str | None) -> Iterator[Line]:
    if fault := _fault(template):
        msg = f"the template{fault}"
        raise BatchError(msg)
    check = partial(_check_places, path, template, id_column or _ID_COLUMN)
    places = set(_places(template))
    for number, custom_id, row in numbered_rows(path, id_column, check):
        if not custom_id:
            raise _refused(number, f"its column {id_column or _ID_COLUMN!r:.100} is empty")
        blank = tuple(name for name, value in row.items() if name in places and not value.strip())
        line = _checked(number, custom_id, _filled(template, row))
        yield line._replace(is_row=True, blank=blank)


def numbered_rows(
    path: Path, id_column: str | None = None, check: Callable[[list[str]], None] | None = None
) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Yield number, custom id and values of each row; `check` is given the columns first."""
    start = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            columns: list[str] = []
            for values in rows:
                number, start = rows.line_num, rows.line_num + 1
                if not any(value.strip() for value in values):
                    continue
                if columns:
                    row = _row(number, columns, values)
                    yield number, row.get(id_column or _ID_COLUMN, f"row-{number}"), row
                    continue
                columns = _columns(number, values)
                _check_id_column(path, id_column, columns)
                if check is not None:
                    check(columns)
        if not columns:
            msg = f"{path}: is empty: its first row must name the columns"
            raise BatchError(msg)
    except OSError as error:
        raise _unreadable(path, error) from error
    except csv.Error as error:
        raise _not_csv(path, start, error) from error
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error


def _columns(number: int, values: list[str]) -> list[str]:
    names = [value.strip() for value in values]
    for place, name in enumerate(names):
        if name and name in names[:place]:
            raise _refused(number, f"two columns have the same name {name!r:.100}")
    return names


def _check_id_column(path: Path, name: str | None, columns: list[str]) -> None:
    if name is not None and name not in columns:
        meant = _similar(name, columns)
        hint = "" if meant is None else f"; did you mean {meant}?"
        shown = ", ".join(columns)
        why = f"{_separated(columns)}has no column {name!r} for the ids"
        msg = f"{path}: {why}; there are {shown}{hint}"
        raise BatchError(msg)


def _row(number: int, columns: list[str], values: list[str]) -> dict[str, str]:
    if len(values) != len(columns):
        count = f"{len(values)} {'value' if len(values) == 1 else 'values'}"
        of = f"{len(columns)} {'column' if len(columns) == 1 else 'columns'}"
        way = "one with a comma in it stands in double quotes"
        if len(values) < len(columns):
            way = "one that is empty has its comma all the same"
        raise _refused(number, f"{_separated(columns)}has {count} for {of}; {way}")
    return dict(zip(columns, values, strict=True))


def _separated(columns: list[str]) -> str:
    """Return what stands between the columns in place of commas; "" where it is no other."""
    found = _SEPARATORS.search(columns[0]) if len(columns) == 1 else None
    if found is None:
        return ""
    separator = "tabs" if found[0] == "\t" else repr(found[0])
    return f"its columns are separated by {separator}, and must be by commas: "


def _not_csv(path: Path, line: int, error: csv.Error) -> BatchError:
    why = f"cannot be read as CSV: {error}"
    if str(error) == _OPEN_QUOTE:
        why = "has a quote that nothing ends"
    elif "field limit" in str(error):
        limit = csv.field_size_limit()
        why = f"has a value of more than {limit:,} characters: csv.field_size_limit() allows more"
    return BatchError(f"{path}: the row on line {line} {why}")


def _not_utf8(path: Path) -> BatchError:
    """Return the error of a file in another encoding; it names the first such line."""
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            try:
                text.decode()
            except UnicodeDecodeError as error:
                byte = text[error.start]
                return BatchError(
                    f"{path}: line {number} is not UTF-8 (byte 0x{byte:02x}): save it as "
                    "CSV UTF-8, or convert it with iconv"
                )
    return BatchError(f"{path}: is not UTF-8")  # changed since


def _check_places(path: Path, template: object, id_column: str, columns: list[str]) -> None:
    """Refuse a template with a place of no column, or none; other braces stand for themselves."""
    places = _places(template)
    shown = ", ".join(columns)
    for name in places:
        meant = _similar(name, columns)
        if name in columns or not (meant or name.isidentifier()):
            continue
        msg = f"{{{name}}} is no column; there are {shown}"
        if meant:
            msg += f"; did you mean {{{meant}}}?"
        separated = _separated(columns)
        raise BatchError(f"{path}: {separated}{msg}" if separated else msg)
    usable = [name for name in columns if name and name != id_column]
    if usable and not any(name in places for name in columns):
        msg = (
            f"no column is used, so all rows would be the same: write {{{usable[0]}}} where the "
            f"value belongs; there are {shown}"
        )
        raise BatchError(msg)


def _places(template: object) -> list[str]:
    """Return what stands in braces in the texts of a template."""
    return _PLACE.findall(msgspec.json.encode(template).decode())


def _similar(name: str, columns: list[str]) -> str | None:
    """Return the column that a place may mean by another name; None for text and JSON."""
    if not _WORDS.fullmatch(name):
        return None
    names = {column.casefold(): column for column in columns}
    wanted = name.strip().casefold()
    found = difflib.get_close_matches(wanted, names, n=1, cutoff=_SIMILAR)
    return names[found[0]] if found else None


def _filled(value: Any, row: Mapping[str, str]) -> Any:
    """Return the template with the row's values; what a value holds is no place again."""
    if isinstance(value, str):
        return _PLACE.sub(lambda found: row.get(found[1], found[0]), value)
    if isinstance(value, dict):
        return {name: _filled(inner, row) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, row) for inner in value]
    return value


def _refused(number: int, why: str) -> BatchError:
    return BatchError(f"line {number} of the input: {why}")


def _unreadable(path: Path, error: OSError) -> BatchError:
    return BatchError(f"{path}: cannot be read: {error.strerror}")
