"""Hugging Face datasets: by name from the Hub or its cache, or a local folder.

Only what the ``datasets`` package reads without anybody's code: Parquet, Arrow and image folders.
Loading scripts are refused by it and, as ``trust_remote_code`` is never passed, cannot be allowed.
Images stay encoded until :func:`robustzs.images.decode.decode_image` gets them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from robustzs.errors import ImageSourceError
from robustzs.images.decode import decode_image
from robustzs.images.sources import ImageSource
from robustzs.labels import LabelSet
from robustzs_training.data.base import Finding, Sample
from robustzs_training.data.hub_columns import Columns, find_columns
from robustzs_training.data.hub_fetch import prepare
from robustzs_training.data.resolve import labels_of_names
from robustzs_training.data.shards.classes import class_labels
from robustzs_training.recipe import DataPart

_SHOWN = 20


class HuggingFaceSource:
    """The examples of a Hugging Face dataset. Make one with :func:`open_huggingface`.

    Args:
        dataset: Map-style, images not decoded; it travels to loader processes as names of files.
        columns: Which of its columns count.
        stem: Begins every key.
        folders: Where files may lie that rows name instead of holding their bytes; keys are
            relative to the first.
        labels: The classes.
        places: int64 ``[n]``, for the examples that have one.
        rows: int64 ``[n]``: which rows of the dataset these are; ``None`` for all.
        findings: What is known to be wrong.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        columns: Columns,
        *,
        stem: str,
        folders: Sequence[Path],
        labels: LabelSet | None,
        places: npt.NDArray[np.int64] | None,
        rows: npt.NDArray[np.int64] | None,
        findings: tuple[Finding, ...],
    ) -> None:
        self._dataset = dataset
        self._columns = columns
        self._stem = stem
        self._folders = tuple(Path(os.path.abspath(folder)) for folder in folders)
        self._labels = labels
        self._places = places
        self._rows = rows
        self.findings = findings

    def __len__(self) -> int:
        return len(self._dataset) if self._rows is None else len(self._rows)

    @property
    def labels(self) -> LabelSet | None:
        """The classes; ``None`` without."""
        return self._labels

    @property
    def label_of(self) -> torch.Tensor | None:
        """int64 ``[n]``; ``None`` without classes."""
        return None if self._places is None else torch.from_numpy(self._places)

    @cached_property
    def digest(self) -> str:
        """Sha256, in hex, over sizes of images, captions and classes."""
        total = hashlib.sha256()
        if self._labels is not None and self._places is not None:
            total.update(self._labels.digest.encode() + self._places.astype("<i8").tobytes())
        if self._rows is not None:
            total.update(self._rows.astype("<i8").tobytes())
        for batch in self._dataset.data.to_batches():
            images = batch.column(self._columns.image)
            if pa.types.is_struct(images.type):
                for value in images.field("path").to_pylist() if _has_paths(images.type) else ():
                    file = self._file(value)
                    size = os.stat(value).st_size if file is not None else 0
                    total.update(f"{file}\0{size}\n".encode("utf-8", "surrogateescape"))
                images = images.field("bytes")
            sizes = pc.fill_null(pc.binary_length(images), -1)
            total.update(np.asarray(sizes).astype("<i8").tobytes())
            if self._columns.caption is not None:
                for text in batch.column(self._columns.caption).to_pylist():
                    total.update(json.dumps(_caption(text)).encode("ascii"))
        return total.hexdigest()

    def key_of(self, index: int) -> str:
        """The file in an image folder, else the number of the row."""
        row = self._row(index)
        value = self._dataset.data.column(self._columns.image)
        if pa.types.is_struct(value.type) and _has_paths(value.type):
            file = self._file(value[row].as_py()["path"] if value[row].is_valid else None)
            if file is not None:
                return file
        return f"{self._stem}/{row:08d}"

    def caption_of(self, index: int) -> str | None:
        """The caption without decoding the image; ``None`` where there is none."""
        if self._columns.caption is None:
            return None
        value = self._dataset.data.column(self._columns.caption)[self._row(index)].as_py()
        return _caption(value)

    def read(self, index: int) -> Sample:
        """Read one example.

        Raises:
            ImageError: Its image cannot be used, or is only named by a path.
        """
        row = self._row(index)
        record = self._dataset[row]
        value = record[self._columns.image]
        data = value.get("bytes") if isinstance(value, dict) else value
        path = value.get("path") if isinstance(value, dict) else None
        file = self._file(path)
        key = f"{self._stem}/{row:08d}" if file is None else file
        if data is None and path and file is not None:
            data = ImageSource(path).read()
        if data is None:
            # A table from somewhere must not choose which of our files are read.
            what = f"only the path {path!r}, which is not followed" if path else "no image"
            raise ImageSourceError(f"{key!r} holds {what}", hint="store the bytes in the table")
        caption = self._columns.caption
        return Sample(
            key=key,
            image=decode_image(data),
            label=None if self._places is None else int(self._places[index]),
            caption=None if caption is None else _caption(record[caption]),
        )

    def _file(self, path: str | None) -> str | None:
        """A file that rows may name, below the folder that it lies in."""
        for folder in self._folders if path else ():
            try:
                return Path(os.path.abspath(path or "")).relative_to(folder).as_posix()
            except ValueError:
                continue
        return None

    def _row(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return index if self._rows is None else int(self._rows[index])


def open_huggingface(part: DataPart, *, cache: Path) -> HuggingFaceSource:
    """Open a Hugging Face dataset.

    Args:
        part: ``name`` as ``REPO``, ``REPO:CONFIG`` or ``REPO@REVISION:CONFIG``, or ``path`` for a
            local folder of Parquet files or images in class folders; ``split``.
        cache: Keeps what is fetched and prepared.

    Raises:
        DatasetNotFoundError: No such dataset or split, or the Hub cannot be reached.
        DataError: It needs code of its own, is of another format, or has no image column.
    """
    prepared = prepare(part, cache)
    dataset, stem = prepared.dataset, prepared.name
    origin = repr(part.path or part.name)
    columns = find_columns(dataset.features, origin)
    dataset = dataset.select_columns(columns.used)
    if isinstance(dataset.features[columns.image], datasets.Image):
        dataset = dataset.cast_column(columns.image, datasets.Image(decode=False))
    findings: list[Finding] = []
    labels, places, rows = _classes(dataset, columns, origin, stem, findings)
    _missing_captions(dataset, columns, stem, findings)
    return HuggingFaceSource(
        dataset,
        columns,
        stem=stem,
        folders=prepared.folders,
        labels=labels,
        places=places,
        rows=rows,
        findings=tuple(findings),
    )


def _classes(
    dataset: datasets.Dataset,
    columns: Columns,
    origin: str,
    stem: str,
    findings: list[Finding],
) -> tuple[LabelSet | None, npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None]:
    """Labels, the class of each example that has one, and which rows these are."""
    if columns.label is None:
        return None, None, None
    column = dataset.data.column(columns.label)
    if columns.names is not None:
        labels = class_labels(columns.names, origin)
        places = np.asarray(pc.fill_null(column, -1)).astype(np.int64)
    else:
        texts = [(text or "").strip() for text in column.to_pylist()]
        names = sorted(set(texts) - {""})
        if not names:
            return None, None, None
        labels = labels_of_names(names, origin)
        place = {name: number for number, name in enumerate(names)}
        places = np.array([place.get(text, -1) for text in texts], dtype=np.int64)
    without = np.flatnonzero((places < 0) | (places >= len(labels)))
    if len(without) == len(places):
        return None, None, None  # as in the test splits of competitions
    findings.append(_finding("missing-label", without, len(places), stem))
    if not len(without):
        return labels, places, None
    rows = np.setdiff1d(np.arange(len(places)), without).astype(np.int64)
    return labels, places[rows], rows


def _missing_captions(
    dataset: datasets.Dataset, columns: Columns, stem: str, findings: list[Finding]
) -> None:
    if columns.caption is None:
        return
    texts = dataset.data.column(columns.caption)
    missing = [row for row, text in enumerate(texts.to_pylist()) if _caption(text) is None]
    findings.append(_finding("missing-caption", missing, len(texts), stem))


def _finding(
    kind: Literal["missing-label", "missing-caption"],
    rows: Sequence[int] | npt.NDArray[np.int64],
    total: int,
    stem: str,
) -> Finding:
    first = tuple(f"{stem}/{row:08d}" for row in rows[:_SHOWN])
    return Finding(kind=kind, count=len(rows), total=total, first=first)


def _caption(value: Any) -> str | None:
    """A text, or the first of several."""
    if isinstance(value, list):
        value = next((each for each in value if isinstance(each, str) and each.strip()), None)
    return (value.strip() or None) if isinstance(value, str) else None


def _has_paths(kind: pa.StructType) -> bool:
    return bool(kind.get_field_index("path") >= 0)
