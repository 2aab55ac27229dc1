"""Readers of label files: one label per line, CSV or TSV with a header, JSON list."""

from __future__ import annotations

import csv
import io
import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from robustzs.errors import LabelFileError
from robustzs.labels import rules
from robustzs.labels.entries import Entry, build_labels
from robustzs.labels.label import Label

_COLUMNS = ("name", "synset", "prompt", "aliases", "id")
_SYNONYMS = {"wnid": "synset"}
_MAX_PROBLEMS = 1000
_NEWLINE = re.compile(r"\r\n|\r|\n")

Read = tuple[list[Entry], list[str]]
"""Entries, and problems of the file's own form."""


def read_labels(path: Path) -> tuple[Label, ...]:
    """Read a label file; its suffix says what it is (``.csv``, ``.tsv``, ``.json``, else lines).

    Raises:
        LabelFileError: Not readable, not UTF-8, too large, or with wrong entries; all are listed.
        DuplicateLabelError: Two labels share an id, a name, a synset or a prompt.
    """
    text = _decode(_read_bytes(path), path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        entries, problems = parse_table(text, delimiter="\t" if suffix == ".tsv" else ",")
    elif suffix == ".json":
        entries, problems = parse_json(text)
    else:
        entries, problems = parse_lines(text)
    return build_labels(entries, source=str(path), problems=problems, error=LabelFileError)


def _read_bytes(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise LabelFileError(
                f"{path} is not a regular file", hint="give a file, or the labels themselves"
            )
        with path.open("rb") as file:
            data = file.read(rules.MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise LabelFileError(f"label file {path} does not exist", hint="check the path") from error
    except (OSError, ValueError) as error:
        raise LabelFileError(f"label file {str(path)!r} cannot be read: {error}") from error
    if len(data) > rules.MAX_FILE_BYTES:
        raise LabelFileError(
            f"{path} is larger than the limit of {rules.MAX_FILE_BYTES} bytes",
            hint="split the labels",
        )
    return data


def _decode(data: bytes, path: Path) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise LabelFileError(f"{path} is UTF-16", hint="save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(_NEWLINE.findall(data[: error.start].decode("latin-1"))) + 1
        raise LabelFileError(
            f"{path} is not UTF-8: byte 0x{data[error.start]:02X} in line {line}",
            hint="save it as UTF-8",
        ) from error


def parse_lines(text: str) -> Read:
    r"""One label per line: blank lines and lines that begin with ``#`` are skipped.

    As in ``.gitignore``, a label that itself begins with ``#`` is written ``\#``. Nothing else is
    special: commas, quotes and backslashes inside a line belong to the name.
    """
    entries: list[Entry] = []
    for number, line in enumerate(_NEWLINE.split(text), start=1):
        stripped = line.strip(" \t")
        if not stripped or stripped.startswith("#"):
            continue
        entries.append(
            Entry(
                f"line {number}",
                stripped.removeprefix("\\") if stripped.startswith("\\#") else stripped,
            )
        )
        if len(entries) > rules.MAX_LABELS:
            break
    return entries, []


def parse_table(text: str, *, delimiter: str) -> Read:
    """A table whose first line names its columns: ``name,synset,prompt,aliases`` (and ``id``).

    Only ``name`` is needed (or ``synset``); ``wnid`` is another word for ``synset``; several
    aliases are separated by ``;``.
    """
    rows = _rows(text, delimiter)
    try:
        header_line, header = next(rows, (1, []))
        columns, problems = _columns(header, header_line, delimiter)
        entries: list[Entry] = []
        if problems:
            return [], problems
        for line, row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) > len(columns):
                problems.append(
                    f"line {line}: {len(row)} cells under {len(columns)} column names; "
                    "quote a cell that contains the separator"
                )
                if len(problems) >= _MAX_PROBLEMS:
                    break
                continue
            cells = dict(zip(columns, row, strict=False))
            aliases = tuple(cells.pop("aliases", "").split(";"))
            entries.append(Entry(f"line {line}", aliases=aliases, **cells))
            if len(entries) > rules.MAX_LABELS:
                break
    except csv.Error as error:
        return [], [f"not a readable table: {error}"]
    return entries, problems


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    for row in reader:
        yield line, row
        line = reader.line_num + 1


def _columns(header: list[str], line: int, delimiter: str) -> tuple[list[str], list[str]]:
    names = [cell.strip().lower() for cell in header]
    columns = [_SYNONYMS.get(name, name) for name in names]
    problems = [
        f"line {line}: unknown column {name!r}; known are {', '.join(_COLUMNS)}"
        for name, column in zip(names, columns, strict=True)
        if column not in _COLUMNS
    ]
    problems += [
        f"line {line}: the column {column!r} is there {columns.count(column)} times"
        for column in dict.fromkeys(columns)
        if columns.count(column) > 1
    ]
    if not {"name", "synset"} & set(columns):
        wanted = delimiter.join(_COLUMNS[:4])
        problems.insert(0, f"line {line}: the first line must name the columns, as in {wanted!r}")
    return columns, problems


def parse_json(text: str) -> Read:
    """A list of names, or of objects with the keys of the table (``aliases`` is a list)."""
    try:
        items = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except (json.JSONDecodeError, _BadJsonError) as error:
        return [], [f"not readable JSON: {error}"]
    except RecursionError:
        return [], ["not readable JSON: nested too deeply"]
    if not isinstance(items, list):
        return [], ["the JSON must be a list of names or of objects"]
    entries: list[Entry] = []
    problems: list[str] = []
    for number, item in enumerate(items[: rules.MAX_LABELS + 1], start=1):
        entry, complaint = _json_entry(f"item {number}", item)
        if entry is not None:
            entries.append(entry)
        elif len(problems) < _MAX_PROBLEMS:
            problems.append(f"item {number}: {complaint}")
    return entries, problems


class _BadJsonError(ValueError):
    """JSON that Python's reader would let through."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _BadJsonError(f"the key {twice!r} is there twice in one object")
    return result


def _no_constant(name: str) -> None:
    raise _BadJsonError(f"{name} is not JSON")


def _json_entry(place: str, item: object) -> tuple[Entry | None, str]:
    if isinstance(item, str):
        return Entry(place, item), ""
    if not isinstance(item, dict):
        return None, f"{type(item).__name__} is neither a name nor an object"
    item = cast("dict[str, Any]", item)
    values: dict[str, Any] = {
        _SYNONYMS.get(key, key): value for key, value in item.items() if value is not None
    }
    unknown = [key for key in values if key not in _COLUMNS]
    if unknown:
        return None, f"unknown key {unknown[0]!r}; known are {', '.join(_COLUMNS)}"
    aliases = values.pop("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        return None, "aliases must be a list of texts"
    wrong = [key for key, value in values.items() if not isinstance(value, str)]
    if wrong:
        return None, f"{wrong[0]} must be a text"
    return Entry(place, aliases=tuple(aliases), **values), ""
