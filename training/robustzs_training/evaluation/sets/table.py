"""A CSV of pictures: ``path,label``, checked as a whole before anything is measured."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from robustzs.errors import DataError, DatasetNotFoundError
from robustzs.images.decode import decode_image
from robustzs.images.sources import ImageSource
from robustzs_training.data.base import Sample

MAX_TABLE_BYTES = 256 << 20
_SHOWN = 20
_COLUMNS = ("path", "label")
_HINT = "write path,label: one picture in each line, the path relative to the table's folder"


@dataclass(frozen=True)
class Line:
    """One line of a table that names a picture: where it stands, and what it says."""

    number: int
    path: str
    label: str


@dataclass(frozen=True, eq=False)
class TableSource:
    """The pictures of a table. Make one with :func:`open_table`.

    Attributes:
        path: The table.
        lines: In its order.
    """

    path: Path
    lines: tuple[Line, ...]

    @property
    def labels(self) -> None:
        """A table's labels may be of any depth: they are texts, not classes."""
        return None

    @property
    def label_of(self) -> torch.Tensor | None:
        """None; see ``codes``."""
        return None

    def __len__(self) -> int:
        return len(self.lines)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The distinct labels, sorted."""
        return tuple(sorted({line.label for line in self.lines}))

    @cached_property
    def codes(self) -> npt.NDArray[np.int64]:
        """int64 ``[n]``: the place of each picture's label in ``texts``."""
        place = {text: number for number, text in enumerate(self.texts)}
        return np.array([place[line.label] for line in self.lines], np.int64)

    @cached_property
    def digest(self) -> str:
        """Over paths and labels, and sizes of files."""
        total = hashlib.sha256()
        for line in self.lines:
            size = os.stat(self._file(line)).st_size
            text = f"{line.path}\0{line.label}\0{size}\n"
            total.update(text.encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    def key_of(self, index: int) -> str:
        """The path as it stands in the table."""
        return self.lines[index].path

    def caption_of(self, index: int) -> None:
        """Tables of labels have none."""
        return None

    def encoded(self, index: int) -> bytes:
        """The picture's file.

        Raises:
            ImageError: It is gone, too large, or not to be read.
        """
        return ImageSource(str(self._file(self.lines[index]))).read()

    def read(self, index: int) -> Sample:
        """Read and decode one picture.

        Raises:
            ImageError: It cannot be used.
        """
        return Sample(key=self.key_of(index), image=decode_image(self.encoded(index)))

    def _file(self, line: Line) -> Path:
        return self.path.parent / line.path


def open_table(path: Path) -> TableSource:
    """Read and check a table.

    A first line that names the columns may be there; then they may be in any order, and others are
    ignored. Without it there are two columns, path and label.

    Args:
        path: UTF-8; comma, and cells in quotes where they hold one.

    Raises:
        DatasetNotFoundError: No such file.
        DataError: Listing every line that is wrong: cells, empty labels, pictures that are not
            there or stand there twice.
    """
    text = _text(path)
    problems: list[str] = []
    lines = list(_lines(text, problems))
    _check_files(path.parent, lines, problems)
    if not lines and not problems:
        problems.append("there is no picture in it")
    if problems:
        raise DataError(listed(str(path), problems), hint=_HINT)
    return TableSource(path, tuple(lines))


def listed(origin: str, problems: Sequence[str]) -> str:
    """One message of many problems, the first of them spelled out."""
    shown = "; ".join(problems[:_SHOWN])
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    count = f"{len(problems)} problems: " if len(problems) > 1 else ""
    return f"{origin}: {count}{shown}{more}"


def _text(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{str(path)!r} is not a regular file", hint=_HINT)
        with path.open("rb") as file:
            data = file.read(MAX_TABLE_BYTES + 1)
    except FileNotFoundError as error:
        raise DatasetNotFoundError(
            f"there is no table {str(path)!r}", hint=f"looked in {str(path.absolute().parent)!r}"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} cannot be read: {error}") from error
    if len(data) > MAX_TABLE_BYTES:
        raise DataError(f"{str(path)!r} is larger than {MAX_TABLE_BYTES} bytes", hint="split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{str(path)!r} is not UTF-8: byte 0x{data[error.start]:02X} in line {line}",
            hint="save it as UTF-8",
        ) from error


def _lines(text: str, problems: list[str]) -> Iterator[Line]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    places: tuple[int, int] | None = None
    width, number = 2, 1
    try:
        for row in reader:
            here, number = number, reader.line_num + 1
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if places is None:
                places = _header([cell.lower() for cell in cells])
                if places is not None:
                    width = len(cells)
                    continue
                places = (0, 1)
            if len(cells) != width:
                problems.append(f"line {here}: {len(cells)} cells, not {width}")
                continue
            path, label = cells[places[0]], cells[places[1]]
            if path and label:
                yield Line(here, path, label)
            else:
                problems.append(f"line {here}: the {'label' if path else 'path'} is empty")
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: not a readable table: {error}")


def _header(cells: list[str]) -> tuple[int, int] | None:
    if not set(_COLUMNS) <= set(cells):
        return None
    return cells.index("path"), cells.index("label")


def _check_files(folder: Path, lines: Sequence[Line], problems: list[str]) -> None:
    first: dict[str, int] = {}
    for line in lines:
        try:
            is_file = stat.S_ISREG(os.stat(folder / line.path).st_mode)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a name that a file can have"
            problems.append(f"line {line.number}: {line.path!r}: {reason}")
            continue
        if not is_file:
            problems.append(f"line {line.number}: {line.path!r} is not a file")
        earlier = first.setdefault(os.path.normpath(line.path), line.number)
        if earlier != line.number:
            problems.append(f"line {line.number}: {line.path!r} stands in line {earlier} already")
