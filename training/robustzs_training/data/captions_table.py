"""Caption tables: which image has which caption, and how they are joined to a folder.

| Layout | What it holds |
|---|---|
| ``captions.parquet`` | columns ``key``, ``caption``, and ``label`` if images have classes |
| ``captions.jsonl`` | one object per line with the same fields |
| ``captions/`` | ``n01440764.json``, ...: one object ``{file name: caption}`` per class, as the authors of QT-AFT keep theirs |

``key`` is the image's path below the data folder, with ``/``. Other columns are ignored. An empty
caption, or ``null``, is a missing one.
"""  # noqa: E501  (a table row cannot be broken)

from __future__ import annotations

import json
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from robustzs.errors import CaptionTableError
from robustzs_training.data.base import Finding
from robustzs_training.data.strings import StringColumn

_MAX_LINE = 1 << 20
_ROWS_AT_ONCE = 8192
_SHOWN = 20
_REQUIRED = ("key", "caption")

_Row = tuple[str, str, str]  # key, caption, label


@dataclass(frozen=True, eq=False)
class CaptionTable:
    """Captions by key, in the order of the file.

    Attributes:
        origin: The file, for messages.
        keys: Normalised by :func:`normal_key`; each occurs once.
        captions: Empty where there is none.
        labels: Class names; ``None`` when the file has no such column.
    """

    origin: str
    keys: StringColumn
    captions: StringColumn
    labels: StringColumn | None = None

    def rows_of(self, keys: StringColumn, *, below: str = "") -> npt.NDArray[np.int64]:
        """The row of each image, -1 where the table has none: int64 ``[len(keys)]``.

        Args:
            keys: The images.
            below: A folder that the table may name before each key: ``train/``.
        """
        place = {key: row for row, key in enumerate(self.keys)}
        rows = np.full(len(keys), -1, dtype=np.int64)
        for i, key in enumerate(keys):
            wanted = normal_key(key)
            rows[i] = place.get(wanted, place.get(below + wanted, -1) if below else -1)
        if len(keys) and (rows < 0).all():
            first = self.keys[0] if len(self.keys) else "nothing"
            raise CaptionTableError(
                f"{self.origin} has no caption for any of the {len(keys)} images: "
                f"it names {first!r}, where the data have {normal_key(keys[0])!r}",
                hint="keys are paths below the data folder",
            )
        return rows


def normal_key(key: str) -> str:
    """One spelling for a path: composed characters, ``/``, no ``./`` in front."""
    if not key.isascii():
        key = unicodedata.normalize("NFC", key)
    return key.replace("\\", "/").removeprefix("./")


def missing_captions(texts: StringColumn, keys: StringColumn) -> Finding:
    """How many of the images have an empty caption.

    Args:
        texts: One for each image.
        keys: The images.
    """
    missing = np.flatnonzero(texts.lengths == 0)
    return Finding(
        kind="missing-caption",
        count=len(missing),
        total=len(texts),
        first=tuple(keys[int(i)] for i in missing[:_SHOWN]),
    )


def read_captions(path: Path) -> CaptionTable:
    """Read a caption table; its suffix says what it is, a folder is the authors' layout.

    Raises:
        CaptionTableError: Not there, not readable, without a needed column, or with two captions
            for one image.
    """
    origin = str(path)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise CaptionTableError(
            f"the caption table {origin!r} cannot be read: "
            f"{getattr(error, 'strerror', None) or 'not a file name'}",
            hint="make one with `robustzs caption`, or check data.captions",
        ) from error
    suffix = path.suffix.lower()
    if stat.S_ISDIR(mode):
        return _collect(origin, _class_files(path), has_labels=False)
    if not stat.S_ISREG(mode):
        raise CaptionTableError(f"{origin!r} is not a regular file", hint="give a file or folder")
    if suffix == ".parquet":
        has_labels, rows = _parquet_rows(path)
        return _collect(origin, rows, has_labels=has_labels)
    if suffix in (".jsonl", ".ndjson"):
        return _collect(origin, _json_rows(path), has_labels=None)
    raise CaptionTableError(
        f"the caption table {origin!r} is of an unknown kind {suffix!r}",
        hint="use .parquet, .jsonl, or a folder of one .json per class",
    )


