"""Image folders as a source: with classes by folder name or wnid, with or without captions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from robustzs.errors import CaptionTableError, DataError
from robustzs.images.decode import decode_image
from robustzs.images.sources import ImageSource
from robustzs.labels import LabelSet
from robustzs_training.data.annotations import annotated_classes
from robustzs_training.data.base import Finding, Sample
from robustzs_training.data.captions_table import CaptionTable, missing_captions, read_captions
from robustzs_training.data.resolve import labels_of_names, labels_of_wnids
from robustzs_training.data.scan import Scan, find_split, scan_folder
from robustzs_training.data.strings import StringColumn


@dataclass(frozen=True, eq=False, kw_only=True)
class FolderSource:
    """The images of a folder. Make one with :func:`open_folder`.

    Attributes:
        scan: Which images.
        labels: The classes, or ``None``.
        places: int64 ``[n]``, the class of each image; ``None`` without classes.
        captions: One for each image, empty where it is missing; ``None`` without a table.
        findings: What is known to be wrong: names that do not resolve, missing captions.
    """

    scan: Scan
    labels: LabelSet | None = None
    places: npt.NDArray[np.int64] | None = None
    captions: StringColumn | None = None
    findings: tuple[Finding, ...] = ()

    def __len__(self) -> int:
        return len(self.scan.keys)

    @cached_property
    def label_of(self) -> torch.Tensor | None:
        """int64 ``[n]``."""
        return None if self.places is None else torch.tensor(self.places)

    @cached_property
    def digest(self) -> str:
        """Over names, sizes, classes and captions; not over pixels."""
        parts = [*self.scan.keys.parts, self.scan.sizes.astype("<i8").tobytes()]
        if self.labels is not None and self.places is not None:
            parts += [self.labels.digest.encode(), self.places.astype("<i8").tobytes()]
        if self.captions is not None:
            parts += self.captions.parts
        total = hashlib.sha256()
        for part in parts:
            total.update(len(part).to_bytes(8, "little"))
            total.update(part)
        return total.hexdigest()

    def key_of(self, index: int) -> str:
        """The image's path below the folder."""
        return self.scan.keys[index]

    def caption_of(self, index: int) -> str | None:
        """The caption; ``None`` where the table has none."""
        return (self.captions[index] or None) if self.captions is not None else None

    def encoded(self, index: int) -> bytes:
        """The image's file.

        Raises:
            ImageError: Too large, or not there any more.
        """
        return ImageSource(str(self.scan.root / self.scan.keys[index])).read()

    def read(self, index: int) -> Sample:
        """Read and decode one image.

        Raises:
            ImageError: Not an image, damaged, too large, or not there any more.
        """
        key = self.scan.keys[index]
        image = decode_image(self.encoded(index))
        label = int(self.places[index]) if self.places is not None else None
        return Sample(key=key, image=image, label=label, caption=self.caption_of(index))

    def for_workers(self) -> FolderSource:
        """The same images without captions."""
        return replace(self, captions=None)

    def __getstate__(self) -> dict[str, object]:
        # What can be made again does not travel.
        made_again = ("label_of", "digest")
        return {name: value for name, value in vars(self).items() if name not in made_again}


def open_folder(
    path: Path, *, split: str = "train", captions: Path | None = None, by_wnid: bool = False
) -> FolderSource:
    """Find the images of a folder, their classes, and their captions.

    When every image lies in a subfolder, the folders right below are the classes, unless a
    ``val_annotations.txt`` beside them says otherwise, as Tiny-ImageNet's does. A column
    ``label`` of the caption table goes before them. A folder with images of its own has no
    classes, unless the table names them. An image that has no caption gets an empty one, as in the
    authors' code of QT-AFT, and is counted.

    Args:
        path: The folder, or one that holds nothing but splits.
        split: Which of them.
        captions: A caption table.
        by_wnid: Whether class folders are named by wnids, as ImageNet's are.

    Raises:
        DatasetNotFoundError: No such folder, or no images in it.
        CaptionTableError: The table cannot be read, or names none of the images.
        DataError: Folder names or labels that cannot be classes.
    """
    root = find_split(path, split)
    scan = scan_folder(root)
    table = read_captions(captions) if captions is not None else None
    rows = None
    if table is not None:
        rows = table.rows_of(scan.keys, below="" if root == path else f"{split}/")
    findings: list[Finding] = []
    labels: LabelSet | None = None
    places: npt.NDArray[np.int64] | None = None
    if table is not None and rows is not None and table.labels is not None and not by_wnid:
        labels, places = _labels_of_table(table, rows, scan)
    else:
        labels, places, findings = _labels_of_folders(scan, by_wnid=by_wnid)
    texts = None
    if table is not None and rows is not None:
        texts = table.captions.take(rows)
        findings.append(missing_captions(texts, scan.keys))
    return FolderSource(
        scan=scan, labels=labels, places=places, captions=texts, findings=tuple(findings)
    )


def _labels_of_folders(
    scan: Scan, *, by_wnid: bool
) -> tuple[LabelSet | None, npt.NDArray[np.int64] | None, list[Finding]]:
    annotated = annotated_classes(scan)
    names, places = annotated or scan.top_folders()
    if by_wnid or annotated is not None:
        _check_class_folders(places, scan)
        labels, finding = labels_of_wnids(names)
        return labels, places, [finding]
    if (places >= 0).all():
        return labels_of_names(names, str(scan.root)), places, []
    return None, None, []


def _check_class_folders(tops: npt.NDArray[np.int64], scan: Scan) -> None:
    stray = np.flatnonzero(tops < 0)
    if len(stray):
        raise DataError(
            f"{len(stray)} images of {str(scan.root)!r} lie in no class folder: "
            f"{scan.keys[int(stray[0])]!r}",
            hint="put them into folders named by wnids, or use data.source=folder",
        )


def _labels_of_table(
    table: CaptionTable, rows: npt.NDArray[np.int64], scan: Scan
) -> tuple[LabelSet, npt.NDArray[np.int64]]:
    texts = list((table.labels or StringColumn.of([])).take(rows))
    for i, text in enumerate(texts):
        if not text:
            raise CaptionTableError(
                f"{table.origin} has labels, but none for {scan.keys[i]!r}",
                hint="label every image, or leave the column out",
            )
    names = sorted(set(texts))
    place = {name: number for number, name in enumerate(names)}
    labels = labels_of_names(names, table.origin)
    return labels, np.array([place[text] for text in texts], dtype=np.int64)
