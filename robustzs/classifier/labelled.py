"""Labelled images: a folder of folders, or a table ``path,label``."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robustzs.errors import DataError, DatasetNotFoundError
from robustzs.images.limits import DEFAULT_LIMITS, ImageLimits
from robustzs.images.sources import ImageSource, iter_sources

_MAX_BYTES = 256_000_000
_SHOWN = 10


@dataclass(frozen=True)
class LabelledImage:
    """An image and what is in it.

    Attributes:
        source: The image.
        label: As it was written: a name, an id or a synset.
    """

    source: ImageSource
    label: str


def read_labelled(path: str | Path) -> list[LabelledImage]:
    """Find labelled images.

    A folder holds one folder for each label, named by it, with the images in it or below. A table
    (``.csv`` or ``.tsv``) has the columns ``path`` and ``label``, among others; paths are relative
    to the table.

    Raises:
        DatasetNotFoundError: Nothing is there.
        DataError: No labels, no images, or a table of another form.
    """
    place = Path(path)
    if place.is_dir():
        return _from_folder(place)
    if not place.is_file():
        raise DatasetNotFoundError(
            f"there is no folder or table {str(path)!r}", hint="check the path"
        )
    if place.suffix.lower() not in (".csv", ".tsv"):
        raise DataError(
            f"{place} is neither a folder nor a .csv or .tsv table",
            hint="give a folder of folders named by labels, or a table path,label",
        )
    return _from_table(place)


def data_digest(
    images: Sequence[LabelledImage], limits: ImageLimits = DEFAULT_LIMITS
) -> tuple[str, int]:
    """sha256 over the contents and labels of images in their order, and how many come again.

    Raises:
        ImageError: One cannot be read.
    """
    digest = hashlib.sha256()
    seen: set[str] = set()
    for image in images:
        content = hashlib.sha256(image.source.read(limits)).hexdigest()
        seen.add(content)
        digest.update(f"{content} {image.label}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest(), len(images) - len(seen)


def _from_folder(folder: Path) -> list[LabelledImage]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}") from error
    found = []
    for name in names:
        if name.startswith("."):
            continue
        for source in iter_sources([folder / name]):
            if source.error is None:
                found.append(LabelledImage(source, name))
    if not found:
        raise DataError(
            f"the folder {folder} holds no folders with images",
            hint="put the images of each label into a folder named by it, such as dog/1.jpg",
        )
    return found


def _from_table(path: Path) -> list[LabelledImage]:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"the table {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"the table {path} is not UTF-8", hint="save it as UTF-8") from error
    if len(data) > _MAX_BYTES:
        raise DataError(f"the table {path} is larger than {_MAX_BYTES} bytes", hint="split it")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"the table {path} cannot be read: {error}") from error
    return _from_rows(path, rows)


def _from_rows(path: Path, rows: Sequence[dict[str, str]]) -> list[LabelledImage]:
    if not rows or not {"path", "label"} <= rows[0].keys():
        columns = ", ".join(str(key) for key in rows[0]) if rows else "none"
        raise DataError(
            f"the table {path} has no rows with the columns path and label; it has {columns}",
            hint="begin the table with a line path,label",
        )
    found, empty = [], []
    for number, row in enumerate(rows, start=2):
        name, label = (row.get("path") or "").strip(), (row.get("label") or "").strip()
        if name and label:
            found.append(LabelledImage(ImageSource(os.path.join(path.parent, name)), label))
        elif name or label:
            empty.append(number)
    if empty:
        shown = ", ".join(str(number) for number in empty[:_SHOWN])
        raise DataError(
            f"{len(empty)} rows of the table {path} lack a path or a label: rows {shown}",
            hint="complete them or take them out",
        )
    if not found:
        raise DataError(f"the table {path} names no images", hint="add rows path,label")
    return found
