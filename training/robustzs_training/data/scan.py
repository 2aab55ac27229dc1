"""Which images a folder holds: found once, in an order that is the same everywhere."""

from __future__ import annotations

import difflib
import os
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustzs.errors import DatasetNotFoundError
from robustzs.images.sources import SUFFIXES
from robustzs_training.data.strings import StringColumn

_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "eval"})


@dataclass(frozen=True, eq=False)
class Scan:
    """The images of a folder.

    Attributes:
        root: The folder.
        keys: Paths below it, with ``/``; folder by folder, names sorted by their bytes.
        sizes: int64 ``[n]`` in bytes; -1 where nothing regular stands behind the name.
    """

    root: Path
    keys: StringColumn
    sizes: npt.NDArray[np.int64]

    def top_folders(self) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
        """The folders right below the root that hold images, and for each image which one.

        Returns:
            Names in order, and int64 ``[n]``; -1 for an image that lies in the root itself.
        """
        names: dict[str, int] = {}
        places = np.empty(len(self.keys), dtype=np.int64)
        for i, key in enumerate(self.keys):
            top, slash, _ = key.partition("/")
            places[i] = names.setdefault(top, len(names)) if slash else -1
        return tuple(names), places


def scan_folder(root: Path) -> Scan:
    """Find the images below a folder.

    Files count by their suffix, whatever they hold: a broken one is a bad sample, not none. Names
    that begin with a dot are left out. Links to files are followed; links to folders only right
    below the root (a class that lives elsewhere), and not when they lead back to it, so that no
    ring of links can be walked.

    Raises:
        DatasetNotFoundError: No folder, or one without images, or one that cannot be read.
    """
    check_folder(root)
    sizes = array("q")

    def found() -> Iterator[str]:
        for key, size in _walk(root):
            sizes.append(size)
            yield key

    keys = StringColumn.of(found())
    if not len(keys):
        raise DatasetNotFoundError(
            f"the folder {str(root)!r} holds no images",
            hint=f"looked for {' '.join(sorted(SUFFIXES))}",
        )
    return Scan(root, keys, np.array(sizes, dtype=np.int64))


def check_folder(path: Path) -> None:
    """Make sure that there is such a folder.

    Raises:
        DatasetNotFoundError: Saying what is there instead, or what has a similar name.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a name that a folder can have"
        raise DatasetNotFoundError(
            f"the folder {str(path)!r} cannot be used: {reason}", hint=_nearest(path)
        ) from error
    if not stat.S_ISDIR(mode):
        raise DatasetNotFoundError(
            f"{str(path)!r} is not a folder", hint="give the folder that holds the images"
        )


def find_split(path: Path, split: str) -> Path:
    """The folder of a split: ``path`` itself, unless all it holds is splits (``train``, ``val``).

    Raises:
        DatasetNotFoundError: It holds splits, but not this one.
    """
    check_folder(path)
    folders = [name for name, is_folder in _listing(path) if is_folder]
    if not folders or not all(name.lower() in _SPLITS for name in folders):
        return path
    if split in folders:
        return path / split
    raise DatasetNotFoundError(
        f"{str(path)!r} holds the splits {', '.join(folders)}, but no {split!r}",
        hint=f"choose one with data.split, or give {str(path / folders[0])!r} as the path",
    )


def _nearest(path: Path) -> str:
    parent = path.parent
    while parent != parent.parent and not os.path.isdir(parent):
        path, parent = parent, parent.parent
    try:
        names = sorted(os.listdir(parent))
    except OSError:
        return f"looked in {str(parent)!r}"
    similar = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    if similar:
        return f"did you mean {str(parent / similar[0])!r}?"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"{str(parent)!r} holds: {shown or 'nothing'}"


def _listing(folder: Path) -> list[tuple[str, bool]]:
    """Names in a folder and whether each is one, a link to one included; sorted by bytes."""
    try:
        with os.scandir(folder) as scan:
            entries = [
                (entry.name, entry.is_dir()) for entry in scan if not entry.name.startswith(".")
            ]
    except OSError as error:
        raise DatasetNotFoundError(
            f"the folder {str(folder)!r} cannot be read: {error.strerror}",
            hint="check its permissions",
        ) from error
    return sorted(entries, key=lambda entry: os.fsencode(entry[0]))


def _walk(root: Path) -> Iterator[tuple[str, int]]:
    real_root = os.path.realpath(root)
    pending = [""]
    while pending:
        below = pending.pop()
        folders = []
        for name, is_folder in _listing(root / below):
            key = f"{below}{name}"
            if is_folder:
                if not os.path.islink(root / key) or (
                    not below and _leads_out(root / key, real_root)
                ):
                    folders.append(f"{key}/")
            elif os.path.splitext(name)[1].lower() in SUFFIXES:
                yield key, _size(root / key)
        pending.extend(reversed(folders))


def _leads_out(link: Path, real_root: str) -> bool:
    target = os.path.realpath(link)
    return os.path.commonpath([target, real_root]) not in (target, real_root)


def _size(path: Path) -> int:
    try:
        status = os.stat(path)
    except OSError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1