def _collect(origin: str, rows: Iterator[_Row], *, has_labels: bool | None) -> CaptionTable:
    """Bring rows into columns; ``has_labels`` is ``None`` where only the rows can tell."""
    row_of: dict[str, int] = {}
    captions: list[str] = []
    labels: list[str] = []
    for key, caption, label in rows:
        key, caption = normal_key(key), caption.strip()
        row = row_of.setdefault(key, len(captions))
        if row == len(captions):
            captions.append(caption)
            labels.append(label)
        elif (captions[row], labels[row]) != (caption, label):
            raise CaptionTableError(
                f"{origin} has two captions for {key!r}", hint="keep one caption for each image"
            )
    if not captions:
        raise CaptionTableError(f"{origin} holds no captions", hint="check data.captions")
    if has_labels is None:
        has_labels = any(labels)
    return CaptionTable(
        origin,
        StringColumn.of(row_of),
        StringColumn.of(captions),
        StringColumn.of(labels) if has_labels else None,
    )


def _parquet_rows(path: Path) -> tuple[bool, Iterator[_Row]]:
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise CaptionTableError(
            f"{str(path)!r} is not a readable Parquet file: {error}", hint="write it again"
        ) from error
    missing = [name for name in _REQUIRED if name not in schema.names]
    if missing:
        raise _lacks(f"{str(path)!r}", missing, schema.names)
    columns = [name for name in (*_REQUIRED, "label") if name in schema.names]
    return "label" in columns, _parquet_batches(path, columns)


def _parquet_batches(path: Path, columns: list[str]) -> Iterator[_Row]:
    try:
        with pq.ParquetFile(path) as file:
            first = 0
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
                for number, record in enumerate(batch.to_pylist(), start=first):
                    yield _row(record, f"{path}, row {number}")
                first += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise CaptionTableError(
            f"{str(path)!r} is damaged: {error}", hint="write the table again"
        ) from error


def _json_rows(path: Path) -> Iterator[_Row]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_MAX_LINE + 1):
                number += 1
                place = f"{path}, line {number}"
                if len(line) > _MAX_LINE:
                    raise CaptionTableError(
                        f"{place} is longer than {_MAX_LINE} bytes", hint="one object per line"
                    )
                if line.strip():
                    yield _row(_parse(line, place), place)
    except OSError as error:
        raise CaptionTableError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _class_files(folder: Path) -> Iterator[_Row]:
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
        if not names:
            raise CaptionTableError(
                f"the folder {str(folder)!r} holds no .json files",
                hint="one file per class: {file name: caption}",
            )
        for name in names:
            content = _parse((folder / name).read_bytes(), str(folder / name))
            for file_name, caption in content.items():
                # Only the file name counts: the authors' own loader drops the folders, too.
                key = f"{name.removesuffix('.json')}/{PurePosixPath(normal_key(file_name)).name}"
                yield _row({"key": key, "caption": caption}, f"{folder / name}, {file_name!r}")
    except OSError as error:
        raise CaptionTableError(f"{str(folder)!r} cannot be read: {error.strerror}") from error


def _parse(data: bytes, place: str) -> dict[str, object]:
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CaptionTableError(
            f"{place} is not JSON: {error}", hint="an unfinished last line can be removed"
        ) from error
    if not isinstance(content, dict):
        raise CaptionTableError(f"{place} is not an object", hint='{"key": ..., "caption": ...}')
    return content


def _row(record: dict[str, object], place: str) -> _Row:
    missing = [name for name in _REQUIRED if name not in record]
    if missing:
        raise _lacks(place, missing, list(record))
    key, caption, label = record["key"], record["caption"], record.get("label")
    if not isinstance(key, str) or not key:
        raise CaptionTableError(f"{place}: key {key!r} is not a path", hint="give a text")
    if not isinstance(caption, str | None):
        raise CaptionTableError(f"{place}: caption {caption!r} is not a text", hint="give one text")
    if isinstance(label, bool) or not isinstance(label, str | int | None):
        raise CaptionTableError(f"{place}: label {label!r} is not a name", hint="give a text")
    return key, caption or "", "" if label is None else str(label)


def _lacks(place: str, missing: list[str], present: list[str]) -> CaptionTableError:
    return CaptionTableError(
        f"{place} lacks {' and '.join(missing)}; it has {', '.join(present[:8]) or 'nothing'}",
        hint="name the columns key and caption",
    )
