"""Classes that a file lists beside the images, as in Tiny-ImageNet's validation split.

Its images lie in one folder, ``val/images/val_0.JPEG``, and ``val/val_annotations.txt`` has a line
for each: name, wnid and a box, with tabs between them. Its training split needs nothing of its
own: ``train/WNID/images/*.JPEG`` are class folders like any other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustzs.errors import DataError
from robustzs_training.data.scan import Scan

ANNOTATIONS = "val_annotations.txt"
_FOLDER = "images/"
_MAX_BYTES = 100_000_000


def annotated_classes(scan: Scan) -> tuple[tuple[str, ...], npt.NDArray[np.int64]] | None:
    """The wnids that ``val_annotations.txt`` names, and for each image which one.

    Returns:
        Names in order, and int64 ``[n]``; ``None`` where there is no such file.

    Raises:
        DataError: The file cannot be read, a line is none, or an image has no line.
    """
    path = scan.root / ANNOTATIONS
    if not path.is_file():
        return None
    wnid_of = _read(path)
    wnids = []
    for key in scan.keys:
        wnid = wnid_of.get(key.removeprefix(_FOLDER))
        if wnid is None:
            raise DataError(
                f"{str(path)!r} has no line for {key!r}",
                hint="unpack the data set again, or remove images that are not of it",
            )
        wnids.append(wnid)
    names = tuple(sorted(set(wnids)))
    place = {name: number for number, name in enumerate(names)}
    return names, np.array([place[wnid] for wnid in wnids], dtype=np.int64)


def _read(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(
                f"{str(path)!r} is larger than {_MAX_BYTES // 1_000_000} MB",
                hint="Tiny-ImageNet's has 10000 lines",
            )
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{str(path)!r} cannot be read: {error}", hint="unpack the data set again"
        ) from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) < 2 or not cells[0].strip() or not cells[1].strip():
            raise DataError(
                f"{str(path)!r}, line {number}: {line[:60]!r} is no name and wnid",
                hint="a line is NAME<tab>WNID, and a box that is not read",
            )
        name, wnid = cells[0].strip(), cells[1].strip()
        if found.setdefault(name, wnid) != wnid:
            raise DataError(
                f"{str(path)!r}, line {number}: {name!r} is {wnid} and {found[name]}",
                hint="keep one line for each image",
            )
    return found
